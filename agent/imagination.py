"""World model × policy × start -> Trajectory. Static shapes; nothing is read back; no branch on data."""

from __future__ import annotations

import torch
from tensordict import tensorclass
from torch import Tensor

from agent.nets.heads import Select, gumbel_max
from agent.policies.cnn_lstm import CnnLstmPolicy
from agent.segment import Segment
from agent.world_models.delta import DeltaWorld


@tensorclass
class Trajectory:
    """An imagined stretch of H steps, batch size [B].

    frames:  [B, H + 1, 3, H, W] uint8: what the policy saw, then what came of its last action
    actions: [B, H] int64
    tokens:  [B, H, K] int64
    rewards: [B, H] float32
    ends:    [B, H] bool
    """

    frames: Tensor
    actions: Tensor
    tokens: Tensor
    rewards: Tensor
    ends: Tensor


def burn_in(policy: CnnLstmPolicy, segment: Segment) -> Tensor:
    """The policy's state before the segment's last frame, [B, state].

    Padding counts as black frames, as published: an episode's start is seen after some of them.
    """
    return policy.remember(segment.frames[:, :-1], policy.initial_state(segment.frames.shape[0]))


@torch.no_grad()
def imagine(
    world: DeltaWorld,
    policy: CnnLstmPolicy,
    segment: Segment,
    policy_state: Tensor,
    horizon: int,
    select: Select = gumbel_max,
) -> Trajectory:
    """`horizon` steps from the segment's last frame; policy_state: [B, state], from `burn_in`.

    No gradient: actor and critic are computed once more, over the whole trajectory in one batch, to learn.
    """
    state = world.start(segment)
    steps = []
    for _ in range(horizon):
        output, policy_state = policy(state.frames.unsqueeze(1), policy_state)
        action = select(output.action_logits[:, 0])
        seen = state.frames
        imagined, state = world.step(state, action, select)
        steps.append((seen, action, imagined))
    return Trajectory(
        frames=torch.stack([seen for seen, _, _ in steps] + [state.frames], dim=1),
        actions=torch.stack([action for _, action, _ in steps], dim=1),
        tokens=torch.stack([imagined.tokens for _, _, imagined in steps], dim=1),
        rewards=torch.stack([imagined.reward for _, _, imagined in steps], dim=1),
        ends=torch.stack([imagined.end for _, _, imagined in steps], dim=1),
        batch_size=[segment.frames.shape[0]],
    )
