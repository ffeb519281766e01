"""Environments that fail in processes of their own. None of these processes is left."""

import gc
import os
import signal
import time
from contextlib import suppress
from multiprocessing.synchronize import SemLock
from pathlib import Path

import gymnasium
import numpy as np
import psutil
import pytest

from envs.config import EnvConfig
from envs.errors import BadInput, EnvironmentFailed
from envs.vector import closing, make_vector
from tests.envs.misbehaving import Misbehaving
from tests.envs.test_failures import config, play

TOLD = {
    "raise": "failed at step 4 of its episode 2: KeyError: 'level 4'",
    "raise in reset": "failed in the reset that begins its episode 3: KeyError: 'level 0'",
    "SystemExit": "failed at step 4 of its episode 2: SystemExit: 0",
    "KeyboardInterrupt": "failed at step 4 of its episode 2: KeyboardInterrupt",
    "hang": "gave no answer for 0.5 s (env.timeout=0.5) at step 4 of its episode 2",
    "hang in reset": "gave no answer for 0.5 s (env.timeout=0.5) in the reset that begins its "
    "episode 3",
    "die": "died by the signal SIGKILL at step 4 of its episode 2",
    "die in reset": "died by the signal SIGKILL in the reset that begins its episode 3",
    "_exit": "ended its process with exit code 3 at step 4 of its episode 2",
    "nan": "is not what it declares: at step 4 of its episode 2 it returned the reward nan",
    "shape": "is not what it declares: at step 4 of its episode 2 it returned an observation "
    "with the shape (31, 32, 3)",
}


@pytest.fixture
def make(tmp_path: Path, monkeypatch):
    """Vector environments; in the end nothing may be left of them, and within five seconds."""
    named, made, name = [], [], SemLock._make_name
    monkeypatch.setattr(
        SemLock, "_make_name", staticmethod(lambda: named.append(name()) or named[-1])
    )

    def make(fault, *seeds, **settings):
        with_pids = config(fault, parallel=True, timeout=0.5, **settings)
        with_pids.kwargs["pids"] = str(tmp_path / "pids")
        made.append(make_vector(with_pids, list(seeds)))
        assert in_shared_memory(named)
        return made[-1]

    yield make
    started = time.monotonic()
    for envs in made:
        envs.close(terminate=True)
    made.clear()
    gc.collect()
    assert time.monotonic() - started < 5
    assert not running(tmp_path)
    assert not in_shared_memory(named)


def in_shared_memory(named: list[str]) -> list[str]:
    """Those of these semaphores that are there. (The memory loses its name when it is made.)"""
    return [name for name in named if Path(f"/dev/shm/sem.{name.removeprefix('/')}").exists()]


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
    assert isinstance(stop.value, BadInput) == (fault in ("nan", "shape"))
    assert not running(tmp_path)
    if fault.startswith("raise"):
        assert "misbehave()" in stop.value.trace


@pytest.mark.parametrize("fault", TOLD)
def test_it_is_restarted(make, fault: str):
    """As in one process, and whatever became of the environment's own."""
    with closing(make(fault, 0, on_error="restart")) as envs:
        rows = play(envs, 24)
    expected = play(make_vector(config(None), [0]), 24)
    first = next(i for i, row in enumerate(rows) if "failures" in row[4])
    assert first == (16 if fault.endswith("reset") else 12)
    (told,) = rows[first][4]["failures"][0]
    assert TOLD[fault] in told and told.endswith("it is restarted.")
    for row, other in zip(rows[:first], expected[:first], strict=True):
        np.testing.assert_array_equal(row[0], other[0])
    if fault.endswith("reset"):
        assert not (rows[first][2] | rows[first][3])[0]
        begins = first
    else:
        assert rows[first][1][0] == 0.0 and rows[first][3][0] and not rows[first][2][0]
        np.testing.assert_array_equal(rows[first][0], rows[first - 1][0])
        np.testing.assert_array_equal(rows[first + 1][0], expected[16][0])  # episode 2 of them all
        begins = first + 1
    # It goes on: an episode of as many steps as there are before the next failure.
    assert not any((row[2] | row[3])[0] for row in rows[begins + 1 : begins + 7])


@pytest.mark.parametrize("fault", ["raise in reset", "nan"])
def test_as_in_one_process(make, fault: str):
    own = play(make_vector(config(fault, on_error="restart"), [0, 1]), 40)
    for row, other in zip(own, play(make(fault, 0, 1, on_error="restart"), 40), strict=True):
        for value, value_there in zip(row[:4], other[:4], strict=True):
            np.testing.assert_array_equal(value, value_there)
        assert str(row[4]) == str(other[4])


def test_only_so_often(make):
    with pytest.raises(
        EnvironmentFailed, match="died by the signal SIGKILL.*after 2 restarts.*env.max_restarts=2"
    ):
        play(make("die", 0, on_error="restart", max_restarts=2), 60)


def kill(envs, index: int) -> None:
    pid = envs.processes[index].pid
    os.kill(pid, signal.SIGKILL)
    while is_there(pid):
        time.sleep(0.01)


@pytest.mark.parametrize("steps", [3, 7])
def test_killed_between_steps(make, steps: int):
    """Noticed when its position is asked for.

    The next step ends its episode; the other environment's goes on.
    """
    envs, action = make(None, 0, 1, on_error="restart"), np.zeros((2, 1), np.int64)
    rows = play(envs, steps)
    ended = bool(rows[-1][2][0])  # the next step is a reset anyway
    kill(envs, 0)
    positions = envs.get_attr("position")
    assert positions[0] == (steps // 8 + 1, steps // 8, [])
    after = [envs.step(action) for _ in range(3)]
    failed = next(i for i, row in enumerate(after) if "failures" in row[4])
    assert failed == 0
    assert after[0][3].tolist() == [not ended, False]
    if not ended:
        np.testing.assert_array_equal(after[0][0][0], rows[-1][0][0])
    whole = play(make_vector(config(None), [0, 1]), steps + 3)
    for row, other in zip(after, whole[-3:], strict=True):
        np.testing.assert_array_equal(row[0][1], other[0][1])
    assert envs.get_attr("position")[0][:2] == (steps // 8 + 1, steps // 8 + 1)


def test_a_signal_to_all(make):
    """Slurm signals all of a job's processes; the parent still has to save their positions."""
    envs = make(None, 0)
    play(envs, 3)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        os.kill(envs.processes[0].pid, number)
    time.sleep(0.2)
    assert envs.get_attr("position") == ((0, 0, [[0]] * 3),)


def test_a_replay_may_take_long(make):
    """As many times as long as it has steps."""
    envs = make(None, 0)
    envs.set_attr("resume_from", [(0, 0, [[0]] * 6)])
    assert envs.parent_pipes[0]._patience == pytest.approx(7 * 0.5)
    envs.reset()
    assert envs.parent_pipes[0]._patience == 0.5


@pytest.mark.parametrize("terminate", [False, True])
def test_closing_one_that_hangs(make, tmp_path, terminate: bool):
    envs = make("hang", 0, 1, after=0)
    envs.reset()
    envs.step_async(np.zeros((2, 1), np.int64))
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
        with pytest.raises(BadInput, match="cannot be made .*OSError: its display is missing"):
            make_vector(EnvConfig(id="Elsewhere-v0", parallel=True), [0, 1])
    finally:
        del gymnasium.registry["Elsewhere-v0"]
