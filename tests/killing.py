"""A run that is killed again and again, against one that is not: python -m tests.killing kills=1000 seed=0

Each time the run goes on from its last checkpoint, or begins again where there is none yet. It kills itself by SIGKILL, at a
random call of what it does in a random stage; a kill in "checkpoint" falls before or after any sync, rename or removal of a save,
one in "start" of those before the first epoch, of a resumed run too.
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

from agent import checkpoint
from tests.equal import check_equal
from tests.scripts import commands
from tests.tiny import TINY, leave_out_films

# Stage -> how many of its calls there are in an epoch of SETTINGS, at least; of "start" two thirds of all.
STAGES = {"collect": 14, "update": 6, "evaluate": 18, "checkpoint": 40, "log": 2, "start": 6}
SETTINGS = (*TINY, "collect.epochs=1000000", "checkpoint_every=1", "evaluate_every=1", "logger=csv")
LONGEST = 1.5  # epochs from a start to the kill, so that most kills come after another checkpoint


def main(kills: int, seed: int, folder: Path) -> Counter[str]:
    """Kills a run in `folder` so many times and compares it with another -> how many kills there were in each stage."""
    rng, stages = random.Random(seed), Counter()
    epochs = int(kills * LONGEST) + 1
    arguments = (*SETTINGS, f"epochs={epochs}")
    run = folder / "killed"
    while stages.total() < kills:
        stage = rng.choice(list(STAGES))
        call = rng.randrange(1, int(STAGES[stage] * LONGEST) + 1)
        code, errors = start(goes_on(run, arguments), folder, (stage, call, rng.random() < 0.5))
        if code != -signal.SIGKILL:
            raise AssertionError(f"{stage} {call}: ended with {code} instead of being killed\n{errors}")
        stages[stage] += 1
    reached = checkpoint.load(run).epoch
    finish = f"epochs={reached + 1}"
    for arguments in (goes_on(run, (*SETTINGS, finish)), (*SETTINGS, finish, f"run={folder / 'whole'}")):
        code, errors = start((*arguments, finish), folder, None)
        if code != 0:
            raise AssertionError(errors)
    check_equal(folder / "whole", run)
    return stages


def goes_on(run: Path, arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments that start the run, or go on with it."""
    if checkpoint.newest(run) is not None:
        return (f"resume={run}",)
    if run.exists():
        shutil.rmtree(run)
    return (*arguments, f"run={run}")


def start(arguments: tuple[str, ...], cwd: Path, kill: tuple[str, int, bool] | None) -> tuple[int | None, str]:
    """The train command as a process that kills itself -> its exit code and what it wrote to stderr."""
    process = commands.forks.Process(target=_train, args=(arguments, str(cwd), kill))
    process.start()
    process.join()
    return process.exitcode, (cwd / "err").read_text()


def _train(arguments: tuple[str, ...], cwd: str, kill: tuple[str, int, bool] | None) -> None:
    leave_out_films(pytest.MonkeyPatch())
    if kill is not None:
        arm(*kill)
    commands._child("train", arguments, cwd, cwd, {}, memory=None)


def arm(stage: str, call: int, after: bool) -> None:
    """Have this process killed at that call, from now on, of what `stage` consists of."""
    from agent import collect, learner, logger, trainer

    left, within = [call], []

    def deadly(function: Callable[..., Any], where: str) -> Callable[..., Any]:
        def run(*arguments: Any, **others: Any) -> Any:
            here = (within or ["elsewhere"])[-1] == where
            left[0] -= here
            due = here and left[0] == 0  # what it calls counts too
            if due and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return function(*arguments, **others)
            finally:  # some find nothing to remove, and say so by an error
                if due:
                    os.kill(os.getpid(), signal.SIGKILL)

        return run

    def named(function: Callable[..., Any], where: str) -> Callable[..., Any]:
        def run(*arguments: Any, **others: Any) -> Any:
            within.append(where)
            try:
                return function(*arguments, **others)
            finally:
                within.pop()

        return run

    for name in ("collect", "learn", "evaluate", "save", "log"):
        setattr(trainer.Trainer, name, named(getattr(trainer.Trainer, name), name))
    if stage in ("collect", "evaluate"):
        collect.Player.step = deadly(collect.Player.step, stage)
    elif stage == "update":
        learner.Learner.update = deadly(learner.Learner.update, "learn")
    elif stage == "log":
        logger.Logger.log = deadly(logger.Logger.log, "log")
    else:
        for module, name in ((os, "fsync"), (os, "replace"), (os, "unlink"), (shutil, "rmtree")):
            setattr(module, name, deadly(getattr(module, name), "save" if stage == "checkpoint" else "elsewhere"))


if __name__ == "__main__":
    given = dict(argument.split("=") for argument in sys.argv[1:])
    with tempfile.TemporaryDirectory() as place:
        killed = main(int(given.get("kills", 20)), int(given.get("seed", 0)), Path(place))
    print(f"{killed.total()} kills survived, to the bit: {', '.join(f'{stage} {n}' for stage, n in sorted(killed.items()))}")
