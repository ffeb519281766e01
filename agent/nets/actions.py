"""Actions of several factors [..., F]: how networks read them, say them and draw them at random."""

from __future__ import annotations

from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMPOSSIBLE = -1e9  # a logit; not −∞, of which an entropy would make NaN


class ActionEmbedding(nn.Embedding):
    """One table for the choices of all factors; an action is the sum of its factors' rows.

    [..., F] int64 -> [..., width]
    """

    def __init__(self, sizes: tuple[int, ...], width: int) -> None:
        super().__init__(sum(sizes), width)
        self.register_buffer(
            "first", torch.tensor([0, *accumulate(sizes[:-1])]), persistent=False
        )  # row of each factor

    def forward(self, actions: Tensor) -> Tensor:
        if actions.shape[-1] == 1:  # the usual case, without a sum of one
            return super().forward(actions.squeeze(-1))
        return super().forward(actions + self.first).sum(dim=-2)


def by_factor(logits: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Split logits [..., sum(sizes)] into independent categoricals [..., F, max(sizes)].

    A factor with fewer than max(sizes) choices is padded with −inf.
    """
    if len(set(sizes)) == 1:
        return logits.unflatten(-1, (len(sizes), sizes[0]))
    widest = max(sizes)
    parts = [
        F.pad(part, (0, widest - part.shape[-1]), value=IMPOSSIBLE)
        for part in logits.split(sizes, dim=-1)
    ]
    return torch.stack(parts, dim=-2)


def random_actions(sizes: tuple[int, ...], shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uniform in every factor. -> [*shape, F] int64"""
    return torch.stack([torch.randint(n, shape, device=device) for n in sizes], dim=-1)
