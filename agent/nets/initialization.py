"""How the weights of tokenizers and world models start."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

STD = 0.02  # GPT-2's


def initialize_like_gpt(module: nn.Module) -> None:
    """Initialise linear layers and embeddings with N(0, 0.02), biases with 0 (GPT-2).

    Convolutions and norms keep PyTorch's defaults. For `module.apply`.
    """
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


@torch.no_grad()
def rescale(modules: Iterable[nn.Module], std: float) -> None:
    """Of modules as `initialize_like_gpt` leaves them, weights of another standard deviation."""
    for module in modules:
        module.weight.mul_(std / STD)
