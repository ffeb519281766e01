"""Codebooks: vector -> token -> vector."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class QuantizerConfig:
    """A codebook on the unit sphere that follows the data (Δ-IRIS).

    size, dim:       number of codes and their length
    commitment:      weight of the commitment loss
    decay:           of the moving average that moves the codes
    usage_decay:     of the moving average of how often each code is used
    revival_updates: updates during which unused codes are revived as soon as the usage entropy falls two
                     bits below its maximum; null: always. Below one bit they are revived in any case.
    """

    size: int = 1024
    dim: int = 64
    commitment: float = 0.02
    decay: float = 0.99
    usage_decay: float = 0.98
    revival_updates: int | None = 0


def float32(x: Tensor) -> contextlib.AbstractContextManager:
    """No autocast inside: distances in bf16 would choose other codes. (Meta tensors do not know autocast.)"""
    return contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


class QuantizerOutput(NamedTuple):
    """vectors: [..., dim] the nearest codes, their gradient passed straight through to the input
    tokens:     [...] int64
    commitment: scalar, weight included: how far the inputs are from their codes
    """

    vectors: Tensor
    tokens: Tensor
    commitment: Tensor


class CosineQuantizer(nn.Module):
    """Nearest code by dot product, the cosine as soon as the codes are unit vectors, which the first update
    makes them. The codebook moves by exponential averages, not by gradient.

    (van den Oord et al. 2017, appendix A.1, with the l2-normalised codes of Yu et al. 2022, and the
    revival of unused codes of Δ-IRIS.)
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("codebook", torch.empty(config.size, config.dim).uniform_(-1, 1) / config.size)
        self.register_buffer("usage", torch.full((config.size,), 1 / config.size))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, z: Tensor) -> QuantizerOutput:
        """z: [..., dim], any length. In training mode the codebook then takes a step towards z."""
        with float32(z):
            z = F.normalize(z.float(), dim=-1)
            tokens = self.nearest(z)
            codes = self.lookup(tokens)
            commitment = self.config.commitment * F.mse_loss(z, codes)
            vectors = z + (codes - z).detach()
            if self.training:
                self._move(z.detach().flatten(0, -2), tokens.flatten())
        return QuantizerOutput(vectors, tokens, commitment)

    def nearest(self, z: Tensor) -> Tensor:
        """z: [..., dim], any length -> tokens [...] int64; the codebook stays as it is."""
        with float32(z):
            return (z.float() @ self.codebook.T).argmax(dim=-1)

    def lookup(self, tokens: Tensor) -> Tensor:
        """[...] int64 -> [..., dim]."""
        return F.embedding(tokens, self.codebook)

    def usage_entropy(self) -> Tensor:
        """Entropy of the codes' use, in bits; log2(size) if all are used alike."""
        p = self.usage / self.usage.sum()
        return -torch.special.xlogy(p, p).sum() / math.log(2)

    def codes_in_use(self) -> Tensor:
        """How many codes are used at least a tenth as often as if all were used alike."""
        return (self.usage >= 0.1 / self.config.size).sum()

    @torch.no_grad()
    def _move(self, z: Tensor, tokens: Tensor) -> None:
        """z: [N, dim] unit vectors, tokens: [N] their codes. No branch on data, so it can be captured."""
        c = self.config
        assigned = (tokens[:, None] == torch.arange(c.size, device=z.device)).to(z.dtype)  # [N, size]
        self.usage.lerp_(assigned.mean(dim=0), 1 - c.usage_decay)
        # A code that nobody chose has the zero vector as its mean: it shrinks, and normalising undoes that.
        mean = F.normalize(assigned.T @ z, dim=-1)
        moved = F.normalize(self.codebook.lerp(mean, 1 - c.decay), dim=-1)

        entropy = self.usage_entropy()
        revive = entropy < math.log2(c.size) - 2
        if c.revival_updates is not None:
            revive = revive & ((entropy < 1) | (self.updates < c.revival_updates))
        dead = revive & (self.usage < 0.1 / c.size)
        random_rows = z[torch.randint(z.shape[0], (c.size,), device=z.device)]
        self.codebook.copy_(torch.where(dead[:, None], random_rows, moved))
        self.usage.copy_(torch.where(dead, 1 / c.size, self.usage))
        self.updates.add_(1)
