"""How the weights of tokenizers and world models start."""

from torch import nn

STD = 0.02  # GPT-2's


def initialize_like_gpt(module: nn.Module) -> None:
    """Initialise linear layers and embeddings with N(0, 0.02), biases with 0. For `Module.apply`.

    Convolutions and norms keep PyTorch's defaults.
    """
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
