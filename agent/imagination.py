"""World model × policy × start -> Trajectory. Static shapes; nothing is read back; no branch on data."""

from __future__ import annotations

import torch
from tensordict import tensorclass
from torch import Tensor

from agent.nets.heads import Select, gumbel_max
from agent.nets.repeated import repeated
from agent.policies.policy import Policy
from agent.segment import Segment
from agent.world_models.tokens import TokenWorld


@tensorclass
class Trajectory:
    """An imagined stretch of H steps, batch size [B].

    observations: [B, H + 1, ...] what the policy read (`TokenWorld.observe`), then what came of its last action
    actions:      [B, H, F] int64
    tokens:       [B, H, K] int64
    rewards:      [B, H] float32
    ends:         [B, H] bool
    """

    observations: Tensor
    actions: Tensor
    tokens: Tensor
    rewards: Tensor
    ends: Tensor


def burn_in(policy: Policy, past: Tensor) -> Tensor:
    """The policy's state after observations [B, T, ...], and before what is seen next: [B, state].

    Padding counts as black frames, as published: an episode's start is seen after some of them.
    """
    return policy.remember(past, policy.initial_state(len(past)))


@repeated
def act(policy: Policy, observations: Tensor, state: Tensor, select: Select) -> tuple[Tensor, Tensor]:
    """observations: [B, ...]; state: [B, state] -> actions [B, F] int64, the state after."""
    logits, state = policy.act(observations, state)
    return select(logits), state


@torch.no_grad()
def imagine(
    world: TokenWorld,
    policy: Policy,
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
        seen = world.observation(state.moment)
        action, policy_state = act(policy, seen, policy_state, select)
        imagined, state = world.step(state, action, select)
        steps.append((seen, action, imagined))
    rewards, ends = world.outcome(torch.stack([imagined.outlook for _, _, imagined in steps], dim=1), select)
    return Trajectory(
        observations=torch.stack([seen for seen, _, _ in steps] + [world.observation(state.moment)], dim=1),
        actions=torch.stack([action for _, action, _ in steps], dim=1),
        tokens=torch.stack([imagined.tokens for _, _, imagined in steps], dim=1),
        rewards=rewards,
        ends=ends,
        batch_size=[segment.frames.shape[0]],
    )


@torch.no_grad()
def dream(world: TokenWorld, segment: Segment, burn_in: int, select: Select = gumbel_max) -> tuple[Tensor, Tensor]:
    """The world sees the segment's first `burn_in` frames and then imagines, under the segment's own actions.

    segment: [B, T] without padding -> frames [B, T − burn_in, C, H, W] uint8 to hold against
    segment.frames[:, burn_in:], and the tokens [B, T − burn_in, K] that led to them
    """
    state = world.start(segment[:, :burn_in])
    steps = []
    for t in range(burn_in - 1, segment.frames.shape[1] - 1):
        imagined, state = world.step(state, segment.actions[:, t], select)
        steps.append((world.frames(state.moment), imagined.tokens))
    frames, tokens = zip(*steps, strict=True)
    return torch.stack(frames, dim=1), torch.stack(tokens, dim=1)
