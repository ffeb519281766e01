"""IRIS and DART as commands: what tests/scripts/ does with Δ-IRIS, in short."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts.commands import here
from tests.tiny import OF_AGENT


@pytest.mark.parametrize("agent", ["iris", "dart"])
def test_train_evaluate_and_play(agent: str, tmp_path: Path) -> None:
    film = ("by=agent", "steps=5", "where=both", "video=both.mp4")
    for command in (
        ("train", *OF_AGENT[agent], "epochs=2", "run=run"),
        ("evaluate", "run=run", "episodes=3", "output=evaluation.json"),
        ("play", "run=run", *film),
    ):
        result = here(*command, cwd=tmp_path)
        assert result.code == 0, result.err
    assert {"evaluation.json", "both.mp4"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("agent", "env"),
    [
        ("iris", ["experiment=crafter_quick"]),
        ("dart", ["experiment=atari_quick"]),
        ("dart", ["env=gym", "env.id=CartPole-v1", "env.pixels=render"]),
    ],
)
def test_its_first_updates_elsewhere(agent: str, env: list[str], tmp_path: Path) -> None:
    parts = ("tokenizer", "dynamics", "policy")
    few = [f"{part}.{key}=1" for part in parts for key in ("updates", "first_updates")]
    result = here(
        "train", *env, f"agent={agent}", *few, "epochs=2", "collect.first_steps=200", "collect.steps=20", "policy.start_epoch=1",
        "evaluation.episodes=1", "evaluation.max_steps=50", "evaluate_every=9", *(f"{part}.batch=2" for part in parts), "run=run", cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 0, result.err
