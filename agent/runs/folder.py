"""A run's folder: where it is, whose it is, and what a run writes into it besides checkpoints."""

from __future__ import annotations

import contextlib
import datetime
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from agent.config import TrainConfig
from agent.runs.cli import argument, trusted
from agent.storage import checkpoint, files
from envs.errors import BadInput, EnvironmentFailed
from envs.make import OF_A_CLASS

LOCK = ".lock"  # locked as long as a process trains there, and the mark of a run's folder
CLAIM_SECONDS = 3  # the processes of environments may outlive a killed run by a moment
README = """\
A run of deltadream, experiment={experiment}, seed={seed}.
config.yaml: every setting (edits are not read). metrics.csv, curves.png, tensorboard/: its curves.
films/: episodes and dreams. evaluation_….json: episodes of the finished agent, return by return,
and their protocol. checkpoints/: networks, optimizers, random states; replay/: the steps played.
Go on:    {go_on}
Evaluate: {evaluate}
Command:  {command}
"""


def wanted_folder(config: TrainConfig) -> Path:
    """Where a new run shall be: a folder that is new or empty, or of a run that saved nothing."""
    if not config.run:
        now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
        return Path("runs") / config.experiment / now
    folder = Path(config.run)
    saved = checkpoint.newest(folder) is not None
    if saved or folder.is_file() or (any(folder.glob("*")) and not (folder / LOCK).exists()):
        resume = f", or go on with {argument('resume', folder)}" if saved else ""
        raise BadInput(f"run={folder} exists already; choose another folder{resume}.")
    return folder


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Nobody else trains in the folder meanwhile. It is made, and removed if a run is refused."""
    missing = [parent for parent in folder.parents if not parent.exists()]
    is_new, lock = not folder.exists(), FileLock(folder / LOCK, timeout=CLAIM_SECONDS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise BadInput(
            f"In {folder} another process trains already; let it finish or stop it, or choose "
            "another folder."
        ) from error
    except OSError as error:
        raise BadInput(
            f"{folder} cannot be written to ({error.strerror}); choose another folder."
        ) from error
    try:
        yield
    except (BadInput, EnvironmentFailed):
        if is_new and checkpoint.newest(folder) is None:
            shutil.rmtree(folder)
            with contextlib.suppress(OSError):  # another run lies there by now
                for parent in missing:
                    parent.rmdir()
        raise
    finally:
        with contextlib.suppress(OSError):  # it is gone, or holds rows
            (folder / "replay").rmdir()
        lock.release()


def abandon(folder: Path, epoch: int) -> None:
    """Remove evaluations and films of later epochs: a run goes on from before them."""
    for path in [*folder.glob("evaluation_*"), *folder.glob("films/*")]:
        found = re.search(r"epoch_(\d+)", path.name)
        if found and int(found[1]) > epoch and not path.is_dir():
            path.unlink()


def describe(folder: Path, config: TrainConfig) -> None:
    """Write what a person who finds the folder wants to know: README.txt and config.yaml."""
    files.write(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.structured(config)).encode())
    here, python = "<this folder>", "python scripts"
    go_on = f"{python}/train.py resume={here}", f"deltadream.train(…, 'resume={here}')"
    evaluate = f"{python}/evaluate.py run={here}", f"deltadream.evaluate('{here}')"
    text = README.format(
        experiment=config.experiment,
        seed=config.seed,
        go_on=proposed(config, *go_on),
        evaluate=proposed(config, *evaluate),
        command=shlex.join(sys.argv),
    )
    files.write(folder / "README.txt", text.encode(errors="surrogateescape"))


def last_checkpoint(folder: Path, config: TrainConfig) -> str:
    """What is left of a run that stopped, for the end of a sentence."""
    last = checkpoint.newest(folder)
    if last is None:
        return "no checkpoint had been written"
    in_python = f"deltadream.train(…, {f'resume={folder}'!r})"
    resume = proposed(config, argument("resume", folder), in_python)
    return f"the last good checkpoint is {last} (go on with {resume})"


def proposed(config: TrainConfig, at_a_shell: str, in_python: str) -> str:
    """What to give for a run; a class made known by `register_env` is known in Python only."""
    if config.env.id.startswith(OF_A_CLASS):
        return in_python
    return " ".join([at_a_shell, *trusted(config.env.id)])
