"""Actions of several factors [..., F]: how networks read, predict and draw them."""

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
        first_rows = torch.tensor([0, *accumulate(sizes[:-1])])
        self.register_buffer("first", first_rows, persistent=False)

    def forward(self, actions: Tensor) -> Tensor:
        if actions.shape[-1] == 1:  # the usual case, without a sum of one
            return super().forward(actions.squeeze(-1))
        return super().forward(actions + self.first).sum(dim=-2)


def by_factor(logits: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Split logits [..., sum(sizes)] into independent categoricals [..., F, max(sizes)].

    Choices that a factor does not have are `IMPOSSIBLE`.
    """
    if len(set(sizes)) == 1:
        return logits.unflatten(-1, (len(sizes), sizes[0]))
    parts = logits.split(sizes, dim=-1)
    padded = [F.pad(x, (0, max(sizes) - x.shape[-1]), value=IMPOSSIBLE) for x in parts]
    return torch.stack(padded, dim=-2)


def random_actions(sizes: tuple[int, ...], shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uniform in every factor. -> [*shape, F] int64"""
    return torch.stack([torch.randint(n, shape, device=device) for n in sizes], dim=-1)
