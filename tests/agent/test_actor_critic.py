"""λ-returns, masks and losses against brute force; which gradients flow and which do not."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from agent.actor_critic import actor_critic_loss, lambda_returns, until_first_end, update_target
from agent.advantages import centered, faded
from agent.agent import Agent
from agent.config import ActorCriticConfig, PartConfig, TrainConfig
from agent.imagination import Trajectory
from agent.nets.heads import symlog
from agent.policies.base import PolicyOutput
from agent.policies.lstm import CnnLstmPolicy
from agent.segment import Segment
from agent.training.components import make_learner
from tests.agent.conftest import ACTIONS, POLICIES, SPACES, floats, random_segment, small_config


def mixture(
    rewards: list, ends: list, values: list, discount: float, lambda_: float
) -> list[float]:
    """The λ-return as the weighted mean of all n-step returns (Sutton and Barto, eq. 12.3)."""

    def n_step_return(t: int, n: int) -> float:
        """r_t + γ r_{t+1} + … + γ^n v_{t+n}, cut off behind an end."""
        total = 0.0
        for i in range(n):
            total += discount**i * rewards[t + i]
            if ends[t + i]:
                return total
        return total + discount**n * values[t + n]

    horizon, returns = len(rewards), []
    for t in range(horizon):
        longest = horizon - t
        weights = [(1 - lambda_) * lambda_ ** (n - 1) for n in range(1, longest)]
        weights.append(lambda_ ** (longest - 1))
        returns.append(sum(w * n_step_return(t, n + 1) for n, w in enumerate(weights)))
    return returns


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, float, float]:
    batch, horizon = draw(st.integers(1, 3)), draw(st.integers(1, 18))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    rewards = torch.randn(batch, horizon, generator=g, dtype=torch.float64)
    values = 5 * torch.randn(batch, horizon + 1, generator=g, dtype=torch.float64)
    ends = torch.rand(batch, horizon, generator=g) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    return rewards, ends, values, draw(st.floats(0, 1)), draw(st.floats(0, 1))


@settings(max_examples=50, deadline=None)
@given(rollouts())
def test_lambda_returns(rollout) -> None:
    rewards, ends, values, discount, lambda_ = rollout
    returns = lambda_returns(rewards, ends, values, discount, lambda_)
    rows = zip(rewards.tolist(), ends.tolist(), values.tolist())
    expected = torch.tensor([mixture(*row, discount, lambda_) for row in rows], dtype=torch.float64)
    # 1 − end and γ are float32 inside.
    torch.testing.assert_close(returns, expected, rtol=1e-5, atol=1e-5)


def test_until_first_end() -> None:
    for ends in product((False, True), repeat=4):
        expected = [not any(ends[:t]) for t in range(4)]
        assert until_first_end(torch.tensor([ends]))[0].tolist() == expected


BATCH, HORIZON = 5, 4
CONFIG = ActorCriticConfig(
    burn_in=3, horizon=HORIZON, discount=0.9, lambda_=0.8, entropy_weight=0.07
)


def make_policy(value: str = "two_hot") -> CnnLstmPolicy:
    config = replace(POLICIES["cnn_lstm"], value=value)
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
    target_values = 3 * torch.randn(BATCH, HORIZON + 1, generator=g)
    return PolicyOutput(action_logits, value), target_values, trajectory


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
            choices = enumerate(trajectory.actions[b, t])
            chosen = sum(log_p[factor, choice].item() for factor, choice in choices)
            actor.append(-chosen * (lambda_return[t] - values[b, t].item()))
            entropies.append(-(log_p.exp() * log_p).sum().item())
            code = output.value[b, t].detach().double()
            if value == "scalar":
                critic.append((code.item() - lambda_return[t]) ** 2)
            else:
                y = symlog(torch.tensor(lambda_return[t], dtype=torch.float64)).item()
                place = (y + 20) / (40 / 254)
                low, share, log_p = int(place), place - int(place), code.log_softmax(-1)
                critic.append(-((1 - share) * log_p[low] + share * log_p[low + 1]).item())
            returns.append(lambda_return[t])
            rewards.append(row[0][t])
    mean = lambda terms: sum(terms) / len(terms)
    losses = {
        "actor": mean(actor),
        "critic": mean(critic),
        "entropy_bonus": -0.07 * mean(entropies),
    }
    expected = losses | {
        "loss": sum(losses.values()),
        "entropy": mean(entropies),
        "imagined_return": mean(returns),
        "imagined_reward": mean(rewards),
        "imagined_end_rate": 4 / 5,
    }
    assert len(actor) == 1 + 2 + 3 + 4 + 4
    ours = floats(actor_critic_loss(make_policy(value), output, values, trajectory, CONFIG))
    assert ours == pytest.approx(expected, rel=1e-4)


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


def loss_of(output: PolicyOutput, values: Tensor, trajectory: Trajectory, **options) -> dict:
    return actor_critic_loss(make_policy(), output, values, trajectory, CONFIG, **options)


def test_only_the_actor_sees_scaled_advantages() -> None:
    rollout = make_rollout(255)
    plain, scaled = loss_of(*rollout), loss_of(*rollout, scale=centered)
    assert {name for name in plain if plain[name] != scaled[name]} == {"actor", "loss"}


def gradients(
    output: PolicyOutput, values: Tensor, trajectory: Trajectory
) -> tuple[Tensor, Tensor]:
    return torch.autograd.grad(loss_of(output, values, trajectory)["loss"], list(output))


def test_what_comes_after_the_first_end_has_no_influence() -> None:
    output, values, trajectory = make_rollout(255)
    mask = until_first_end(trajectory.ends)
    before = gradients(output, values, trajectory)
    for gradient in before:
        assert not gradient[~mask].any() and gradient[mask].any(dim=-1).all()
    behind = torch.nn.functional.pad(trajectory.ends.cumsum(dim=1) > 0, (1, 0))
    values = torch.where(behind, 1e6, values)
    trajectory.rewards[~mask] = -1e6
    trajectory.actions[~mask] = 0
    trajectory.ends[~mask] = ~trajectory.ends[~mask]
    with torch.no_grad():
        for x in output:
            x[~mask] = 50.0
    assert all(map(torch.equal, before, gradients(output, values, trajectory)))


def test_its_weight_halves(agent: Agent) -> None:
    """Every so many updates, by the agent's own count; without a half-life there is none."""
    weights = [faded(0.07, torch.tensor(updates), 3).item() for updates in (0, 3, 6)]
    assert weights == pytest.approx([0.07, 0.035, 0.0175])
    assert "policy_updates" not in agent.state_dict()
    config = small_config()
    config.actor_critic.entropy_half_life = 1
    run = TrainConfig(agent=config, policy=PartConfig(batch=4, learning_rate=0.0))
    learner = make_learner(Agent(config, SPACES), run, "policy")
    learned = [floats(learner.update(random_segment(4, 3))) for _ in range(3)]
    weights = [-losses["entropy_bonus"] / losses["entropy"] for losses in learned]
    first = config.actor_critic.entropy_weight
    assert weights == pytest.approx([first, first / 2, first / 4])


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


