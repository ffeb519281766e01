"""Runs are found, and what is not as our commands write it is left out with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from agent.report.runs import check_protocols, find_runs, settings_that_differ
from envs.errors import BadInput
from tests.saved_runs import CATCH, CRAFTER, PROTOCOL, crafter_rates, write_evaluation, write_run


def test_runs_at_any_depth(tmp_path: Path):
    near = write_run(tmp_path / "b", seed=3, curve={100: 1.5, 200: float("nan"), 300: 2.5})
    deep = write_run(tmp_path / "a" / "x" / "y", game=None, env_id="envs:" + CATCH, experiment="catch", epochs=10)
    (deep / "replay").mkdir()
    (deep / "replay" / "config.yaml").write_text("not: ours")  # what lies in a run is its own
    inner = write_run(deep / "z", game=None, env_id=CATCH, experiment="catch")
    (tmp_path / "empty").mkdir()
    write_evaluation(near, [1.0, 2.0])
    runs, left_out = find_runs(tmp_path)
    assert [run.folder for run in runs] == [deep, inner, near] and left_out == []
    catch, _, boxing = runs
    assert (catch.experiment, catch.game, catch.environment, catch.name) == ("catch", None, CATCH, CATCH)
    assert (boxing.game, boxing.seed, boxing.epochs, boxing.reached) == ("Boxing", 3, 600, 600)
    assert boxing.curve("step") == [(200, 100, 1.5), (600, 300, 2.5)]
    assert catch.evaluation is None and boxing.evaluation.score == 1.5
    assert find_runs(near)[0][0].folder == near


def test_configurations_without_a_game(tmp_path: Path):
    """Those of runs from before there was one."""
    run = write_run(tmp_path / "run", game=None, env_id=CATCH)
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["env"]["game"], config["env"]["evaluation_kwargs"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert find_runs(tmp_path)[0][0].game is None


def test_the_latest_evaluation_with_the_most_episodes(tmp_path: Path):
    run = write_run(tmp_path / "run")
    write_evaluation(run, [9.0] * 7, epoch=300)
    write_evaluation(run, [1.0] * 2)
    best = write_evaluation(run, [2.0] * 5)
    write_evaluation(run, [3.0] * 4, seed=7)
    random = write_evaluation(run, [0.0] * 3, policy="random")
    saved = find_runs(tmp_path)[0][0]
    assert saved.evaluation.path == best and saved.evaluation.score == 2.0
    assert saved.random.path == random


def test_crafter_rates_are_read(tmp_path: Path):
    run = write_run(tmp_path / "run", game=None, env_id=CRAFTER)
    write_evaluation(run, [5.0], **crafter_rates(10.0))
    saved = find_runs(tmp_path)[0][0].evaluation
    assert saved.crafter_score == pytest.approx(11 ** (21 / 22) - 1)
    assert len(saved.success_rates) == 22 and saved.success_rates["wake_up"] == 10.0


BROKEN_CONFIGS = {
    "no yaml": "a: [",
    "python": "!!python/object/apply:os.system ['touch ran']",
    "a list": "- 1",
    "empty": "",
    "no env": "experiment: a\nseed: 0\nepochs: 1\n",
    "no seed": "experiment: a\nepochs: 1\nenv: {id: x}\n",
    "a seed that is true": "experiment: a\nseed: true\nepochs: 1\nenv: {id: x}\n",
    "a game that is a number": "experiment: a\nseed: 1\nepochs: 1\nenv: {id: x, game: 3}\n",
    "not text": b"\xff\xfe\x00",
    "bottomless": "[" * 5000,
    "itself": "experiment: a\nseed: 1\nepochs: 1\nenv: &e {id: x, inner: *e}\n",
}


@pytest.mark.parametrize("text", BROKEN_CONFIGS.values(), ids=BROKEN_CONFIGS)
def test_foreign_and_broken_runs_are_left_out(tmp_path: Path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = write_run(tmp_path / "runs" / "good")
    (tmp_path / "runs" / "bad" / "below").mkdir(parents=True)
    (tmp_path / "runs" / "bad" / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    inner = write_run(tmp_path / "runs" / "bad" / "below" / "run", seed=1)
    runs, left_out = find_runs(tmp_path / "runs")
    assert [run.folder for run in runs] == [inner, good]
    (line,) = left_out
    assert line.startswith(f"{tmp_path / 'runs' / 'bad'}: left out") and "\n" not in line and len(line) < 500
    assert not (tmp_path / "ran").exists()


# What an evaluation's file may have wrong, and what the line says of it.
BROKEN_EVALUATIONS = {
    "{": "Expecting",
    "[]": "no JSON object",
    "[" * 100_000: "recursion",
    '{"episodes": NaN}': "NaN",
    "policy": "random",
    "episodes": True,
    "epoch": "last",
    "protocol": None,
    "run_seed": 4,
    "game": "Pong",
    "experiment": "crafter",
    "environment": CATCH,
    "return_mean": 3.0,
    "returns": [1.0],
    "lengths": [9, "long"],
    "steps": None,
    "temperature": "warm",
}


@pytest.mark.parametrize(("what", "value"), BROKEN_EVALUATIONS.items(), ids=[key[:12] for key in BROKEN_EVALUATIONS])
def test_broken_evaluations_are_left_out(tmp_path: Path, what, value):
    run = write_run(tmp_path / "run")
    older = write_evaluation(run, [2.0], epoch=300)
    path = write_evaluation(run, [1.0, 2.0])
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, what: value}) if what in content else what)
    runs, left_out = find_runs(tmp_path)
    assert runs[0].evaluation.path == older
    (line,) = left_out
    assert line.startswith(f"{path}: left out") and "\n" not in line and len(line) < 500
    assert (what if what in content else value).split("_")[0] in line


@pytest.mark.parametrize("number", ["1e999", "NaN", "-Infinity", "1" + "0" * 400, "true", "null", '"3"', "[3]"])
def test_numbers_that_are_none(tmp_path: Path, number):
    run = write_run(tmp_path / "run")
    path = write_evaluation(run, [12345.0, 2.0])
    path.write_text(path.read_text().replace("12345.0", number))
    runs, left_out = find_runs(tmp_path)
    assert runs[0].evaluation is None and len(left_out) == 1


def test_an_evaluation_from_before_protocols(tmp_path: Path):
    run = write_run(tmp_path / "run")
    path = write_evaluation(run, [1.0])
    content = json.loads(path.read_text())
    del content["protocol"]
    path.write_text(json.dumps(content))
    runs, left_out = find_runs(tmp_path)
    assert runs[0].evaluation is None and "protocol is missing" in left_out[0]


def test_a_foreign_log_is_left_out_and_the_run_stays(tmp_path: Path):
    run = write_run(tmp_path / "run")
    write_evaluation(run, [1.0])
    (run / "metrics.csv").write_text("a,b\n1,2\n")
    runs, left_out = find_runs(tmp_path)
    assert runs[0].points == [] and runs[0].evaluation.score == 1.0
    assert len(left_out) == 1 and "metrics.csv" in left_out[0]


def test_no_run(tmp_path: Path):
    with pytest.raises(BadInput, match="nowhere is not a folder"):
        find_runs(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="holds no run"):
        find_runs(tmp_path)
    (tmp_path / "config.yaml").write_text("a: 1")
    with pytest.raises(BadInput, match=r"holds no run that can be read \(.*has no env"):
        find_runs(tmp_path)


DIFFERENCES = {
    "frame_skip in evaluation": {"protocol": PROTOCOL | {"frame_skip": 3}},
    "end_on_life_loss in training": {"training_protocol": PROTOCOL | {"noops": 30, "end_on_life_loss": True}},
    "size in evaluation": {"protocol": PROTOCOL | {"size": 64}},
    "temperature": {"temperature": 0.5},
}


@pytest.mark.parametrize(("name", "change"), DIFFERENCES.items(), ids=DIFFERENCES)
def test_two_protocols_are_refused(tmp_path: Path, name, change):
    for i, (game, changes) in enumerate((("Boxing", {}), ("Pong", {}), ("Pong", change))):
        write_evaluation(write_run(tmp_path / str(i), game, seed=i), [1.0], **changes)
    with pytest.raises(BadInput, match=f"{name} is .* in {tmp_path / '0'} and .* in {tmp_path / '2'}; .*mixed=true"):
        check_protocols(find_runs(tmp_path)[0])


def test_what_may_differ(tmp_path: Path):
    """Other experiments and environments, and a random policy's temperature."""
    other = {"protocol": {"length": 100}, "temperature": 0.5}
    first = write_run(tmp_path / "a")
    write_evaluation(first, [1.0])
    write_evaluation(first, [1.0], policy="random", temperature=None)
    write_evaluation(write_run(tmp_path / "b", experiment="other"), [1.0], **other)
    write_evaluation(write_run(tmp_path / "c", game=None, env_id=CATCH), [1.0], **other)
    check_protocols(find_runs(tmp_path)[0])
    write_evaluation(first, [1.0, 1.0], policy="random", protocol={})
    with pytest.raises(BadInput, match="Two protocols"):
        check_protocols(find_runs(tmp_path)[0])


def test_settings_that_make_runs_something_else_than_seeds(tmp_path: Path):
    write_run(tmp_path / "a", seed=0, tokenizer={"batch": 8, "layers": [1]}, device="cpu", learner={"mode": "eager"})
    write_run(tmp_path / "b", seed=1, tokenizer={"batch": 16, "layers": [1]}, device="cuda", learner={"mode": "auto"})
    assert settings_that_differ(find_runs(tmp_path)[0]) == ["tokenizer.batch"]
