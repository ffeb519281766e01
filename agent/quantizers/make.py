"""The quantizer of a config, one codebook or several side by side."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from agent.config.quantizers import CodebookConfig, QuantizerConfig
from agent.quantizers.base import Quantizer, QuantizerOutput, to_digits, to_token
from agent.quantizers.codebooks import AveragingVectorQuantizer, CosineQuantizer, VectorQuantizer
from agent.quantizers.scalar import FiniteScalarQuantizer
from envs.errors import BadInput


class ProductQuantizer(Quantizer):
    """Several codebooks, each for its share of the dimensions (Jégou et al. 2011).

    m codebooks of n codes each distinguish n^m vectors.

    Raises:
        BadInput: If the size or the dimensions cannot be divided among the codebooks.
    """

    def __init__(self, config: CodebookConfig) -> None:
        super().__init__(config)
        shares = config.codebooks
        share = round(config.size ** (1 / shares))
        if share**shares != config.size or config.dim % shares:
            raise BadInput(
                f"agent.tokenizer.quantizer.codebooks={shares} was given with size={config.size} "
                f"and dim={config.dim}; give a size that is a whole number to the power of "
                f"{shares}, {max(2, share) ** shares} say, and a multiple of {shares} as dim."
            )
        own = dataclasses.replace(config, size=share, dim=config.dim // shares, codebooks=1)
        self.base = [share] * shares
        self.parts = nn.ModuleList(make_quantizer(own) for _ in range(shares))

    def forward(self, z: Tensor) -> QuantizerOutput:
        shares = zip(self.parts, z.chunk(len(self.base), dim=-1), strict=True)
        outputs = [part(share) for part, share in shares]
        vectors, tokens, commitments = zip(*outputs, strict=True)
        token = to_token(torch.stack(tokens, dim=-1), self.base)
        if self.training:
            self._count(token.flatten())
        return QuantizerOutput(torch.cat(vectors, dim=-1), token, torch.stack(commitments).mean())

    def nearest(self, z: Tensor) -> Tensor:
        shares = zip(self.parts, z.chunk(len(self.base), dim=-1), strict=True)
        tokens = [part.nearest(share) for part, share in shares]
        return to_token(torch.stack(tokens, dim=-1), self.base)

    def lookup(self, tokens: Tensor) -> Tensor:
        shares = zip(self.parts, to_digits(tokens, self.base).unbind(dim=-1), strict=True)
        return torch.cat([part.lookup(share) for part, share in shares], dim=-1)


CLASSES = {
    "cosine_ema": CosineQuantizer,
    "vq": VectorQuantizer,
    "vq_ema": AveragingVectorQuantizer,
    "fsq": FiniteScalarQuantizer,
}


def make_quantizer(config: QuantizerConfig) -> Quantizer:
    """The quantizer of a config. Raises BadInput if its sizes do not fit together."""
    if isinstance(config, CodebookConfig) and config.codebooks > 1:
        return ProductQuantizer(config)
    return CLASSES[config.kind](config)
