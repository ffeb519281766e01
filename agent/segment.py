"""What travels from the replay to every learner."""

from __future__ import annotations

import torch
from tensordict import tensorclass
from torch import Tensor


@tensorclass
class Segment:
    """A window of an episode, batch size [B, T].

    An episode of n steps has n + 1 frames: its last slot holds the last observation, which no
    action follows. `mask` is True on real steps; it is False there and on padding. Whenever
    mask[:, t] is True, frames[:, t + 1] is the real next frame.

    frames:     [B, T, C, H, W] uint8 in 0..255; zero where padded
    actions:    [B, T, F] int64, a choice for each factor; zero where mask is False
    rewards:    [B, T] float32; zero where mask is False
    terminated: [B, T] bool: the step ended the episode (a death, a goal)
    truncated:  [B, T] bool: the step was the last one for another reason (a time limit)
    mask:       [B, T] bool
    """

    frames: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    mask: Tensor


def unlabelled_segment(frames: Tensor, actions: Tensor, mask: Tensor) -> Segment:
    """A segment whose rewards and ends are all 0; arguments as in `Segment`, on one device."""
    nothing = torch.zeros_like(mask)
    return Segment(frames, actions, nothing.float(), nothing, nothing, mask, batch_size=mask.shape)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x where mask (same shape, bool) is True; 0 if it is nowhere."""
    return torch.where(mask, x, 0.0).sum() / mask.sum().clamp(min=1)


def real_frames(mask: Tensor) -> Tensor:
    """Frames that are no padding: where a real step starts or ends. [B, T] bool -> [B, T] bool."""
    return torch.cat([mask[:, :1], mask[:, 1:] | mask[:, :-1]], dim=1)
