"""Runs in environments that fail, by the commands: one sentence, no process left."""

import shutil
import time
from pathlib import Path

import pytest

from agent.storage.metrics import read_metrics
from tests.envs.test_workers import is_there
from tests.scripts.commands import Result, evaluate, play, run_command, start_command, train
from tests.tiny import TINY

ENV = ("env.id=misbehaving:Misbehaving-v0", "logger=csv", "evaluate_every=9", "run=run")
AFTER = (
    "env.kwargs.after=35",
    "collect.first_steps=90",
    "collect.steps=180",
)  # sound in the trial, and for some steps of each environment


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
    assert ("Traceback" in result.err) == ("Error" in sentence or "Exit" in sentence)


@pytest.mark.parametrize(
    ("fault", "parallel", "named"),
    [
        ("raise", False, "failed at step 1 of its episode 6: KeyError: 'level 1'"),
        ("SystemExit", False, "failed at step 1 of its episode 6: SystemExit: 0"),
        ("hang", True, "gave no answer for 2 s (env.timeout=2) at step 1 of its episode 6"),
        ("die", True, "died by the signal SIGKILL at step 1 of its episode 6"),
    ],
)
def test_training_stops(place: Path, fault: str, parallel: bool, named: str):
    given = (
        f"env.kwargs.fault={fault}",
        f"env.kwargs.pids={place}/pids",
        *(("env.parallel=true", "env.timeout=2") if parallel else ()),
    )
    result = train(*TINY, *ENV, *AFTER, *given, cwd=place)
    check_stopped(
        result,
        named,
        "env.on_error=restart",
        "epoch_000001_paused (go on with resume=run env.id=misbehaving:Misbehaving-v0)",
    )
    assert (
        "resume=<this folder> env.id=misbehaving:Misbehaving-v0\n"
        in (place / "run" / "README.txt").read_text()
    )
    check_gone(place)


def test_training_goes_on(place: Path):
    """By one kind of failure and then, resumed, by another; and an evaluation by yet another."""
    env = (
        *ENV,
        *AFTER,
        "env.parallel=true",
        "env.timeout=2",
        f"env.kwargs.pids={place}/pids",
        "env.kwargs.fault=hang",
    )
    stopped = train(*TINY, *env, cwd=place)
    check_stopped(stopped, "gave no answer for 2 s")
    trusted = "env.id=misbehaving:Misbehaving-v0"
    result = train("resume=run", trusted, "env.on_error=restart", cwd=place)
    assert result.code == 0, result.err
    assert "it is restarted." in result.out
    assert sum(row["collect/restarts"] for row in read_metrics(place / "run" / "metrics.csv")) >= 1
    check_gone(place)
    # 8 episodes of each of 2 environments are more steps than they are sound for.
    other = evaluate(
        "run=run",
        trusted,
        "episodes=16",
        "films=false",
        "env.kwargs.fault=die",
        "output=die.json",
        cwd=place,
    )
    assert other.code == 0, other.err
    assert "other episodes were played for those that broke off" in other.out
    alone = evaluate(
        "run=run",
        trusted,
        "episodes=16",
        "env.on_error=stop",
        "env.kwargs.fault=raise",
        "output=raise.json",
        cwd=place,
    )
    check_stopped(alone, "failed at step 1 of its episode 6: KeyError: 'level 1'")
    check_gone(place)


def test_a_killed_run_takes_its_processes_with_it(place: Path, tmp_path: Path):
    """By SIGKILL, while an environment hangs."""
    given = (
        "env.kwargs.fault=hang",
        "env.parallel=true",
        f"env.kwargs.pids={place}/pids",
        "env.timeout=1000",
    )
    process = start_command("train", (*TINY, *ENV, *AFTER, *given), place, tmp_path)
    while not (place / "run" / "checkpoints" / "epoch_000001").exists():
        assert process.is_alive(), (tmp_path / "err").read_text()
        time.sleep(0.1)
    time.sleep(2)
    process.kill()
    process.join()
    check_gone(place)


def test_playing_stops(place: Path):
    result = play(
        ENV[0], "env.kwargs.fault=raise", "steps=50", "fps=240", cwd=place, screen="dummy"
    )
    assert result.code == 1 and "misbehave()" in result.err, result
    assert (
        "failed at step 4 of its episode 2: KeyError: 'level 4'; correct it"
        in result.err.splitlines()[-1]
    )


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("SystemExit", "failed at step 4 of its episode 2: SystemExit: 0"),
        ("huge", "it returned the reward 1e+300, but finite numbers up to 3.4e+38 are accepted"),
    ],
)
def test_the_check_refuses(place: Path, fault: str, named: str):
    result = run_command(
        "check_env", ("env=gym", ENV[0], f"env.kwargs.fault={fault}", "env.kwargs.after=10"), place
    )
    assert (
        result.code == 2
        and named in result.err
        and result.err.count("\n") == 1
        and result.out == ""
    ), result


def test_episodes_that_end_at_once(place: Path):
    check = run_command(
        "check_env", ("env=gym", ENV[0], "env.kwargs.fault=at once", "env.kwargs.after=1000"), place
    )
    assert check.code == 0 and "episodes ended at their first step" in " ".join(
        check.out.split()
    ), check
    result = train(*TINY, *ENV, "env.kwargs.fault=at once", "env.kwargs.after=1000", cwd=place)
    assert result.code == 0, result.err


def test_episodes_that_never_end(place: Path):
    endless = (
        "env.kwargs.fault=endless",
        "env.kwargs.after=100000",
        "evaluation.max_steps=40",
        "evaluation.num_envs=4",
    )
    result = train(*TINY, *ENV, *endless, cwd=place)
    assert result.code == 0, result.err
    assert "4 of 4 episodes had not ended after evaluation.max_steps=40 steps" in result.out
