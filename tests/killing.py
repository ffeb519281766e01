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

from agent.data.collect import Player
from agent.runs.api import configure
from agent.runs.train import train
from agent.storage import checkpoint
from agent.training.learner import Learner
from agent.training.logger import Csv
from tests.equal import check_equal
from tests.scripts.commands import forks
from tests.tiny import TINY, leave_out_films

# Kind -> what is called, and how often in an epoch of SETTINGS, at least.
DISK = [(os, "fsync"), (os, "replace"), (os, "unlink"), (shutil, "rmtree")]
CALLS: dict[str, tuple[list[tuple[Any, str]], int]] = {
    "play": ([(Player, "step")], 32),
    "update": ([(Learner, "update")], 6),
    "disk": (DISK, 50),
    "log": ([(Csv, "log")], 3),
}
SETTINGS = (*TINY, "collect.epochs=1000000", "checkpoint_every=1", "evaluate_every=1", "logger=csv")
LONGEST = 1.5  # epochs from a start to the kill, so that most kills come after another checkpoint

Kill = tuple[str, int, bool]  # a kind, which call of it, whether after it


def main(kills: int, seed: int, folder: Path) -> Counter[str]:
    """Kills a run in `folder` and compares it with another -> number of kills of each kind."""
    rng, counts = random.Random(seed), Counter()
    run, whole = folder / "killed", folder / "whole"
    while counts.total() < kills:
        kind = rng.choice(list(CALLS))
        kill = (kind, rng.randrange(1, int(CALLS[kind][1] * LONGEST) + 1), rng.random() < 0.5)
        assert start(run, int(kills * LONGEST) + 1, kill) == -signal.SIGKILL, kill
        counts[kind] += 1
    epochs = (checkpoint.load(run).epoch if checkpoint.newest(run) else 0) + 1
    for place in (run, whole):
        assert start(place, epochs, None) == 0
    check_equal(whole, run)
    return counts


def start(run: Path, epochs: int, kill: Kill | None) -> int | None:
    """A process that starts the run or goes on with it, and kills itself -> its exit code."""
    goes_on = checkpoint.newest(run) is not None
    if not goes_on:
        shutil.rmtree(run, ignore_errors=True)
    arguments = (f"resume={run}",) if goes_on else (*SETTINGS, f"run={run}")
    process = forks.Process(target=_train, args=((*arguments, f"epochs={epochs}"), kill))
    process.start()
    process.join()
    return process.exitcode


def _train(arguments: tuple[str, ...], kill: Kill | None) -> None:
    leave_out_films(pytest.MonkeyPatch())
    if kill is not None:
        kind, call, after = kill
        left = [call]
        for holder, name in CALLS[kind][0]:
            setattr(holder, name, deadly(getattr(holder, name), left, after))
    train(configure(*arguments), list(arguments))


def deadly(function: Callable[..., Any], left: list[int], after: bool) -> Callable[..., Any]:
    """The function, which kills this process before or after its call number left[0]."""

    def run(*arguments: Any, **others: Any) -> Any:
        left[0] -= 1
        due = left[0] == 0  # what it calls counts too
        if due and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return function(*arguments, **others)
        finally:  # some find nothing to remove, and raise
            if due:
                os.kill(os.getpid(), signal.SIGKILL)

    return run


if __name__ == "__main__":
    given = dict(argument.split("=") for argument in sys.argv[1:])
    with tempfile.TemporaryDirectory() as place:
        killed = main(int(given.get("kills", 20)), int(given.get("seed", 0)), Path(place))
    print(f"{killed.total()} kills survived, to the bit: {dict(killed)}")
