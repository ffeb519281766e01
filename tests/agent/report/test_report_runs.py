"""Runs are found, and what is not as our commands write it is left out with its reason."""

import json
from pathlib import Path

import pytest

from agent.report.runs import check_protocols, find_runs
from envs.errors import BadInput
from tests.saved_runs import CATCH, CRAFTER, PROTOCOL, crafter_rates, write_evaluation, write_run


def test_runs_at_any_depth(tmp_path: Path):
    agent = {part: {"kind": "frame"} for part in ("tokenizer", "dynamics")} | {
        "policy": {"kind": "vit"}
    }
    curve = {100: 1.5, 200: float("nan"), 300: 2.5}
    near = write_run(tmp_path / "b", seed=3, curve=curve, agent=agent)
    deep = write_run(tmp_path / "a" / "x", None, env_id="envs:" + CATCH, experiment="catch")
    (deep / "replay").mkdir()
    (deep / "replay" / "config.yaml").write_text("not: ours")  # what lies in a run is its own
    inner = write_run(deep / "z", None, env_id=CRAFTER, experiment="crafter")
    write_evaluation(inner, [5.0, 6.0], **crafter_rates(10.0))
    (inner / "metrics.csv").write_text("a,b\n1,2\n")  # the run stays without it
    runs, (line,) = find_runs(tmp_path)
    assert list(runs.table.index) == [str(deep), str(inner), str(near)]
    assert line.startswith(f"{inner / 'metrics.csv'}: left out")
    assert runs.table.method.tolist() == ["catch", "crafter", "atari, frame frame vit"]
    assert runs.table.environment.tolist() == [CATCH, CRAFTER, "deltadream/Atari-v0"]
    assert runs.table["name"].tolist() == [CATCH, CRAFTER, "Boxing"]
    assert runs.table.seed.tolist() == [0, 0, 3] and runs.table.reached.tolist() == [600] * 3
    assert runs.table.return_mean.isna().tolist() == [True, False, True]
    assert runs.table.crafter_score[str(inner)] == pytest.approx(11 ** (21 / 22) - 1)
    curve = runs.curves.loc[str(near)]
    assert curve[["epoch", "step", "score"]].values.tolist() == [[200, 100, 1.5], [600, 300, 2.5]]


def test_the_latest_evaluation_with_the_most_episodes(tmp_path: Path):
    run = write_run(tmp_path / "run")
    write_evaluation(run, [9.0] * 7, epoch=300)
    write_evaluation(run, [1.0] * 2)
    write_evaluation(run, [2.0] * 5)
    write_evaluation(run, [3.0] * 4, seed=7)
    write_evaluation(run, [0.0] * 3, policy="random")
    runs, _ = find_runs(tmp_path)
    assert runs.table.return_mean.tolist() == [2.0] and runs.random.return_mean.tolist() == [0.0]


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "!!python/object/apply:os.system ['touch ran']",
        "",
        "${oc.env:HOME}",
        "experiment: a\nseed: 0\nepochs: 1\n",
        "experiment: a\nseed: 1\nepochs: many\nenv: {id: x}\n",
    ],
)
def test_foreign_and_broken_runs_are_left_out(tmp_path: Path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = write_run(tmp_path / "runs" / "good")
    bad = tmp_path / "runs" / "bad"
    inner = write_run(bad / "below" / "run", seed=1)
    (bad / "config.yaml").write_text(text)
    runs, (line,) = find_runs(tmp_path / "runs")
    assert list(runs.table.index) == [str(inner), str(good)]
    assert line.startswith(f"{bad}: left out") and "\n" not in line and len(line) < 500
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("{", "Expecting"),
        ("[]", "missing"),
        ({"policy": "theirs"}, "policy"),
        ({"epoch": "last"}, "epoch"),
        ({"protocol": None}, "protocol"),
        ({"run_seed": 4}, "run_seed"),
        ({"returns": [1.0]}, "returns"),
        ({"returns": [float("nan"), 1.0]}, "returns"),
        ({"returns": [1.0, 10**400]}, "too large"),
        ({"crafter_score": 3.0}, "success_rate"),
    ],
)
def test_broken_evaluations_are_left_out(tmp_path: Path, change, said):
    run = write_run(tmp_path / "run")
    write_evaluation(run, [2.0], epoch=300)
    path = write_evaluation(run, [1.0, 2.0])
    content = json.loads(path.read_text())
    path.write_text(change if isinstance(change, str) else json.dumps(content | change))
    runs, (line,) = find_runs(tmp_path)
    assert runs.table.epoch.tolist() == [300]
    assert line.startswith(f"{path}: left out") and "\n" not in line and said in line


def test_no_run(tmp_path: Path):
    with pytest.raises(BadInput, match="nowhere is not a folder"):
        find_runs(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="holds no run"):
        find_runs(tmp_path)
    (tmp_path / "config.yaml").write_text("a: 1")
    with pytest.raises(BadInput, match=r"holds no run that can be read \(.*has no env"):
        find_runs(tmp_path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("frame_skip in evaluation", {"protocol": PROTOCOL | {"frame_skip": 3}}),
        ("noops in training", {"training_protocol": PROTOCOL | {"noops": 5}}),
        ("size in evaluation", {"protocol": PROTOCOL | {"size": 64}}),
        ("temperature", {"temperature": 0.5}),
    ],
)
def test_two_protocols_are_refused(tmp_path: Path, name, change):
    for i, (game, changes) in enumerate((("Boxing", {}), ("Pong", {}), ("Pong", change))):
        write_evaluation(write_run(tmp_path / str(i), game, seed=i), [1.0], **changes)
    with pytest.raises(BadInput, match=f"{name} is .* in {tmp_path}/. and .* in {tmp_path}/.; "):
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
