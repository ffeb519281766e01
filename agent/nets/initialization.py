"""How the weights of tokenizers and world models start."""

from __future__ import annotations

from torch import nn


def initialize_like_gpt(module: nn.Module) -> None:
    """Linear layers and embeddings at N(0, 0.02), biases at 0 (GPT-2); convolutions and norms stay at
    PyTorch's defaults. For `module.apply`."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