def seeded_loss(agent: Agent, segment: Segment) -> dict[str, float]:
    torch.manual_seed(0)
    return floats(agent.eval().policy_loss(segment))


def test_returns_and_baseline_come_from_the_target(agent: Agent) -> None:
    segment = random_segment(4, 3)
    before = seeded_loss(agent, segment)
    torch.nn.init.normal_(agent.policy.critic.weight)  # the online critic moves neither
    after = seeded_loss(agent, segment)
    assert after["imagined_return"] == before["imagined_return"]
    assert after["actor"] == before["actor"] and after["critic"] != before["critic"]
    torch.nn.init.normal_(agent.target_policy.critic.weight)
    after = seeded_loss(agent, segment)
    assert after["imagined_return"] != before["imagined_return"]
    assert after["actor"] != before["actor"]


def test_the_burn_in_carries_no_gradient_but_is_remembered(agent: Agent) -> None:
    """The loss starts from a constant state, which the past frames decide."""
    segment, other = random_segment(4, 3), random_segment(4, 3)
    other.frames[:, 0] = 255 - other.frames[:, 0]
    assert seeded_loss(agent, segment)["entropy"] != seeded_loss(agent, other)["entropy"]
    seen = []
    agent.policy.encoder.register_forward_hook(lambda *args: seen.append(args[2].requires_grad))
    agent.policy_loss(segment)
    # Burn-in, five imagined steps, then all of them at once.
    assert seen == [False] * (1 + 5) + [True]


def test_a_burn_in_of_one_frame(agent: Agent) -> None:
    config = ActorCriticConfig(burn_in=1, horizon=3)
    agent.config.actor_critic = config
    losses = agent.eval().policy_loss(random_segment(4, 2)[:, :1])
    assert all(x.isfinite() for x in losses.values())


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_update_target(decay: float) -> None:
    policy, target = make_policy(), make_policy()
    start, theirs = copy.deepcopy(target.state_dict()), copy.deepcopy(policy.state_dict())
    update_target(target, policy, decay)
    for name, value in target.state_dict().items():
        torch.testing.assert_close(value, decay * start[name] + (1 - decay) * theirs[name])
    assert all(torch.equal(value, theirs[name]) for name, value in policy.state_dict().items())
