"""The evaluate command as a process."""

import json
import shutil
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest

from envs.scores import CRAFTER_ACHIEVEMENTS
from tests.scripts.commands import contents, evaluate, train
from tests.tiny import TINY_CRAFTER


def strict(path: Path) -> dict:
    """JSON without NaN and Infinity, which it does not know."""

    def refuse(constant: str):
        raise AssertionError(constant)

    return json.loads(path.read_text(), parse_constant=refuse)


def test_two_evaluations_agree(finished: Path, tmp_path: Path):
    run = shutil.copytree(finished, tmp_path / "run")
    before = contents(run)
    first = evaluate("run=run", "episodes=8", "output=first.json", cwd=tmp_path)
    second = evaluate(
        "run=run/checkpoints/epoch_000002", "episodes=8", "output=deep/er/second.json", cwd=tmp_path
    )
    assert first.code == second.code == 0, first.err + second.err
    assert contents(run) == before
    report = strict(tmp_path / "first.json")
    assert report == strict(tmp_path / "deep" / "er" / "second.json")
    assert first.out.splitlines()[:-3] == second.out.splitlines()[:-3]
    assert first.out.splitlines()[-3:] == [
        "written to first.json",
        "film: first_best.mp4",
        "film: first_median.mp4",
    ]
    best = [
        imageio.mimread(tmp_path / name) for name in ("first_best.mp4", "deep/er/second_best.mp4")
    ]
    assert len(best[0]) == max(report["lengths"]) + 1 and np.array_equal(*best)
    assert len(report["returns"]) == len(report["lengths"]) == report["episodes"] == 8
    assert report["return_mean"] == pytest.approx(sum(report["returns"]) / 8)
    assert report["checkpoint"].endswith("run/checkpoints/epoch_000002")
    for name in (
        "environment",
        "policy",
        "seed",
        "num_envs",
        "return_95_low",
        "return_median",
        "return_standard_error",
        "length_mean",
    ):
        assert name in report and name in first.out


def test_into_the_run_and_one_episode(finished: Path, tmp_path: Path):
    """Of one episode there is no standard error and no interval: null in JSON."""
    shutil.copytree(finished, tmp_path / "run")
    result = evaluate("run=run", "episodes=1", "random=true", "seed=5", "films=false", cwd=tmp_path)
    assert result.code == 0, result.err
    report = strict(tmp_path / "run" / "evaluation_random_epoch_000002_seed_5_episodes_1.json")
    assert not list((tmp_path / "run").glob("*.mp4"))
    assert (
        report["return_standard_error"] is report["return_95_low"] is None
        and report["policy"] == "random"
        and report["episodes"] == 1
    )


def test_an_environment_that_cannot_be_rendered(finished: Path, tmp_path: Path):
    """It is filmed as the agent sees it, and where no film can be written the result stays."""
    shutil.copy(Path(__file__).with_name("odd_envs.py"), tmp_path)
    (tmp_path / "result_median.mp4").mkdir()
    odd = ("env=gym", "env.id=odd_envs:Unfilmed-v0", "episodes=2", "output=result.json")
    result = evaluate(f"run={finished}", *odd, cwd=tmp_path)
    assert result.code == 0 and strict(tmp_path / "result.json")["lengths"] == [4, 4], result.err
    assert result.out.splitlines()[-1] == "film: result_best.mp4"
    assert "result_median.mp4 was not made: IsADirectoryError" in result.err


def test_crafter(tmp_path: Path):
    """The score and 22 rates, aligned."""
    run = train(*TINY_CRAFTER, "epochs=1", "run=run", "evaluation.episodes=1", cwd=tmp_path)
    assert run.code == 0, run.err
    result = evaluate("run=run", "episodes=3", "output=result.json", cwd=tmp_path)
    assert result.code == 0, result.err
    report = strict(tmp_path / "result.json")
    assert 0 <= report["crafter_score"] <= 100
    lines = result.out.splitlines()
    shown = [line for line in lines if line.split(" ")[0] in CRAFTER_ACHIEVEMENTS]
    assert [line.split()[0] for line in shown] == list(CRAFTER_ACHIEVEMENTS)
    for line in shown:
        name, percent = line.split()
        assert float(percent) == pytest.approx(report[f"success_rate/{name}"], abs=0.05)
    assert len({len(line) for line in shown}) == 1
