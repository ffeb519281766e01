"""λ-returns, masks and losses against brute force; which gradients flow and which do not."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchrl.objectives.value.functional import td_lambda_return_estimate

from agent.actor_critic import (
    actor_critic_loss,
    lambda_returns,
    policy_loss,
    until_first_end,
    update_target,
)  # fmt: skip
from agent.advantages import centered, faded
from agent.agent import Agent
from agent.config import ActorCriticConfig, PartConfig, TrainConfig
from agent.imagination import Trajectory
from agent.nets.heads import symlog
from agent.policies.base import PolicyOutput
from agent.policies.lstm import CnnLstmPolicy
from agent.training.components import make_learner
from tests.agent.conftest import ACTIONS, SPACES, random_segment, small_config


def n_step_return(
    rewards: list, ends: list, values: list, t: int, n: int, discount: float
) -> float:
    """r_t + γ r_{t+1} + … + γ^n v_{t+n}, cut off behind an end."""
    total = 0.0
    for i in range(n):
        total += discount**i * rewards[t + i]
        if ends[t + i]:
            return total
    return total + discount**n * values[t + n]


def mixture(
    rewards: list, ends: list, values: list, discount: float, lambda_: float
) -> list[float]:
    """The λ-return as the weighted mean of all n-step returns (Sutton and Barto, eq. 12.3)."""
    horizon, returns = len(rewards), []
    for t in range(horizon):
        longest = horizon - t
        weights = [(1 - lambda_) * lambda_ ** (n - 1) for n in range(1, longest)] + [
            lambda_ ** (longest - 1)
        ]
        parts = [
            n_step_return(rewards, ends, values, t, n, discount) for n in range(1, longest + 1)
        ]
        returns.append(sum(w * p for w, p in zip(weights, parts, strict=True)))
    return returns


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, float, float]:
    batch, horizon, seed = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 18)),
        draw(st.integers(0, 2**31)),
    )
    g = torch.Generator().manual_seed(seed)
    rewards = torch.randn(batch, horizon, generator=g, dtype=torch.float64)
    values = 5 * torch.randn(batch, horizon + 1, generator=g, dtype=torch.float64)
    ends = torch.rand(batch, horizon, generator=g) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    return rewards, ends, values, draw(st.floats(0, 1)), draw(st.floats(0, 1))


@settings(max_examples=100, deadline=None)
@given(rollouts())
def test_lambda_returns(rollout) -> None:
    rewards, ends, values, discount, lambda_ = rollout
    returns = lambda_returns(rewards, ends, values, discount, lambda_)
    rows = zip(rewards.tolist(), ends.tolist(), values.tolist(), strict=True)
    expected = torch.tensor([mixture(*row, discount, lambda_) for row in rows], dtype=torch.float64)
    # 1 − end and γ are float32 inside.
    torch.testing.assert_close(returns, expected, rtol=1e-5, atol=1e-5)

    done = ends.unsqueeze(-1)
    torchrl = td_lambda_return_estimate(
        discount,
        lambda_,
        values[:, 1:].unsqueeze(-1),
        rewards.unsqueeze(-1),
        done=done,
        terminated=done,
    )
    torch.testing.assert_close(returns, torchrl.squeeze(-1).double(), rtol=1e-5, atol=1e-5)


def test_lambda_returns_by_hand() -> None:
    rewards, ends = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[False, True, False]])
    values = torch.tensor([[9.0, 10.0, 20.0, 30.0]])
    # 1 + 0.5 (0.75 · 10 + 0.25 · 2), 2 and nothing after the end, 3 + 0.5 · 30
    torch.testing.assert_close(
        lambda_returns(rewards, ends, values, 0.5, 0.25), torch.tensor([[5.0, 2.0, 18.0]])
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_until_first_end(ends: list[bool]) -> None:
    expected = [not any(ends[:t]) for t in range(len(ends))]
    assert until_first_end(torch.tensor([ends]))[0].tolist() == expected


BATCH, HORIZON = 5, 4
CONFIG = ActorCriticConfig(
    burn_in=3, horizon=HORIZON, discount=0.9, lambda_=0.8, entropy_weight=0.07
)


def make_policy(value: str = "two_hot") -> CnnLstmPolicy:
    config = small_config().policy
    config.value = value
    return CnnLstmPolicy(config, SPACES.frame_shape, SPACES.actions)


def make_rollout(value_size: int) -> tuple[PolicyOutput, Tensor, Trajectory]:
    """Row b first ends at step b; some go on with a second end behind the first."""
    g = torch.Generator().manual_seed(0)
    ends = torch.eye(BATCH, HORIZON, dtype=torch.bool)
    ends[0, 2] = ends[1, 3] = True
    trajectory = Trajectory(
        observations=torch.zeros(BATCH, HORIZON + 1, 3, 1, 1, dtype=torch.uint8),
        actions=torch.randint(ACTIONS, (BATCH, HORIZON, 2), generator=g),
        tokens=torch.zeros(BATCH, HORIZON, 4, dtype=torch.int64),
        rewards=torch.randn(BATCH, HORIZON, generator=g),
        ends=ends,
        batch_size=[BATCH],
    )
    action_logits = torch.randn(BATCH, HORIZON, 2, ACTIONS, generator=g).requires_grad_()
    value = torch.randn(BATCH, HORIZON, value_size, generator=g).requires_grad_()
    return (
        PolicyOutput(action_logits, value),
        3 * torch.randn(BATCH, HORIZON + 1, generator=g),
        trajectory,
    )


@pytest.mark.parametrize(("value", "size"), [("two_hot", 255), ("scalar", 1)])
def test_the_losses_against_a_loop(value: str, size: int) -> None:
    output, values, trajectory = make_rollout(size)
    actor, critic, entropies, returns, rewards = [], [], [], [], []
    for b in range(BATCH):
        row = [x[b].tolist() for x in (trajectory.rewards, trajectory.ends, values)]
        lambda_return = mixture(*row, CONFIG.discount, CONFIG.lambda_)
        for t in range(HORIZON):
            if any(row[1][:t]):
                break
            log_p = output.action_logits[b, t].detach().double().log_softmax(-1)
            chosen = sum(
                log_p[factor, choice].item()
                for factor, choice in enumerate(trajectory.actions[b, t])
            )
            actor.append(-chosen * (lambda_return[t] - values[b, t].item()))
            entropies.append(-(log_p.exp() * log_p).sum().item())
            code = output.value[b, t].detach().double()
            if value == "scalar":
                critic.append((code.item() - lambda_return[t]) ** 2)
            else:
                place = (
                    symlog(torch.tensor(lambda_return[t], dtype=torch.float64)).item() + 20
                ) / (40 / 254)
                low, log_p = int(place), code.log_softmax(-1)
                critic.append(
                    -((low + 1 - place) * log_p[low] + (place - low) * log_p[low + 1]).item()
                )
            returns.append(lambda_return[t])
            rewards.append(row[0][t])
    mean = lambda terms: sum(terms) / len(terms)
    expected = {
        "actor": mean(actor),
        "critic": mean(critic),
        "entropy_bonus": -0.07 * mean(entropies),
    }
    expected |= {
        "loss": sum(expected.values()),
        "entropy": mean(entropies),
        "imagined_return": mean(returns),
    }
    expected |= {"imagined_reward": mean(rewards), "imagined_end_rate": 4 / 5}
    assert len(actor) == 1 + 2 + 3 + 4 + 4
    losses = actor_critic_loss(make_policy(value), output, values, trajectory, CONFIG)
    assert {name: x.item() for name, x in losses.items()} == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_centered_advantages(scale: float) -> None:
    """Mean 0 and a size of at most 1; what lies behind an end does not count."""
    g = torch.Generator().manual_seed(0)
    advantages = scale * (3 + torch.randn(50, 4, generator=g))
    mask = torch.rand(50, 4, generator=g) < 0.7
    ours = centered(torch.where(mask, advantages, 1e9), mask)[mask].double()
    expected = advantages[mask].double() - advantages[mask].double().mean()
    expected /= max(1, expected.std(correction=0).item())
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_the_actor_sees_them_where_it_shall() -> None:
    output, values, trajectory = make_rollout(255)
    losses = [
        actor_critic_loss(make_policy(), output, values, trajectory, CONFIG, scale=scale)
        for scale in (None, centered)
    ]
    assert losses[0]["actor"] != losses[1]["actor"]
    assert all(
        torch.equal(losses[0][name], losses[1][name])
        for name in losses[0]
        if name not in ("actor", "loss")
    )


def gradients(
    output: PolicyOutput, values: Tensor, trajectory: Trajectory
) -> tuple[Tensor, Tensor]:
    loss = actor_critic_loss(make_policy(), output, values, trajectory, CONFIG)["loss"]
    return torch.autograd.grad(loss, list(output))


def test_what_comes_after_the_first_end_has_no_influence() -> None:
    output, values, trajectory = make_rollout(255)
    mask = until_first_end(trajectory.ends)
    before = gradients(output, values, trajectory)
    for gradient in before:
        assert not gradient[~mask].any() and gradient[mask].any(dim=-1).all()
    behind = torch.cat(
        [torch.zeros(BATCH, 1, dtype=torch.bool), trajectory.ends.cumsum(dim=1) > 0], dim=1
    )
    values = torch.where(behind, 1e6, values)
    trajectory.rewards[~mask] = -1e6
    trajectory.actions[~mask] = 0
    trajectory.ends[~mask] = ~trajectory.ends[~mask]
    with torch.no_grad():
        for x in output:
            x[~mask] = 50.0
    for a, b in zip(before, gradients(output, values, trajectory), strict=True):
        assert torch.equal(a, b)


def test_the_entropy_bonus_rewards_entropy() -> None:
    output, values, trajectory = make_rollout(255)
    bonus = actor_critic_loss(make_policy(), output, values, trajectory, CONFIG)["entropy_bonus"]
    (gradient,) = torch.autograd.grad(bonus, [output.action_logits])
    with torch.no_grad():
        output.action_logits.sub_(gradient)
    assert (
        actor_critic_loss(make_policy(), output, values, trajectory, CONFIG)["entropy_bonus"]
        < bonus
    )


def test_its_weight_halves(agent: Agent) -> None:
    """Every so many updates, by the agent's own count; without a half-life there is none."""
    output, values, trajectory = make_rollout(255)
    weights = [faded(CONFIG.entropy_weight, torch.tensor(updates), 3) for updates in (0, 3, 6)]
    bonuses = [
        actor_critic_loss(make_policy(), output, values, trajectory, CONFIG, weight)[
            "entropy_bonus"
        ]
        for weight in weights
    ]
    torch.testing.assert_close(
        bonuses[0],
        actor_critic_loss(make_policy(), output, values, trajectory, CONFIG)["entropy_bonus"],
    )
    torch.testing.assert_close(torch.stack(bonuses) / bonuses[0], torch.tensor([1.0, 0.5, 0.25]))

    assert "policy_updates" not in agent.state_dict()
    halving = copy.deepcopy(agent.config)
    halving.actor_critic.entropy_half_life = 1
    agent, run = (
        Agent(halving, agent.spaces),
        TrainConfig(agent=halving, policy=PartConfig(batch=4, learning_rate=0.0)),
    )
    learner = make_learner(agent, run, "policy")
    learned = [learner.update(random_segment(4, 3)) for _ in range(3)]
    weights = [-losses["entropy_bonus"] / losses["entropy"] for losses in learned]
    torch.testing.assert_close(
        torch.stack(weights), halving.actor_critic.entropy_weight * torch.tensor([1.0, 0.5, 0.25])
    )


