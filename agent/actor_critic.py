"""λ-returns, the losses of actor and critic, and the target network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agent.imagination import Trajectory, burn_in, imagine
from agent.nets.heads import Select, gumbel_max
from agent.policies.policy import Policy, PolicyOutput
from agent.segment import Segment, masked_mean
from agent.world_models.tokens import TokenWorld


@dataclass
class ActorCriticConfig:
    """burn_in:     past frames, the start of imagination among them
    horizon:        imagined steps
    discount:       γ
    lambda_:        λ
    entropy_weight: of the entropy bonus
    entropy_half_life: updates of the policy in which that weight halves, and halves again: what was tried in the beginning is played in
                    the end. null, as published: it stays
    target_decay:   of the target network's exponential average
    center:         whether the actor sees advantages less their mean, and divided by their standard deviation where that is
                    more than 1. Not as published, where a critic that does not know yet how large returns are praises
                    whatever was done, and a short run never recovers; for rewards of any size
    """

    burn_in: int = 5
    horizon: int = 15
    discount: float = 0.997
    lambda_: float = 0.95
    entropy_weight: float = 0.001
    entropy_half_life: int | None = None
    target_decay: float = 0.995
    center: bool = False

    def entropy_weight_after(self, updates: Tensor | int) -> Tensor | float:
        """The weight of the entropy bonus after so many updates of the policy."""
        if self.entropy_half_life is None:
            return self.entropy_weight
        return self.entropy_weight * 0.5 ** (updates / self.entropy_half_life)


def lambda_returns(rewards: Tensor, ends: Tensor, values: Tensor, discount: float, lambda_: float) -> Tensor:
    """G_t = r_t + γ (1 − end_t) ((1 − λ) v_{t+1} + λ G_{t+1}), from G_H = v_H (DreamerV2, eq. 4).

    rewards: [B, H]; ends: [B, H] bool; values: [B, H + 1] of the states before each step and after the last
    -> [B, H]
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
    """Mask of the steps up to the first end and with it. ends: [B, H] bool -> [B, H] bool."""
    ended = ends.int()
    return ended.cumsum(dim=1) - ended == 0


def centered(advantages: Tensor, mask: Tensor) -> Tensor:
    """Less their mean over the mask, divided by their standard deviation where it is more than 1. [B, H] -> [B, H]"""
    advantages = advantages - masked_mean(advantages, mask)
    return advantages / masked_mean(advantages.square(), mask).sqrt().clamp(min=1)


def actor_critic_loss(
    policy: Policy,
    output: PolicyOutput,
    target_values: Tensor,
    trajectory: Trajectory,
    config: ActorCriticConfig,
    updates: Tensor | int = 0,
) -> dict[str, Tensor]:
    """The terms of the loss over the steps until the first imagined end, weights included, and their sum as "loss".

    output:        the online policy's, over the trajectory's H steps
    target_values: [B, H + 1] of the target network, without gradient; the baseline too
    updates:       of the policy so far
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
    if config.center:
        advantages = centered(advantages, mask)
    losses = {
        "actor": masked_mean(-chosen * advantages, mask),
        "critic": masked_mean(policy.value_code.loss(output.value, returns), mask),
        "entropy_bonus": -config.entropy_weight_after(updates) * entropy,
    }
    seen = {
        "entropy": entropy,
        "imagined_return": masked_mean(returns, mask),
        "imagined_reward": masked_mean(trajectory.rewards, mask),
        "imagined_end_rate": trajectory.ends.any(dim=1).float().mean(),
    }
    return {"loss": sum(losses.values()), **losses, **seen}


def policy_loss(
    policy: Policy,
    target: Policy,
    world: TokenWorld,
    segment: Segment,
    config: ActorCriticConfig,
    select: Select = gumbel_max,
    updates: Tensor | int = 0,
) -> dict[str, Tensor]:
    """Imagine from the segment's last frame without gradient, then learn from the trajectory in one pass.

    segment: [B, burn_in]
    updates: of the policy so far
    """
    with torch.no_grad():
        past = world.observe(segment.frames[:, :-1])
        state = burn_in(policy, past)
        trajectory = imagine(world, policy, segment, state, config.horizon, select)
        # The target's own burn-in and the trajectory, in one pass.
        seen = torch.cat([past, trajectory.observations], dim=1)
        target_output, _ = target(seen, target.initial_state(len(seen)))
        target_values = target.value_code.value(target_output.value[:, -config.horizon - 1 :])
    output, _ = policy(trajectory.observations[:, :-1], state)
    return actor_critic_loss(policy, output, target_values, trajectory, config, updates)


@torch.no_grad()
def update_target(target: nn.Module, policy: nn.Module, decay: float) -> None:
    """target <- decay · target + (1 − decay) · policy, in place."""
    torch._foreach_lerp_(list(target.parameters()), list(policy.parameters()), 1 - decay)
