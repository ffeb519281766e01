"""Vector -> token -> vector: what all quantizers have in common.

The tests compare with `vector-quantize-pytorch`. It is not used here because it reads values back
to the host (VectorQuantize in every update, which rules out CUDA graphs; FSQ when it is made, which
rules out the meta device, where a run is measured before it starts), and its codebooks are slower.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from agent.config.quantizers import QuantizerConfig


def float32(x: Tensor) -> contextlib.AbstractContextManager:
    """Turn autocast off: distances in bf16 would choose other codes. (Meta tensors have none.)"""
    return contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def straight_through(z: Tensor, codes: Tensor) -> Tensor:
    """The codes' values, with the gradient passed to z (van den Oord et al. 2017, section 3.2)."""
    return z + (codes - z).detach()


def to_token(digits: Tensor, base: list[int]) -> Tensor:
    """A number in mixed base from its digits, the lowest first. [..., n] int64 -> [...] int64."""
    token = digits[..., -1]
    for i in reversed(range(len(base) - 1)):
        token = token * base[i] + digits[..., i]
    return token


def to_digits(tokens: Tensor, base: list[int]) -> Tensor:
    """The inverse of `to_token`."""
    digits = []
    for b in base:
        digits.append(tokens % b)
        tokens = tokens // b
    return torch.stack(digits, dim=-1)


class QuantizerOutput(NamedTuple):
    """What a quantizer returns.

    Attributes:
        vectors: [..., dim], the codes, with a gradient for the input.
        tokens: [...] int64.
        commitment: Scalar loss, weight included: the distance of the inputs from their codes, and,
            where codes learn by gradient, of the codes from the inputs.
    """

    vectors: Tensor
    tokens: Tensor
    commitment: Tensor


class Quantizer(nn.Module, ABC):
    """The interface of all quantizers, and a moving average of how often each code is used.

    All arithmetic is in float32, and nothing is read back, so updates can be captured.
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("usage", torch.full((config.num_codes,), 1 / config.num_codes))

    @abstractmethod
    def forward(self, z: Tensor) -> QuantizerOutput:
        """Quantise z [..., dim]. In training mode this may update the codebook."""

    @abstractmethod
    def nearest(self, z: Tensor) -> Tensor:
        """z [..., dim] -> tokens [...] int64; the codebook stays as it is."""

    @abstractmethod
    def lookup(self, tokens: Tensor) -> Tensor:
        """[...] int64 -> [..., dim]."""

    def usage_entropy(self) -> Tensor:
        """Entropy of the codes' use, in bits; log2(size) if all are used alike."""
        p = self.usage / self.usage.sum()
        return -torch.special.xlogy(p, p).sum() / math.log(2)

    def diagnostics(self) -> dict[str, Tensor]:
        """Entropy of use, and how many codes are used a tenth as often as on average or more."""
        in_use = (self.usage >= 0.1 / self.config.num_codes).sum()
        return {"codebook_entropy_bits": self.usage_entropy(), "codes_in_use": in_use}

    @torch.no_grad()
    def _count(self, tokens: Tensor) -> None:
        share = torch.full(tokens.shape, 1 / tokens.numel(), device=tokens.device)
        self._follow(torch.zeros_like(self.usage).index_add_(0, tokens, share))

    def _follow(self, use: Tensor) -> None:
        """use: [size], how often each code was used, sum 1."""
        self.usage.lerp_(use, 1 - self.config.usage_decay)