def touched(agent: Agent) -> set[str]:
    """The networks, and heads of the policy, in which a gradient arrived."""
    names = {name for name, p in agent.named_parameters() if p.grad is not None and p.grad.any()}
    return {name.split(".")[0] + (".critic" if ".critic." in name else "") for name in names}


def test_gradients_reach_the_policy_alone(agent: Agent) -> None:
    agent.eval().target_policy.requires_grad_(True)  # even so
    for policy in (agent.policy, agent.target_policy):
        torch.nn.init.normal_(policy.critic.weight)
    segment = random_segment(4, 3)
    agent.policy_loss(segment)["loss"].backward()
    assert touched(agent) == {"policy", "policy.critic"}
    # The advantage is a number to the actor: its loss moves no critic.
    agent.zero_grad()
    agent.policy_loss(segment)["actor"].backward()
    assert touched(agent) == {"policy"}


def test_returns_and_baseline_come_from_the_target(agent: Agent) -> None:
    segment, losses = random_segment(4, 3), []
    for _ in range(2):
        torch.manual_seed(0)
        losses.append(agent.eval().policy_loss(segment))
        torch.nn.init.normal_(agent.policy.critic.weight)  # the online critic moves neither
    assert (
        losses[0]["imagined_return"] == losses[1]["imagined_return"]
        and losses[0]["actor"] == losses[1]["actor"]
    )
    assert losses[0]["critic"] != losses[1]["critic"]
    torch.nn.init.normal_(agent.target_policy.critic.weight)
    torch.manual_seed(0)
    after = agent.policy_loss(segment)
    assert (
        after["imagined_return"] != losses[0]["imagined_return"]
        and after["actor"] != losses[0]["actor"]
    )


