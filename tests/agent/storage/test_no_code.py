"""Nothing in a run's folder runs code; what is not ours is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from agent.runs.load import load_agent
from agent.runs.resume import load_run
from agent.storage import checkpoint
from envs.errors import BadInput

STATES: dict[str, Callable[[dict], object]] = {
    "no configuration": lambda state: state.pop("config"),
    "an interpolation": lambda state: state["config"].update(experiment="${oc.env:HOME}"),
    "an unknown key": lambda state: state["config"].update(more=1),
    "a wrong type": lambda state: state["config"].update(agent=[]),
    "no spaces": lambda state: state.pop("spaces"),
    "other frames": lambda state: state["spaces"].update(size=64),
    "a module": lambda state: state["config"]["env"].update(id="antigravity:Env-v0"),
}


@pytest.mark.parametrize("change", STATES.values(), ids=STATES)
def test_a_state_of_another_version(trained: Path, tmp_path: Path, change: Callable):
    saved = checkpoint.load(trained)
    change(saved.state)
    run = tmp_path / "run"
    checkpoint.save(run, 1, saved.tensors, saved.state, keep=1)
    with pytest.raises(BadInput) as refused:
        load_agent(run, torch.device("cpu"))
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)


def test_a_replay_of_another_size(trained: Path):
    with pytest.raises(BadInput, match=r"replay\.capacity"):
        load_run(str(trained), ["epochs=9", "replay.capacity=77"])
