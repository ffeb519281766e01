"""The table of names is complete: every published tensor and shape, nothing left over."""

from __future__ import annotations

import json

import pytest
import torch

from agent.agent import Agent
from agent.config import AgentConfig
from agent.training.components import sample_spec
from envs.spaces import Spaces
from tests.parity.conftest import DATA
from tests.parity.published import STRUCTURE, our_config, our_state_dict
from tests.tiny import experiment

CONFIGURATIONS = ["tiny", "official_crafter_checkpoint", "official_atari_checkpoint"]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_tensor_has_its_counterpart(name):
    description = json.loads((DATA / f"{name}.json").read_text())
    with torch.device("meta"):
        layout = {
            k: torch.empty(s, dtype=getattr(torch, d))
            for k, (s, d) in description["state_dict"].items()
        }
        agent = Agent(
            our_config(description["params"]),
            Spaces(
                3, description["params"]["tokenizer"]["image_size"], (description["num_actions"],)
            ),
        )
        converted = our_state_dict(layout)
    ours = agent.state_dict()
    assert set(converted) == set(ours)
    assert {k: (v.shape, v.dtype) for k, v in converted.items()} == {
        k: (v.shape, v.dtype) for k, v in ours.items()
    }
    # Nothing but structure is dropped: what goes in comes out, element for element.
    structure = sum(v.numel() for k, v in layout.items() if STRUCTURE.fullmatch(k))
    assert sum(v.numel() for v in layout.values()) - structure == sum(
        v.numel() for v in converted.values()
    )
    agent.load_state_dict(converted, assign=True)


def test_parameter_counts_of_the_paper():
    description = json.loads((DATA / "official_crafter_checkpoint.json").read_text())
    with torch.device("meta"):
        counts = Agent(our_config(description["params"]), Spaces(3, 64, (17,))).num_parameters()
    assert {k: round(v / 1e6, 2) for k, v in counts.items()} == {
        "tokenizer": 5.41,
        "dynamics": 11.95,
        "policy": 7.49,
    }


def test_our_defaults_are_the_published_crafter_configuration():
    description = json.loads((DATA / "official_crafter_checkpoint.json").read_text())
    assert our_config(description["params"]) == AgentConfig()


def test_experiment_atari100k_is_the_published_atari_configuration():
    description = json.loads((DATA / "official_atari_checkpoint.json").read_text())
    config = experiment("atari100k", "env.game=Pong")
    assert config.agent == our_config(description["params"])
    assert (
        config.collect.first_steps + (config.collect.epochs - 1) * config.collect.steps == 100_000
    )
    loop = {part: getattr(config, part) for part in ("tokenizer", "dynamics", "policy")}
    assert {
        part: (c.start_epoch, c.first_updates, c.updates, c.weight_decay)
        for part, c in loop.items()
    } == {
        "tokenizer": (5, 400, 200, 0.0),
        "dynamics": (50, 120, 120, 0.01),
        "policy": (75, 200, 200, 0.0),
    }
    assert {part: c.batch for part, c in loop.items()} == {
        "tokenizer": 16,
        "dynamics": 64,
        "policy": 64,
    }
    steps = [sample_spec(config, part).steps for part in ("tokenizer", "dynamics")]
    assert (*steps, config.epochs, config.replay.alpha) == (21, 26, 600, 1.0)


def test_an_unknown_tensor_is_not_swallowed():
    description = json.loads((DATA / "tiny.json").read_text())
    layout = {
        k: torch.empty(s, dtype=getattr(torch, d))
        for k, (s, d) in description["state_dict"].items()
    }
    layout["world_model.something_else.weight"] = torch.empty(3)
    agent = Agent(our_config(description["params"]), Spaces(3, 16, (description["num_actions"],)))
    with pytest.raises(RuntimeError, match="something_else"):
        agent.load_state_dict(our_state_dict(layout))
