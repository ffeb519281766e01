"""λ-returns, the losses of actor and critic, and the target network (Δ-IRIS, section 2.3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from agent.config.agent import ActorCriticConfig
from agent.imagination import Trajectory, imagine
from agent.nets.heads import Select, gumbel_max
from agent.policies.base import Policy, PolicyOutput
from agent.segment import Segment, masked_mean
from agent.world_models.base import World

Scale = Callable[[Tensor, Tensor], Tensor]
"""Advantages [B, H] and the mask of those that count -> what the actor sees of them."""


def lambda_returns(
    rewards: Tensor, ends: Tensor, values: Tensor, discount: float, lambda_: float
) -> Tensor:
    """G_t = r_t + γ (1 − end_t) ((1 − λ) v_{t+1} + λ G_{t+1}), from G_H = v_H (DreamerV2, eq. 4).

    Args:
        rewards: [B, H].
        ends: [B, H] bool.
        values: [B, H + 1] of the states before each step and after the last.
        discount: γ.
        lambda_: λ.

    Returns:
        [B, H].
    """
    carried = discount * (~ends).float()
    fixed = rewards + carried * (1 - lambda_) * values[:, 1:]
    following = values[:, -1]
    returns = []
    for t in reversed(range(rewards.shape[1])):
        following = torch.addcmul(fixed[:, t], carried[:, t], following, value=lambda_)
        returns.append(following)
    return torch.stack(returns[::-1], dim=1)


def until_first_end(ends: Tensor) -> Tensor:
    """Mask of the steps up to the first end and with it. [B, H] bool -> [B, H] bool."""
    ended = ends.int()
    return ended.cumsum(dim=1) - ended == 0


def actor_critic_loss(
    policy: Policy,
    output: PolicyOutput,
    target_values: Tensor,
    trajectory: Trajectory,
    config: ActorCriticConfig,
    entropy_weight: Tensor | float | None = None,
    scale: Scale | None = None,
) -> dict[str, Tensor]:
    """The loss over the steps until the first imagined end.

    Args:
        output: The policy's, over the trajectory's H steps.
        target_values: [B, H + 1] of the target network, without gradient; the baseline too.
        entropy_weight: Instead of the configuration's.
        scale: Of the advantages; None, as published: as they are.

    Returns:
        The weighted terms, their sum as "loss", and what to watch.
    """
    returns = lambda_returns(
        trajectory.rewards, trajectory.ends, target_values, config.discount, config.lambda_
    )
    mask = until_first_end(trajectory.ends)
    log_probabilities = output.action_logits.float().log_softmax(dim=-1)
    # Factors are independent: an action's log-probability, and the entropy, are sums over them.
    chosen = log_probabilities.gather(-1, trajectory.actions.unsqueeze(-1)).sum(dim=(-2, -1))
    entropy = masked_mean(-(log_probabilities.exp() * log_probabilities).sum(dim=(-2, -1)), mask)
    advantages = returns - target_values[:, :-1]
    advantages = advantages if scale is None else scale(advantages, mask)
    weight = config.entropy_weight if entropy_weight is None else entropy_weight
    losses = {
        "actor": masked_mean(-chosen * advantages, mask),
        "critic": masked_mean(policy.value_code.loss(output.value, returns), mask),
        "entropy_bonus": -weight * entropy,
    }
    watched = {
        "entropy": entropy,
        "imagined_return": masked_mean(returns, mask),
        "imagined_reward": masked_mean(trajectory.rewards, mask),
        "imagined_end_rate": trajectory.ends.any(dim=1).float().mean(),
    }
    return {"loss": sum(losses.values()), **losses, **watched}  # type: ignore[dict-item]


def policy_loss(
    policy: Policy,
    target: Policy,
    world: World,
    segment: Segment,
    config: ActorCriticConfig,
    select: Select = gumbel_max,
    entropy_weight: Tensor | float | None = None,
    scale: Scale | None = None,
) -> dict[str, Tensor]:
    """Imagine from the last frame of a segment [B, burn_in] without gradient, then learn from it.

    Args:
        select: Chooses actions and tokens from their logits.
        entropy_weight: As in `actor_critic_loss`, as is `scale`.
    """
    with torch.no_grad():
        past = world.observe(segment.frames[:, :-1])
        state = policy.burn_in(past)
        trajectory = imagine(world, policy, segment, state, config.horizon, select)
        # The target's own burn-in and the trajectory, in one pass.
        observations = torch.cat([past, trajectory.observations], dim=1)
        target_output, _ = target(observations, target.initial_state(len(observations)))
        target_values = target.value_code.value(target_output.value[:, -config.horizon - 1 :])
    output, _ = policy(trajectory.observations[:, :-1], state)
    return actor_critic_loss(
        policy, output, target_values, trajectory, config, entropy_weight, scale
    )


@torch.no_grad()
def update_target(target: nn.Module, policy: nn.Module, decay: float) -> None:
    """target <- decay · target + (1 − decay) · policy, in place."""
    torch._foreach_lerp_(list(target.parameters()), list(policy.parameters()), 1 - decay)