def test_the_burn_in_carries_no_gradient_but_is_remembered(agent: Agent) -> None:
    """The loss starts from a constant state, which the past frames decide."""
    segment, other = random_segment(4, 3), random_segment(4, 3)
    other.frames[:, 0] = 255 - other.frames[:, 0]
    losses = []
    for s in (segment, other):
        torch.manual_seed(0)
        losses.append(agent.eval().policy_loss(s)["entropy"])
    assert losses[0] != losses[1]
    seen = []
    agent.policy.encoder.register_forward_hook(
        lambda module, inputs, output: seen.append(output.requires_grad)
    )
    agent.policy_loss(segment)
    assert seen == [False] * (1 + 5) + [
        True
    ]  # burn-in, five imagined steps, then all of them at once


def test_a_burn_in_of_one_frame(agent: Agent) -> None:
    config = ActorCriticConfig(burn_in=1, horizon=3)
    losses = policy_loss(
        agent.policy, agent.target_policy, agent.eval().world, random_segment(4, 2)[:, :1], config
    )
    assert all(x.isfinite() for x in losses.values())


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_update_target(decay: float) -> None:
    policy, target = make_policy(), make_policy()
    start, theirs = copy.deepcopy(target.state_dict()), copy.deepcopy(policy.state_dict())
    update_target(target, policy, decay)
    for name, value in target.state_dict().items():
        torch.testing.assert_close(value, decay * start[name] + (1 - decay) * theirs[name])
    assert all(torch.equal(value, theirs[name]) for name, value in policy.state_dict().items())
