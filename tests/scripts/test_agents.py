"""IRIS and DART as commands: what tests/scripts/ does with Δ-IRIS, in short."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts.commands import evaluate, play, run_command, train
from tests.tiny import OF_AGENT

NEW = ("iris", "dart")


@pytest.fixture(scope="module", params=NEW)
def whole(request, tmp_path_factory) -> tuple[str, Path]:
    """An agent's name, and its run of three epochs."""
    place = tmp_path_factory.mktemp(request.param)
    result = train(*OF_AGENT[request.param], "epochs=3", "run=whole", cwd=place)
    assert result.code == 0, result.err
    return request.param, place / "whole"


def test_evaluate_and_play(whole: tuple[str, Path]) -> None:
    _, run = whole
    result = evaluate(f"run={run}", "episodes=3", "output=evaluation.json", cwd=run.parent)
    assert result.code == 0, result.err
    assert (run.parent / "evaluation.json").exists()
    for where in ("both", "dream"):
        result = play(
            f"run={run}",
            "by=agent",
            "steps=5",
            f"where={where}",
            f"video={where}.mp4",
            cwd=run.parent,
        )
        assert result.code == 0 and (run.parent / f"{where}.mp4").exists(), result.err


def test_benchmark(whole: tuple[str, Path]) -> None:
    name, run = whole
    result = run_command(
        "benchmark", (*OF_AGENT[name], "seconds=0.01", "modes=[eager]"), cwd=run.parent
    )
    assert result.code == 0, result.err
    result = run_command("benchmark", (*OF_AGENT[name], "--estimate"), cwd=run.parent)
    assert result.code == 0, result.err
    result = run_command(
        "benchmark", (*OF_AGENT[name], "dream=true", "dreams=[1]", "modes=[eager]"), cwd=run.parent
    )
    assert result.code == 0, result.err


def test_another_agent_cannot_go_on(whole: tuple[str, Path]) -> None:
    _, run = whole
    result = train(f"resume={run}", "epochs=9", "agent=delta_iris", cwd=run.parent)
    sentence = "agent=delta_iris was given, and a resumed run keeps its own; leave it out.\n"
    assert (result.code, result.err) == (2, sentence)


@pytest.mark.parametrize("agent", NEW)
@pytest.mark.parametrize(
    "env",
    [
        ("experiment=crafter_quick",),
        ("experiment=atari_quick",),
        ("env=gym", "env.id=CartPole-v1", "env.pixels=render"),
    ],
)
def test_its_first_updates_elsewhere(agent: str, env: tuple[str, ...], tmp_path: Path) -> None:
    """On Crafter, on Atari, on any environment."""
    few = [
        f"{part}.{key}=2"
        for part in ("tokenizer", "dynamics", "policy")
        for key in ("updates", "first_updates")
    ]
    result = train(
        *env, f"agent={agent}", *few, "epochs=2", "collect.first_steps=200", "collect.steps=20", "policy.start_epoch=1",
        "evaluation.episodes=1", "evaluate_every=9", "policy.batch=2", "tokenizer.batch=2", "dynamics.batch=2", "run=run", cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 0, result.err
