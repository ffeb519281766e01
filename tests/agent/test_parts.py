"""What the three parts see and cost."""

from __future__ import annotations

import pytest
import torch

from agent.agent import Agent
from agent.config import TrainConfig
from agent.cost import Recorder
from agent.parts import PARTS, count_flop, make_learner, noise, time_update, total_updates, window
from tests.tiny import tiny

# Floors of the arithmetic of an update (TFLOP) and what may be added to them: the policy's separate learning pass
# encodes each imagined frame once more.
FLOORS = {"tokenizer": (9.85, 1.03), "dynamics": (2.08, 1.03), "policy": (8.64, 1.08)}
# What the published code launches, counted alike.
PUBLISHED_LAUNCHES = {"tokenizer": 1831, "dynamics": 1443, "policy": 13854}
# Ours, eager, in float32: the table of docs/performance.md.
LAUNCHES = {"tokenizer": 426, "dynamics": 376, "policy": 6915}


def test_windows() -> None:
    c = TrainConfig()
    assert window(c, "tokenizer") == window(c, "dynamics") == (32, 21, "around")
    assert window(c, "policy") == (86, 5, "before")


def test_updates_of_a_whole_run() -> None:
    c = TrainConfig()
    assert [total_updates(c, part) for part in PARTS] == [5000 + 999 * 500, 2500 + 999 * 500, 500_000]


def test_the_published_configuration_computes_nothing_twice() -> None:
    c = TrainConfig()
    with torch.device("meta"):
        sketch = Agent(c.agent, 17, 64)
    for part, flop in count_flop(sketch, c).items():
        floor, factor = FLOORS[part]
        assert 0.99 * floor < flop / 1e12 < factor * floor, part


@pytest.mark.parametrize("part", PARTS)
def test_launches(part: str) -> None:
    """Not more than half of what the published code launches. The count does not depend on the batch."""
    c = TrainConfig()
    c.tokenizer.batch = c.dynamics.batch = c.policy.batch = 1
    c.tokenizer.steps = c.dynamics.steps = 3
    agent = Agent(c.agent, 17, 64).eval()
    learner, segment = make_learner(agent, c, part), noise(agent, c, part)
    learner.update(segment)
    with Recorder() as recorder:
        learner.update(segment)
    assert len(recorder) == pytest.approx(LAUNCHES[part], rel=0.02)  # versions of torch differ a little
    assert len(recorder) <= PUBLISHED_LAUNCHES[part] / 2


def test_timing_leaves_no_trace() -> None:
    config = tiny()
    torch.manual_seed(0)
    agent = Agent(config.agent, 3, 32).eval()
    before, random = {k: v.clone() for k, v in agent.state_dict().items()}, torch.get_rng_state()
    for part in PARTS:
        learner, segment = make_learner(agent, config, part), noise(agent, config, part)
        torch.set_rng_state(random)
        assert time_update(agent, learner, segment) > 0
        assert all(torch.equal(v, before[k]) for k, v in agent.state_dict().items())
        assert torch.equal(torch.get_rng_state(), random)
        assert not any(value.any() for value in learner.state_dict().values())
