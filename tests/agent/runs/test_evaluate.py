"""The evaluate command, in this process."""

import json
import shutil
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest

from agent.runs.evaluate import EvaluateConfig, evaluate_run
from agent.runs.train import train
from envs.config import EnvConfig
from envs.errors import BadInput
from envs.scores import CRAFTER_ACHIEVEMENTS
from tests.equal import look
from tests.tiny import TINY_CRAFTER, tiny


def strict(path: Path) -> dict:
    """JSON without NaN and Infinity, which it does not know."""

    def refuse(constant: str):
        raise AssertionError(constant)

    return json.loads(path.read_text(), parse_constant=refuse)


def test_two_evaluations_agree(trained: Path, tmp_path: Path, monkeypatch, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    before = look(run)
    evaluate_run(EvaluateConfig(run="run", episodes=4, output="first.json"), [])
    first = capsys.readouterr().out.splitlines()
    newest = "run/checkpoints/epoch_000003"
    evaluate_run(EvaluateConfig(run=newest, episodes=4, output="deep/er/second.json"), [])
    second = capsys.readouterr().out.splitlines()
    assert look(run) == before
    report = strict(tmp_path / "first.json")
    assert report == strict(tmp_path / "deep" / "er" / "second.json")
    assert first[:-3] == second[:-3]
    films = ["film: first_best.mp4", "film: first_median.mp4"]
    assert first[-3:] == ["written to first.json", *films]
    best = [imageio.mimread(name) for name in ("first_best.mp4", "deep/er/second_best.mp4")]
    assert len(best[0]) == max(report["lengths"]) + 1 and np.array_equal(*best)
    assert len(report["returns"]) == len(report["lengths"]) == report["episodes"] == 4
    assert report["return_mean"] == pytest.approx(sum(report["returns"]) / 4)
    assert report["checkpoint"].endswith(newest)
    for name in ("environment", "policy", "seed", "return_95_low", "length_mean"):
        assert name in report and any(line.startswith(name) for line in first)


def test_into_the_run_and_one_episode(trained: Path, tmp_path: Path):
    """Of one episode there is no standard error and no interval: null in JSON."""
    run = shutil.copytree(trained, tmp_path / "run")
    config = EvaluateConfig(run=str(run), episodes=1, random=True, seed=5, films=False)
    evaluate_run(config, [])
    report = strict(run / "evaluation_random_epoch_000003_seed_5_episodes_1.json")
    assert not list(run.glob("*.mp4"))
    assert report["return_standard_error"] is report["return_95_low"] is None
    assert (report["policy"], report["episodes"]) == ("random", 1)


def test_another_environment(trained: Path, tmp_path: Path, monkeypatch, capsys):
    """It is filmed as the agent sees it if it draws nothing; the result stays without a film."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "result_median.mp4").mkdir()
    env = EnvConfig(id="tests.scripts.odd_envs:Unfilmed-v0")
    given = ["env=gym", f"env.id={env.id}"]
    with pytest.raises(BadInput, match="as output=<file.json>"):
        evaluate_run(EvaluateConfig(run=str(trained), env=env), given)
    evaluate_run(EvaluateConfig(run=str(trained), env=env, episodes=2, output="result.json"), given)
    assert strict(tmp_path / "result.json")["lengths"] == [4, 4]
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "film: result_best.mp4"
    assert "result_median.mp4 was not made: IsADirectoryError" in said.err


@pytest.mark.usefixtures("without_films")
def test_crafter(tmp_path: Path, capsys):
    """The score and 22 rates, aligned."""
    run, output = tmp_path / "run", tmp_path / "result.json"
    train(tiny("epochs=1", f"run={run}", "evaluation.episodes=1", base=TINY_CRAFTER), [])
    capsys.readouterr()
    evaluate_run(EvaluateConfig(run=str(run), episodes=3, films=False, output=str(output)), [])
    report = strict(output)
    assert 0 <= report["crafter_score"] <= 100
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if line.split(" ")[0] in CRAFTER_ACHIEVEMENTS]
    assert [line.split()[0] for line in shown] == list(CRAFTER_ACHIEVEMENTS)
    for line in shown:
        name, percent = line.split()
        assert float(percent) == pytest.approx(report[f"success_rate/{name}"], abs=0.05)
    assert len({len(line) for line in shown}) == 1
