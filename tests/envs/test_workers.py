"""Environments that fail in processes of their own. None of these processes is left."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import gymnasium
import numpy as np
import psutil
import pytest

from envs.config import EnvConfig
from envs.errors import BadInput, EnvironmentFailed
from envs.vector import closing, make_vector
from tests.envs.misbehaving import Misbehaving
from tests.envs.test_failures import check_restarted, config, play

STEP, RESET = " at step 4 of its episode 2: ", " in the reset that begins its episode 3: "
TOLD = {
    "raise": f"failed{STEP}KeyError: 'level 4'",
    "raise in reset": f"failed{RESET}KeyError: 'level 0'",
    "SystemExit": f"failed{STEP}SystemExit: 0",
    "KeyboardInterrupt": f"failed{STEP}KeyboardInterrupt",
    "hang": f"failed{STEP}no answer for 0.5 s (env.timeout=0.5)",
    "hang in reset": f"failed{RESET}no answer for 0.5 s (env.timeout=0.5)",
    "die": f"failed{STEP}its process died by the signal SIGKILL",
    "die in reset": f"failed{RESET}its process died by the signal SIGKILL",
    "_exit": f"failed{STEP}its process died, exit code 3",
    "nan": f"is not what it declares:{STEP.replace(':', '')}it returned the reward nan",
}


@pytest.fixture
def make(tmp_path: Path):
    """Vector environments, of whose processes none may be left within five seconds."""
    made = []

    def make(fault, *seeds, **settings):
        with_pids = config(fault, parallel=True, timeout=0.5, **settings)
        with_pids.kwargs["pids"] = str(tmp_path / "pids")
        made.append(make_vector(with_pids, list(seeds)))
        return made[-1]

    yield make
    started = time.monotonic()
    for envs in made:
        envs.close(terminate=True)
    assert time.monotonic() - started < 5
    assert not running(tmp_path)


def running(folder: Path) -> list[int]:
    """The processes of environments that are still there."""
    pids = {int(line) for line in (folder / "pids").read_text().split()} - {os.getpid()}
    assert pids
    return [pid for pid in pids if is_there(pid)]


def is_there(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize("fault", ["raise", "hang", "die", "nan"])
def test_it_stops(make, tmp_path, fault: str):
    envs = make(fault, 0)
    with pytest.raises((EnvironmentFailed, BadInput)) as stop, closing(envs):
        play(envs, 40)
    assert TOLD[fault] in str(stop.value) and str(stop.value).endswith(".")
    assert isinstance(stop.value, BadInput) == (fault == "nan")
    assert not running(tmp_path)
    if fault == "raise":
        assert "misbehave()" in stop.value.trace


@pytest.mark.parametrize("fault", TOLD)
def test_it_is_restarted(make, fault: str):
    """As in one process, and whatever became of the environment's own."""
    with closing(make(fault, 0, on_error="restart")) as envs:
        rows = play(envs, 20)
    check_restarted(rows, fault, TOLD[fault])


def test_as_in_one_process(make):
    own = play(make_vector(config("raise in reset", on_error="restart"), [0, 1]), 40)
    there = play(make("raise in reset", 0, 1, on_error="restart"), 40)
    for row, other in zip(own, there, strict=True):
        for value, value_there in zip(row[:4], other[:4], strict=True):
            np.testing.assert_array_equal(value, value_there)
        assert str(row[4]) == str(other[4])


def test_only_so_often(make):
    with pytest.raises(EnvironmentFailed, match="SIGKILL, after 2 restarts.*env.max_restarts=2"):
        play(make("die", 0, on_error="restart", max_restarts=2), 60)


@pytest.mark.parametrize("steps", [3, 7])
def test_killed_between_steps(make, steps: int):
    """Its position is not lost. The next step ends its episode; the other's goes on."""
    envs, action = make(None, 0, 1, on_error="restart"), np.zeros((2, 1), np.int64)
    rows = play(envs, steps)
    ended = bool(rows[-1][2][0])  # the next step is a reset, and fails as one
    pid = envs.envs[0].unwrapped.process.pid
    os.kill(pid, signal.SIGKILL)
    while is_there(pid):
        time.sleep(0.01)
    assert envs.get_attr("position")[0] == (0, 0, [[0]] * steps)
    after = [envs.step(action) for _ in range(3)]
    assert "SIGKILL" in str(after[0][4]["failures"])
    assert after[0][3].tolist() == [not ended, False]
    whole = play(make_vector(config(None), [0, 1]), steps + 3)
    for row, other in zip(after, whole[-3:], strict=True):
        np.testing.assert_array_equal(row[0][1], other[0][1])
    assert envs.get_attr("position")[0][:2] == ((2, 2) if ended else (1, 1))


def test_a_signal_to_all(make):
    """Slurm signals all of a job's processes; the parent still has to save where they stand."""
    envs = make(None, 0)
    play(envs, 3)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        os.kill(envs.envs[0].unwrapped.process.pid, number)
    time.sleep(0.2)
    assert envs.step(np.zeros((1, 1), np.int64))[1] == [1.0]


def test_a_replay_may_take_as_long_as_its_steps(make):
    """0.2 of at most 0.5 seconds each; several environments replay at the same time."""
    envs, length = make("slow", 0, 1), 6
    envs.set_attr("resume_from", [(0, 0, [[0]] * length)] * 2)
    started = time.monotonic()
    envs.reset()
    assert length * 0.2 < time.monotonic() - started < 2 * length * 0.2
    assert envs.get_attr("position") == ((0, 0, [[0]] * length),) * 2


@pytest.mark.parametrize("terminate", [False, True])
def test_closing_one_that_hangs(make, tmp_path, terminate: bool):
    envs = make("hang", 0, 1, after=0)
    envs.reset()
    for env in envs.envs:
        env.ask([0])
    started = time.monotonic()
    envs.close(terminate=terminate)
    assert time.monotonic() - started < 5 and not running(tmp_path)


def test_its_maker_fails_in_the_process():
    """Here it can be made, and there it cannot."""
    here = os.getpid()

    class Elsewhere(Misbehaving):
        def __init__(self):
            if os.getpid() != here:
                raise OSError("its display is missing")
            super().__init__()

    gymnasium.register("Elsewhere-v0", Elsewhere)
    try:
        with (
            pytest.raises(BadInput, match="cannot be made .*OSError: its display is missing"),
            closing(make_vector(EnvConfig(id="Elsewhere-v0", parallel=True), [0, 1])) as envs,
        ):
            envs.reset()
    finally:
        del gymnasium.registry["Elsewhere-v0"]
