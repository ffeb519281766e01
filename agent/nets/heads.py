"""Categorical sampling, and how a network predicts a scalar: two-hot, sign class, or plain."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Select = Callable[[Tensor], Tensor]
"""Logits [..., C] -> indices [...] int64: `gumbel_max` samples, `greedy` takes the most likely."""


def gumbel_max(logits: Tensor) -> Tensor:
    """Sample a categorical distribution, as argmax(logits + Gumbel noise). [..., C] -> [...] int64.

    Unlike torch.multinomial it reads nothing back to the host. −log of an exponential variate is a
    Gumbel variate.
    """
    noise = torch.empty_like(logits, dtype=torch.float32).exponential_().log()
    return (logits.float() - noise).argmax(dim=-1)


def greedy(logits: Tensor) -> Tensor:
    """The most likely class. [..., C] -> [...] int64."""
    return logits.argmax(dim=-1)


def mlp_head(width: int, outputs: int) -> nn.Sequential:
    """Linear, ReLU, linear."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|) (DreamerV3, eq. 9)."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """The inverse of `symlog`."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


class TwoHot:
    """A scalar as a distribution over `size` buckets, equally spaced in symlog.

    Source: DreamerV3, equations 9 and 10.
    """

    size = 255
    limit = 20.0

    def buckets(self, device: torch.device) -> Tensor:
        """Centres of the buckets in symlog, [size]."""
        return torch.linspace(-self.limit, self.limit, self.size, device=device)

    def encode(self, x: Tensor) -> Tensor:
        """Spread x over the two buckets nearest to symlog(x), weighted by closeness.

        Beyond the limits all weight is on the outermost bucket.

        x: [...] any finite float -> [..., size] float32 that sums to 1
        """
        y = symlog(x).clamp(-self.limit, self.limit).float()
        width = 2 * self.limit / (self.size - 1)
        # Weights of linear interpolation: a triangle around each bucket, one distance wide.
        return (1 - (y.unsqueeze(-1) - self.buckets(x.device)).abs() / width).clamp(min=0)

    def value(self, output: Tensor) -> Tensor:
        """The distribution's mean in symlog, mapped back. [..., size] logits -> [...] float32."""
        return symexp((output.float().softmax(dim=-1) * self.buckets(output.device)).sum(dim=-1))

    def sample(self, output: Tensor, select: Select) -> Tensor:
        """What imagination uses as the reward: the mean, not a sample."""
        return self.value(output)

    def loss(self, output: Tensor, x: Tensor) -> Tensor:
        """Cross-entropy to the two-hot code. [..., size] logits, [...] -> [...]."""
        return -(self.encode(x) * output.float().log_softmax(dim=-1)).sum(dim=-1)


class Sign:
    """A reward as one of three classes: −1, 0, +1 (IRIS; Δ-IRIS on Atari)."""

    size = 3

    def sample(self, output: Tensor, select: Select) -> Tensor:
        """[..., 3] logits -> [...] float32 in {−1, 0, 1}."""
        return select(output).float() - 1

    def loss(self, output: Tensor, x: Tensor) -> Tensor:
        """Cross-entropy to the sign's class. [..., 3] logits, [...] -> [...]."""
        classes = torch.sign(x).long() + 1
        return -output.float().log_softmax(dim=-1).gather(-1, classes.unsqueeze(-1)).squeeze(-1)


class Scalar:
    """A value as one number, with squared error (Δ-IRIS on Atari)."""

    size = 1

    def value(self, output: Tensor) -> Tensor:
        """[..., 1] -> [...] float32."""
        return output.float().squeeze(-1)

    def loss(self, output: Tensor, x: Tensor) -> Tensor:
        """Squared error. [..., 1], [...] -> [...]."""
        return F.mse_loss(self.value(output), x, reduction="none")


REWARD_CODES: dict[str, type[TwoHot] | type[Sign]] = {"two_hot": TwoHot, "sign": Sign}
VALUE_CODES: dict[str, type[TwoHot] | type[Scalar]] = {"two_hot": TwoHot, "scalar": Scalar}
