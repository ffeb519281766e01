"""What the three parts see and cost."""

from __future__ import annotations

import torch

from agent.agent import Agent
from agent.config import TrainConfig
from agent.training.components import PARTS, make_learner, sample_spec, time_update, total_updates
from envs.spaces import Spaces
from tests.tiny import tiny


def test_windows() -> None:
    c = TrainConfig()
    assert sample_spec(c, "tokenizer") == sample_spec(c, "dynamics") == (32, 21, "around")
    assert sample_spec(c, "policy") == (86, 5, "before")


def test_updates_of_a_whole_run() -> None:
    c = TrainConfig()
    assert [total_updates(c, part) for part in PARTS] == [
        5000 + 999 * 500,
        2500 + 999 * 500,
        500_000,
    ]


def test_timing_leaves_no_trace() -> None:
    config = tiny()
    torch.manual_seed(0)
    agent = Agent(config.agent, Spaces(3, 32, (3,))).eval()
    before, random = {k: v.clone() for k, v in agent.state_dict().items()}, torch.get_rng_state()
    for part in PARTS:
        learner = make_learner(agent, config, part)
        assert time_update(agent, config, part, learner) > 0
        assert all(torch.equal(v, before[k]) for k, v in agent.state_dict().items())
        assert torch.equal(torch.get_rng_state(), random)
        assert not any(value.any() for value in learner.state_dict().values())
