"""Counter-based random numbers: a row's noise depends on its own key, not on the rest of the batch.

The numbers are SplitMix64's: a counter times an odd constant, mixed (Steele, Lea and Flood 2014,
"Fast Splittable Pseudorandom Number Generators"). All arithmetic is int64 that wraps around, as on
every device and compiler used here.
"""

from __future__ import annotations

import torch
from torch import Tensor

GAMMA = 0x9E3779B97F4A7C15 - 2**64  # 2^64 / golden ratio, odd, as a signed number
MIX1 = 0xBF58476D1CE4E5B9 - 2**64
MIX2 = 0x94D049BB133111EB - 2**64


def mix(x: Tensor) -> Tensor:
    """SplitMix64's finalizer, a bijection in which each bit of x is felt by all. int64 -> int64."""
    x = (x ^ _shift(x, 30)) * MIX1
    x = (x ^ _shift(x, 27)) * MIX2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """To the right, filled with zeros; >> repeats the sign."""
    return (x >> bits) & (2 ** (64 - bits) - 1)


def split(key: Tensor, index: Tensor | int) -> Tensor:
    """The key of the `index`-th of a key's parts, index ≥ 0: int64 each, broadcast."""
    if isinstance(index, int):  # Python's do not wrap around by themselves
        step = ((index + 1) * GAMMA + 2**63) % 2**64 - 2**63
    else:  # + 0 of the key's type: Inductor (torch 2.11) counts an arange in int32 on CUDA
        step = (index + 1 + (key ^ key)) * GAMMA
    return mix(key + step)


def uniform(key: Tensor) -> Tensor:
    """int64 -> float32 in the open interval (0, 1), a multiple of 2^-24."""
    return (_shift(key, 41).float() + 0.5) * 2.0**-23


class KeyedGumbelMax:
    """A `Select` that samples with one key per row.

    Its n-th call gives the n-th draw of each row, whatever the logits.
    """

    def __init__(self, keys: Tensor) -> None:
        """keys: [B] int64"""
        self.keys, self.draws = keys, 0

    def __call__(self, logits: Tensor) -> Tensor:
        """[B, C] -> [B] int64. argmax(logits + Gumbel noise), as `heads.gumbel_max`."""
        drawn = split(self.keys, self.draws)
        self.draws += 1
        classes = torch.arange(logits.shape[-1], device=logits.device)
        gumbel = -torch.log(-torch.log(uniform(split(drawn.unsqueeze(-1), classes))))
        return (logits.float() + gumbel).argmax(dim=-1)
