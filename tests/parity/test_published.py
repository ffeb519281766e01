"""The table of names is complete: every published tensor and shape, nothing left over."""

from __future__ import annotations

import pytest
import torch

from agent.agent import Agent
from agent.config import AgentConfig
from agent.training.components import sample_spec
from envs.spaces import Spaces
from tests.parity.published import STRUCTURE, described, our_config, our_state_dict
from tests.tiny import experiment

CRAFTER, ATARI = "official_crafter_checkpoint", "official_atari_checkpoint"


def layout_of(name: str) -> dict[str, torch.Tensor]:
    """The published state dict, without values."""
    return {
        k: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for k, (shape, dtype) in described(name)["state_dict"].items()
    }


def sketch(name: str) -> Agent:
    description = described(name)
    size = description["params"]["tokenizer"]["image_size"]
    with torch.device("meta"):
        spaces = Spaces(3, size, (description["num_actions"],))
        return Agent(our_config(description["params"]), spaces)


@pytest.mark.parametrize("name", ["tiny", CRAFTER, ATARI])
def test_every_tensor_has_its_counterpart(name):
    layout, agent = layout_of(name), sketch(name)
    converted, ours = our_state_dict(layout), agent.state_dict()
    kinds = lambda tensors: {k: (v.shape, v.dtype) for k, v in tensors.items()}
    assert kinds(converted) == kinds(ours)
    # Nothing but structure is dropped: what goes in comes out, element for element.
    weights = sum(v.numel() for k, v in layout.items() if not STRUCTURE.fullmatch(k))
    assert weights == sum(v.numel() for v in converted.values())
    agent.load_state_dict(converted, assign=True)


def test_an_unknown_tensor_is_not_swallowed():
    layout = layout_of("tiny") | {"world_model.something_else.weight": torch.empty(3)}
    with pytest.raises(RuntimeError, match="something_else"):
        sketch("tiny").load_state_dict(our_state_dict(layout))


def test_parameter_counts_of_the_paper():
    counts = {part: round(n / 1e6, 2) for part, n in sketch(CRAFTER).num_parameters().items()}
    assert counts == {"tokenizer": 5.41, "dynamics": 11.95, "policy": 7.49}


def test_our_defaults_are_the_published_crafter_configuration():
    assert our_config(described(CRAFTER)["params"]) == AgentConfig()


def test_experiment_atari100k_is_the_published_atari_configuration():
    c = experiment("atari100k", "env.game=Pong")
    assert c.agent == our_config(described(ATARI)["params"])
    assert c.collect.first_steps + (c.collect.epochs - 1) * c.collect.steps == 100_000
    keys = ("start_epoch", "first_updates", "updates", "weight_decay", "batch")
    loop = [
        tuple(getattr(part, key) for key in keys) for part in (c.tokenizer, c.dynamics, c.policy)
    ]
    assert loop == [(5, 400, 200, 0.0, 16), (50, 120, 120, 0.01, 64), (75, 200, 200, 0.0, 64)]
    steps = [sample_spec(c, part).steps for part in ("tokenizer", "dynamics")]
    assert (*steps, c.epochs, c.replay.alpha) == (21, 26, 600, 1.0)
