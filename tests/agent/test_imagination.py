"""What imagination returns, that it is reproducible, and that it obeys."""

from __future__ import annotations

import copy

import pytest
import torch

from agent.agent import Agent
from agent.imagination import Trajectory, act, dream, imagine
from agent.nets.heads import greedy, gumbel_max
from tests.agent.conftest import ACTIONS, SIZE, SPACES, random_segment, small_config

BATCH, HORIZON, K = 6, 5, 4


@pytest.fixture
def agent() -> Agent:
    """In evaluation mode, with weights so large that different actions differ in frames."""
    torch.manual_seed(0)
    agent = Agent(small_config(), SPACES).eval()
    with torch.no_grad():
        for p in (*agent.tokenizer.parameters(), *agent.dynamics.parameters()):
            if p.ndim == 2:
                p.normal_(std=0.3)
        agent.policy.actor.weight.normal_()
    return agent


def rollout(agent: Agent, seed: int = 0, select=gumbel_max) -> Trajectory:
    segment = random_segment(BATCH, 3)
    state = agent.policy.burn_in(segment.frames[:, :-1])
    torch.manual_seed(seed)
    return imagine(agent.world, agent.policy, segment, state, HORIZON, select)


def same(a: Trajectory, b: Trajectory) -> bool:
    return all(map(torch.equal, a.to_dict().values(), b.to_dict().values()))


def test_shapes_and_types(agent: Agent) -> None:
    trajectory = rollout(agent)
    expected = {
        "observations": ((BATCH, HORIZON + 1, 3, SIZE, SIZE), torch.uint8),
        "actions": ((BATCH, HORIZON, 2), torch.int64),
        "tokens": ((BATCH, HORIZON, K), torch.int64),
        "rewards": ((BATCH, HORIZON), torch.float32),
        "ends": ((BATCH, HORIZON), torch.bool),
    }
    assert trajectory.batch_size == (BATCH,)
    assert {name: (x.shape, x.dtype) for name, x in trajectory.to_dict().items()} == expected
    assert trajectory.actions.min() >= 0 and trajectory.actions.max() < ACTIONS
    assert trajectory.tokens.min() >= 0 and trajectory.tokens.max() < 16
    assert torch.equal(trajectory.observations[:, 0], random_segment(BATCH, 3).frames[:, -1])


def test_no_gradient_and_nothing_learned(agent: Agent) -> None:
    before = copy.deepcopy(agent.state_dict())
    assert not any(x.requires_grad for x in rollout(agent).to_dict().values())
    assert all(torch.equal(value, before[name]) for name, value in agent.state_dict().items())


def test_the_same_seed_imagines_the_same(agent: Agent) -> None:
    assert same(rollout(agent, seed=1), rollout(agent, seed=1))
    assert not same(rollout(agent, seed=1), rollout(agent, seed=2))
    assert same(rollout(agent, seed=1, select=greedy), rollout(agent, seed=2, select=greedy))


@pytest.mark.parametrize("t", [0, 2, 3, 6])
def test_a_dream_sees_burn_in_frames_and_no_others(agent: Agent, t: int) -> None:
    segment = random_segment(2, 7)
    dreamt = lambda segment: dream(agent.world, segment, burn_in=3, select=greedy)[0]
    assert dreamt(segment).shape == (2, 4, 3, SIZE, SIZE)
    before, other = dreamt(segment), segment.clone()
    other.frames[:, t] = 255 - other.frames[:, t]
    assert torch.equal(dreamt(other), before) == (t >= 3)
    # The action at t leads to frame t + 1, and frame 3 is the first one dreamt; the last action
    # leads nowhere.
    other = segment.clone()
    other.actions[:, t] = (other.actions[:, t] + 1) % ACTIONS
    changed = (dreamt(other) != before).flatten(2).any(dim=2)
    first = max(t - 2, 0)
    assert not changed[:, :first].any() and changed.any() == (t < 6)
    if 2 <= t < 6:
        assert changed[:, first].all()


def test_a_repeated_body_returns_no_views(agent: Agent) -> None:
    """agent/nets/compiled_once.py says why."""
    state = agent.world.start(random_segment(BATCH, 3))
    imagined, following = agent.world.step(state, torch.zeros(BATCH, 2, dtype=torch.int64))
    start = agent.policy.initial_state(BATCH)
    actions, policy_state = act(agent.policy, state.latent.frames, start, greedy)
    for tensor in (*imagined, *following.latent, actions, policy_state):
        assert tensor.storage_offset() == 0
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.itemsize
