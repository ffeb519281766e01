"""What the published actor-critic does not have: scaled advantages, an entropy bonus that fades."""

from __future__ import annotations

from torch import Tensor

from agent.segment import masked_mean


def centered(advantages: Tensor, mask: Tensor) -> Tensor:
    """Less their mean over the mask, divided by their standard deviation where it is above 1.

    A critic that does not know yet how large returns are praises whatever was done; a short run
    does not recover from that. [B, H] -> [B, H]
    """
    advantages = advantages - masked_mean(advantages, mask)
    return advantages / masked_mean(advantages.square(), mask).sqrt().clamp(min=1)


def faded(weight: float, updates: Tensor, half_life: int) -> Tensor:
    """A weight that halves every `half_life` of so many updates."""
    return weight * 0.5 ** (updates / half_life)
