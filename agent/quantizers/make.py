"""The quantizer of a config, one codebook or several side by side."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from agent.config.quantizers import CodebookConfig, QuantizerConfig
from agent.quantizers.base import Quantizer, QuantizerOutput
from agent.quantizers.codebooks import AveragingVectorQuantizer, CosineQuantizer, VectorQuantizer
from agent.quantizers.digits import to_digits, to_token
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
        outputs = [part(own) for part, own in self.shared(z)]
        tokens = to_token(torch.stack([output.tokens for output in outputs], dim=-1), self.base)
        if self.training:
            self._count(tokens.flatten())
        vectors = torch.cat([output.vectors for output in outputs], dim=-1)
        return QuantizerOutput(
            vectors, tokens, torch.stack([output.commitment for output in outputs]).mean()
        )

    def nearest(self, z: Tensor) -> Tensor:
        return to_token(
            torch.stack([part.nearest(own) for part, own in self.shared(z)], dim=-1), self.base
        )

    def lookup(self, tokens: Tensor) -> Tensor:
        digits = to_digits(tokens, self.base).unbind(dim=-1)
        return torch.cat(
            [part.lookup(own) for part, own in zip(self.parts, digits, strict=True)], dim=-1
        )

    def shared(self, z: Tensor) -> list[tuple[Quantizer, Tensor]]:
        """Each codebook with its share of z."""
        return list(zip(self.parts, z.chunk(len(self.base), dim=-1), strict=True))


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
