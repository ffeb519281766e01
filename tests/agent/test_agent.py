"""The networks together: acting, counting, and configs that do not fit."""

from __future__ import annotations

import pytest
import torch

from agent.agent import Agent
from agent.nets.heads import greedy
from tests.agent.conftest import SPACES, random_segment, small_config


def test_acting_step_by_step_remembers(agent: Agent) -> None:
    frames = random_segment(3, 6).frames
    torch.nn.init.normal_(agent.policy.actor.weight, std=5)
    start = agent.policy.initial_state(3)
    output, after = agent.policy(frames, start)
    state, actions = start, []
    for t in range(6):
        action, state = agent.act(frames[:, t], state, greedy)
        actions.append(action)
    assert torch.equal(torch.stack(actions, dim=1), output.action_logits.argmax(dim=-1))
    torch.testing.assert_close(state, after)
    assert not state.requires_grad and action.dtype == torch.int64
    # The state is a value: the one given is left as it was.
    assert not start.any()


def test_acting_samples_unless_told_otherwise(agent: Agent) -> None:
    frames, state = (
        random_segment(1, 2).frames[:, 0].expand(200, -1, -1, -1),
        agent.policy.initial_state(200),
    )
    torch.manual_seed(0)
    assert len(agent.act(frames, state)[0].unique(dim=0)) > 1
    assert len(agent.act(frames, state, greedy)[0].unique(dim=0)) == 1


def test_the_target_starts_as_a_copy_that_is_not_trained(agent: Agent) -> None:
    pairs = list(zip(agent.policy.parameters(), agent.target_policy.parameters(), strict=True))
    for p, target in pairs:
        assert torch.equal(p, target) and p.requires_grad and not target.requires_grad
        assert p.data_ptr() != target.data_ptr()


def test_the_losses_are_those_of_the_parts(agent: Agent) -> None:
    agent.eval()
    segment = random_segment(3, 6)
    assert agent.tokenizer_loss(segment) == agent.tokenizer.loss(segment)
    frames, actions = segment.frames, segment.actions
    tokens = [
        agent.tokenizer.encode(frames[:, t], actions[:, t], frames[:, t + 1]) for t in range(5)
    ]
    torch.testing.assert_close(
        agent.dynamics_loss(segment), agent.dynamics.loss(segment, torch.stack(tokens, dim=1))
    )


def test_num_parameters(agent: Agent) -> None:
    counts = agent.num_parameters()
    assert set(counts) == {"tokenizer", "dynamics", "policy"}
    assert sum(counts.values()) == sum(p.numel() for p in agent.parameters())
    assert counts["policy"] == 2 * sum(p.numel() for p in agent.policy.parameters())


def test_device(agent: Agent) -> None:
    assert agent.device == torch.device("cpu")
    with torch.device("meta"):
        assert Agent(small_config(), SPACES).device == torch.device("meta")


@pytest.mark.parametrize(("burn_in", "horizon"), [(1, 8), (3, 6), (8, 1)])
def test_burn_in_and_horizon_may_fill_the_context(burn_in: int, horizon: int) -> None:
    """To the last position and not beyond it: nothing is forgotten on the way."""
    config = small_config()
    config.actor_critic.burn_in, config.actor_critic.horizon = burn_in, horizon
    agent = Agent(config, SPACES).eval()
    state = agent.world.start(random_segment(2, 9)[:, :burn_in])
    positions = []
    for _ in range(horizon):
        _, state = agent.world.step(state, torch.zeros(2, 2, dtype=torch.int64))
        positions.append(state.position)
    assert (
        positions == sorted(positions) and positions[-1] == 8 * 6 - 1
    )  # the last Δ-token is pending


@pytest.mark.parametrize(
    ("burn_in", "horizon", "message"),
    [(4, 6, "burn_in=4 and horizon=6 need a context of 9 steps and agent.dynamics.context is 8")],
)
def test_configs_that_do_not_fit(burn_in: int, horizon: int, message: str) -> None:
    config = small_config()
    config.actor_critic.burn_in, config.actor_critic.horizon = burn_in, horizon
    with pytest.raises(ValueError, match=message):
        Agent(config, SPACES)
