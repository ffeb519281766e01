"""World model × policy × start -> Trajectory.

Static shapes; nothing is read back; no branch on data.
"""

from __future__ import annotations

import torch
from tensordict import tensorclass
from torch import Tensor

from agent.nets.compiled_once import compiled_once
from agent.nets.heads import Select, gumbel_max
from agent.policies.base import Policy
from agent.segment import Segment
from agent.world_models.base import World


@tensorclass
class Trajectory:
    """An imagined stretch of H steps, batch size [B].

    Attributes:
        observations: [B, H + 1, ...] what the policy read (`World.observe`), and what came after
            its last action.
        actions: [B, H, F] int64.
        tokens: [B, H, K] int64.
        rewards: [B, H] float32.
        ends: [B, H] bool.
    """

    observations: Tensor
    actions: Tensor
    tokens: Tensor
    rewards: Tensor
    ends: Tensor


@compiled_once
def act(
    policy: Policy, observations: Tensor, state: Tensor, select: Select
) -> tuple[Tensor, Tensor]:
    """observations [B, ...], state [B, state] -> actions [B, F] int64, the state after."""
    logits, state = policy.act(observations, state)
    return select(logits), state


@torch.no_grad()
def imagine(
    world: World,
    policy: Policy,
    segment: Segment,
    policy_state: Tensor,
    horizon: int,
    select: Select = gumbel_max,
) -> Trajectory:
    """Play in the world from a segment's last frame.

    Without gradient: actor and critic are computed once more, over the whole trajectory in one
    batch, to learn.

    Args:
        segment: [B, T] real frames and actions.
        policy_state: [B, state], of `Policy.burn_in` over all frames but the last.
        horizon: Number of steps.
        select: Chooses actions and tokens from their logits.
    """
    state = world.start(segment)
    observations, actions, steps = [world.observation(state.latent)], [], []
    for _ in range(horizon):
        action, policy_state = act(policy, observations[-1], policy_state, select)
        imagined, state = world.step(state, action, select)
        actions.append(action)
        steps.append(imagined)
        observations.append(world.observation(state.latent))
    features = torch.stack([step.action_features for step in steps], dim=1)
    rewards, ends = world.outcome(features, select)
    return Trajectory(
        observations=torch.stack(observations, dim=1),
        actions=torch.stack(actions, dim=1),
        tokens=torch.stack([step.tokens for step in steps], dim=1),
        rewards=rewards,
        ends=ends,
        batch_size=[len(features)],
    )


@torch.no_grad()
def dream(
    world: World, segment: Segment, burn_in: int, select: Select = gumbel_max
) -> tuple[Tensor, Tensor]:
    """Imagine a segment's own actions after its first `burn_in` frames.

    Args:
        segment: [B, T] without padding.
        select: Chooses tokens from their logits.

    Returns:
        Frames [B, T − burn_in, C, H, W] uint8, to hold against segment.frames[:, burn_in:], and
        the tokens [B, T − burn_in, K] that led to them.
    """
    state = world.start(segment[:, :burn_in])
    frames, tokens = [], []
    for t in range(burn_in - 1, segment.frames.shape[1] - 1):
        imagined, state = world.step(state, segment.actions[:, t], select)
        frames.append(world.frames(state.latent))
        tokens.append(imagined.tokens)
    return torch.stack(frames, dim=1), torch.stack(tokens, dim=1)
