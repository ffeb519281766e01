"""Finite scalar quantization: no codebook at all."""

from __future__ import annotations

import torch
from torch import Tensor

from agent.config.quantizers import FsqConfig
from agent.quantizers.base import (
    Quantizer,
    QuantizerOutput,
    float32,
    straight_through,
    to_digits,
    to_token,
)

MARGIN = 1e-3  # by which a bounded dimension reaches past its outermost levels


class FiniteScalarQuantizer(Quantizer):
    """FSQ: rounds each dimension to one of a few levels; the codes are all combinations of levels.

    Nothing is learned, and there is no commitment loss.

    Source: Mentzer et al. 2023, section 3.1 and appendix A.1.
    """

    config: FsqConfig

    def __init__(self, config: FsqConfig) -> None:
        super().__init__(config)
        levels = torch.tensor(config.levels)
        reach = (levels - 1) * (1 + MARGIN) / 2
        offset = 0.5 * (levels % 2 == 0)  # of an even number one more is below zero than above
        shift = torch.atanh(offset / reach)
        buffers = {"reach": reach, "offset": offset, "shift": shift, "middle": levels // 2}
        for name, value in {**buffers, "top": levels - 1}.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, z: Tensor) -> QuantizerOutput:
        with float32(z):
            bounded = self.bound(z.float())
            rounded = bounded.round()
            vectors = straight_through(bounded, rounded) / self.middle
            tokens = self.tokens_of(rounded)
            if self.training:
                self._count(tokens.flatten())
        return QuantizerOutput(vectors, tokens, vectors.new_zeros(()))

    def bound(self, z: Tensor) -> Tensor:
        """[..., dim] -> between a dimension's outermost levels, zero where z is."""
        return torch.tanh(z + self.shift) * self.reach - self.offset

    def tokens_of(self, rounded: Tensor) -> Tensor:
        """[..., dim], whole numbers, 0 in the middle -> [...] int64."""
        digits = (rounded.long() + self.middle).clamp(min=0)  # of NaN, too
        return to_token(digits.minimum(self.top), self.config.levels)

    def nearest(self, z: Tensor) -> Tensor:
        with float32(z):
            return self.tokens_of(self.bound(z.float()).round())

    def lookup(self, tokens: Tensor) -> Tensor:
        return (to_digits(tokens, self.config.levels) - self.middle) / self.middle
