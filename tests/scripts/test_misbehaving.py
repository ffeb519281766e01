"""Runs in environments that fail, by the commands: one sentence, no process left."""

import shutil
import time
from pathlib import Path

import pytest

import tests.envs.misbehaving  # noqa: F401 (registers Misbehaving-v0)
from agent.runs.train import train as train_here
from agent.storage.metrics import read_metrics
from tests.envs.test_workers import is_there
from tests.scripts.commands import Result, evaluate, play, run_command, start_command, train
from tests.tiny import TINY, leave_out_films, tiny

TRUSTED = "env.id=misbehaving:Misbehaving-v0"
# Sound in the trial, and for some steps of each environment.
AFTER = ("env.kwargs.after=35", "collect.first_steps=90", "collect.steps=180")
RUN = (*TINY, TRUSTED, "logger=csv", "evaluate_every=9", "run=run", *AFTER)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working directory with the environment in it."""
    shutil.copy(Path(__file__).parent.parent / "envs" / "misbehaving.py", tmp_path)
    return tmp_path


def check_gone(place: Path) -> None:
    """Five seconds after a command has ended, no process of its environments is left."""
    pids = {int(line) for line in (place / "pids").read_text().split()}
    until = time.monotonic() + 5
    while left := [pid for pid in pids if is_there(pid)]:
        assert time.monotonic() < until, left
        time.sleep(0.1)


def check_stopped(result: Result, *named: str) -> None:
    """The last line is the sentence."""
    assert result.code == 1, result
    sentence = result.err.splitlines()[-1]
    for part in ("misbehaving:Misbehaving-v0 (", *named):
        assert part in sentence, (part, result.err)
    assert ("Traceback" in result.err) == ("Exit" in sentence)


def test_training_stops(place: Path):
    result = train(*RUN, "env.kwargs.fault=SystemExit", cwd=place)
    left = f"epoch_000001_paused (go on with resume=run {TRUSTED})"
    check_stopped(result, "step 1 of its episode 6: SystemExit: 0", "env.on_error=restart", left)
    assert f"resume=<this folder> {TRUSTED}\n" in (place / "run" / "README.txt").read_text()


def test_training_goes_on(place: Path):
    """By one kind of failure and then, resumed, by another; and an evaluation by yet another."""
    own = ("env.parallel=true", "env.timeout=2", f"env.kwargs.pids={place}/pids")
    stopped = train(*RUN, *own, "env.kwargs.fault=hang", cwd=place)
    check_stopped(stopped, "step 1 of its episode 6: no answer for 2 s (env.timeout=2)")
    check_gone(place)
    result = train("resume=run", TRUSTED, "env.on_error=restart", cwd=place)
    assert result.code == 0, result.err
    assert "it is restarted." in result.out
    assert sum(row["collect/restarts"] for row in read_metrics(place / "run" / "metrics.csv")) >= 1
    check_gone(place)
    # 8 episodes of each of 2 environments are more steps than they are sound for.
    die = ("episodes=16", "films=false", "env.kwargs.fault=die", "output=die.json")
    other = evaluate("run=run", TRUSTED, *die, cwd=place)
    assert other.code == 0, other.err
    assert "other episodes were played for those that broke off" in other.out
    check_gone(place)


def test_a_killed_run_takes_its_processes_with_it(place: Path, tmp_path: Path):
    """By SIGKILL, while an environment hangs."""
    hangs = ("env.kwargs.fault=hang", "env.parallel=true", "env.timeout=1000")
    process = start_command(
        "train", (*RUN, *hangs, f"env.kwargs.pids={place}/pids"), place, tmp_path
    )
    while not (place / "run" / "checkpoints" / "epoch_000001").exists():
        assert process.is_alive(), (tmp_path / "err").read_text()
        time.sleep(0.1)
    time.sleep(2)
    process.kill()
    process.join()
    check_gone(place)


def test_playing_stops(place: Path):
    given = (TRUSTED, "env.kwargs.fault=raise", "steps=50", "fps=240")
    result = play(*given, cwd=place, screen="dummy")
    assert result.code == 1 and "misbehave()" in result.err, result
    last = result.err.splitlines()[-1]
    assert "failed at step 4 of its episode 2: KeyError: 'level 4'; correct it" in last


def test_the_check_refuses(place: Path):
    given = ("env=gym", TRUSTED, "env.kwargs.fault=SystemExit", "env.kwargs.after=10")
    result = run_command("check_env", given, place)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result
    assert "failed at step 4 of its episode 2: SystemExit: 0" in result.err


def test_episodes_that_end_at_once_or_never(tmp_path: Path, monkeypatch, capsys):
    leave_out_films(monkeypatch)
    env = ("env.id=Misbehaving-v0", "env.kwargs.after=100000", "evaluation.num_envs=4")
    train_here(tiny(*env, "env.kwargs.fault=at once", f"run={tmp_path}/at_once"), [])
    limit = ("env.kwargs.fault=endless", "evaluation.max_steps=40")
    train_here(tiny(*env, *limit, f"run={tmp_path}/never"), [])
    told = "4 of 4 episodes had not ended after evaluation.max_steps=40 steps"
    assert told in capsys.readouterr().out
