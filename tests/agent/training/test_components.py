"""What the three parts see, and what their updates cost."""

from __future__ import annotations

import pytest
import torch

from agent.agent import Agent
from agent.config import PartConfig, TrainConfig
from agent.training.components import PARTS, make_learner, sample_spec, total_updates
from agent.training.costs import cost_of, time_update
from envs.spaces import Spaces
from tests.tiny import tiny


def test_windows() -> None:
    c = TrainConfig()
    assert sample_spec(c, "tokenizer") == sample_spec(c, "dynamics") == (32, 21, "around")
    assert sample_spec(c, "policy") == (86, 5, "before")


def test_updates_and_learning_rates() -> None:
    part = PartConfig(updates=5, first_updates=20, start_epoch=2, first_learning_rate=1.0)
    assert [part.updates_in(epoch) for epoch in range(5)] == [0, 0, 20, 5, 5]
    assert [part.learning_rate_in(epoch) for epoch in range(2, 5)] == [1.0, 1e-4, 1e-4]
    totals = [total_updates(TrainConfig(), part) for part in PARTS]
    assert totals == [5000 + 999 * 500, 2500 + 999 * 500, 500_000]


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


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_is_kept_for_the_backward_pass(device: str) -> None:
    """Each storage once, the parameters aside, and nothing of what has no gradient."""
    layer = torch.nn.Linear(4, 5, device=device)
    x = torch.ones(3, 4, device=device, requires_grad=True)

    def forward() -> None:
        y = layer(x).exp()  # keeps x, and its own result
        y.view(15).square()  # keeps the same result, by another view
        with torch.no_grad():
            layer(x).exp()

    assert cost_of(forward) == (2 * 2 * 3 * 4 * 5, 4 * (12 + 15))
