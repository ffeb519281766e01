"""Several choices as one token: numbers in mixed base."""

from __future__ import annotations

import torch
from torch import Tensor


def to_token(digits: Tensor, base: list[int]) -> Tensor:
    """A number in mixed base from its digits, the lowest first.

    digits: [..., n] int64, each below its `base` -> [...] int64
    """
    token = digits[..., -1]
    for i in reversed(range(len(base) - 1)):
        token = token * base[i] + digits[..., i]
    return token


def to_digits(tokens: Tensor, base: list[int]) -> Tensor:
    """The inverse of `to_token`: [...] int64 -> [..., n] int64."""
    digits = []
    for b in base:
        digits.append(tokens % b)
        tokens = tokens // b
    return torch.stack(digits, dim=-1)
