"""A run that is killed again and again, against one that is not: python -m tests.killing kills=1000

Each time the run goes on from its last checkpoint, or begins again where there is none yet. It
kills itself by SIGKILL, before or after a random call of a random kind.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.storage import checkpoint
from tests.equal import check_equal
from tests.scripts import commands
from tests.tiny import TINY, leave_out_films

# What is called -> how often in an epoch of SETTINGS, at least.
CALLS = {"play": 32, "update": 6, "disk": 50, "log": 3}
SETTINGS = (*TINY, "collect.epochs=1000000", "checkpoint_every=1", "evaluate_every=1", "logger=csv")
LONGEST = 1.5  # epochs from a start to the kill, so that most kills come after another checkpoint

Kill = tuple[str, int, bool]  # what is called, which call, whether after it


def main(kills: int, seed: int, folder: Path) -> Counter[str]:
    """Kills a run in `folder` and compares it with another -> number of kills of each kind."""
    rng, counts = random.Random(seed), Counter()
    run, whole = folder / "killed", folder / "whole"
    while counts.total() < kills:
        what = rng.choice(list(CALLS))
        kill = (what, rng.randrange(1, int(CALLS[what] * LONGEST) + 1), rng.random() < 0.5)
        code, errors = start(goes_on(run, int(kills * LONGEST) + 1), folder, kill)
        assert code == -signal.SIGKILL, (kill, code, errors)
        counts[what] += 1
    reached = checkpoint.newest(run)
    epochs = (checkpoint.load(run).epoch if reached else 0) + 1
    for place in (run, whole):
        code, errors = start((*goes_on(place, epochs), f"epochs={epochs}"), folder, None)
        assert code == 0, errors
    check_equal(whole, run)
    return counts


def goes_on(run: Path, epochs: int) -> tuple[str, ...]:
    """The arguments that start the run, or go on with it."""
    if checkpoint.newest(run) is not None:
        return (f"resume={run}",)
    shutil.rmtree(run, ignore_errors=True)
    return (*SETTINGS, f"run={run}", f"epochs={epochs}")


def start(arguments: tuple[str, ...], cwd: Path, kill: Kill | None) -> tuple[int | None, str]:
    """The train command as a process that kills itself -> its exit code and its errors."""
    process = commands.forks.Process(target=_train, args=(arguments, str(cwd), kill))
    process.start()
    process.join()
    return process.exitcode, (cwd / "err").read_text()


def _train(arguments: tuple[str, ...], cwd: str, kill: Kill | None) -> None:
    leave_out_films(pytest.MonkeyPatch())
    if kill is not None:
        arm(*kill)
    commands._child("train", arguments, cwd, cwd, {}, memory=None)


def arm(what: str, call: int, after: bool) -> None:
    """Have this process killed at that call, from now on."""
    from agent.data.collect import Player
    from agent.training.learner import Learner
    from agent.training.logger import Logger

    left = [call]

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **others: Any) -> Any:
            left[0] -= 1
            due = left[0] == 0  # what it calls counts too
            if due and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return function(*arguments, **others)
            finally:  # some find nothing to remove, and say so by an error
                if due:
                    os.kill(os.getpid(), signal.SIGKILL)

        return run

    calls = {
        "play": [(Player, "step")],
        "update": [(Learner, "update")],
        "disk": [(os, "fsync"), (os, "replace"), (os, "unlink"), (shutil, "rmtree")],
        "log": [(Logger, "log")],
    }
    for holder, name in calls[what]:
        setattr(holder, name, deadly(getattr(holder, name)))


if __name__ == "__main__":
    given = dict(argument.split("=") for argument in sys.argv[1:])
    with tempfile.TemporaryDirectory() as place:
        killed = main(int(given.get("kills", 20)), int(given.get("seed", 0)), Path(place))
    print(f"{killed.total()} kills survived, to the bit: {dict(killed)}")
