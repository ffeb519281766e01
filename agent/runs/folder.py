"""A run's folder: where it is, whose it is, and what a run writes into it besides checkpoints."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from agent.config import TrainConfig
from agent.runs.cli import argument, trusted
from agent.storage import checkpoint, files
from agent.storage.files import FOLDERS
from envs.errors import BadInput
from envs.make import OF_A_CLASS

# What a run writes before its first checkpoint.
WRITTEN = ("README.txt", "config.yaml", "metrics.csv", "curves.png", "wandb_id.txt", *FOLDERS)
ALSO_WRITTEN = ("evaluation_*", "non_finite_*.safetensors", ".writing-*")
LOCK = ".lock"  # locked as long as a process trains there
CLAIM_SECONDS = 3  # the processes of environments may outlive a killed run by a moment
PACKAGES = [
    "deltadream",
    "torch",
    "numpy",
    "gymnasium",
    "crafter",
    "ale-py",
    "tensordict",
    "torchrl",
]


def wanted_folder(config: TrainConfig) -> Path:
    """Where a new run shall be.

    Raises:
        BadInput: something else is there.
    """
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = Path(config.run) if config.run else Path("runs") / config.experiment / now
    if config.run and folder.exists() and (not folder.is_dir() or contents(folder)):
        resume = ""
        if checkpoint.newest(folder) is not None:
            resume = f", or go on with {argument('resume', folder)}"
        raise BadInput(f"run={folder} exists already; choose another folder{resume}.")
    return folder


@contextlib.contextmanager
def made(wanted: Path, unique: bool) -> Iterator[Path]:
    """A new folder; parents that were made for it go again if it does.

    Args:
        wanted: its path.
        unique: whether it must not exist; then <wanted>-2, <wanted>-3, … are tried.

    Raises:
        BadInput: it cannot be made.
    """
    missing = [parent for parent in wanted.parents if not parent.exists()]
    try:
        yield _make(wanted, unique)
    finally:
        for parent in missing:
            with contextlib.suppress(OSError):  # the run has left something
                parent.rmdir()


def _make(wanted: Path, unique: bool) -> Path:
    others = (f"{wanted.name}-{i}" for i in itertools.count(2))
    for folder in map(wanted.with_name, itertools.chain([wanted.name], others)):
        try:
            folder.mkdir(parents=True, exist_ok=not unique)
            return folder
        except FileExistsError as error:
            if not unique or not folder.is_dir():
                raise BadInput(
                    f"{folder} cannot be made: something else lies there; choose another "
                    "run=<folder>."
                ) from error
        except OSError as error:
            raise BadInput(
                f"{folder} cannot be made ({error.strerror}); choose another run=<folder>."
            ) from error
    raise AssertionError


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Nobody else trains in the folder meanwhile; claims of one process may be nested.

    Raises:
        BadInput: another process trains there, or the folder cannot be locked.
    """
    lock = FileLock(folder / LOCK, is_singleton=True)
    try:
        lock.acquire(timeout=CLAIM_SECONDS)
    except Timeout as error:
        # Where a file system has no locks, a file stands for one, and outlives a lost machine.
        gone = ""
        if pid := getattr(lock, "pid", None):
            gone = f"; if process {pid} is no more, nor its machine, take {folder / LOCK} away"
        raise BadInput(
            f"In {folder} another process trains already; let it finish or stop it, or choose "
            f"another folder{gone}."
        ) from error
    except (OSError, NotImplementedError) as error:  # read only, say
        what = getattr(error, "strerror", None) or error
        raise BadInput(
            f"{folder / LOCK} cannot be locked ({what}); take away what lies there, or go on in a "
            "copy that can be written to."
        ) from error
    try:
        yield
    finally:
        lock.release()
        if not lock.is_locked and not contents(folder):
            shutil.rmtree(folder)


def contents(folder: Path) -> list[Path]:
    """What is in a folder besides its lock."""
    return [path for path in folder.iterdir() if path.name != LOCK]


def clear(folder: Path) -> None:
    """Remove what a run wrote that learned nothing."""
    found = [folder / name for name in WRITTEN]
    found += [path for pattern in ALSO_WRITTEN for path in folder.glob(pattern)]
    for leftover in found:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def give_up(folder: Path, epoch: int) -> None:
    """Remove evaluations and films of later epochs: a run goes on from before them."""
    for path in [*folder.glob("evaluation_*"), *(folder / "films").glob("*")]:
        found = re.search(r"epoch_(\d+)", path.name)
        if found and int(found[1]) > epoch and not path.is_dir():
            path.unlink()


def check_places(folder: Path) -> None:
    """Raises BadInput if something else is where a run that goes on will write."""
    for path in (folder / name for name in WRITTEN):
        if path.exists() and path.is_dir() != (path.name in FOLDERS):
            kind = "folder" if path.name in FOLDERS else "file"
            raise BadInput(f"{path} is no {kind}; take it away, or put back what was there.")


def describe(folder: Path, config: TrainConfig) -> None:
    """Write what a person who finds the folder wants to know: README.txt and config.yaml."""
    settings = OmegaConf.to_yaml(OmegaConf.structured(config))
    files.write(folder / "config.yaml", settings.encode())
    train, evaluate = "python scripts/train.py", "python scripts/evaluate.py"
    here = "<this folder>"
    go_on = proposed(config, f"{train} resume={here}", f"deltadream.train(…, 'resume={here}')")
    play = proposed(config, f"{evaluate} run={here}", f"deltadream.evaluate('{here}')")
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = [
        f"A run of deltadream, experiment={config.experiment}, seed={config.seed}.",
        "config.yaml: every setting (edits are not read). metrics.csv, curves.png, tensorboard/: "
        "its",
        "curves. films/: episodes and dreams. evaluation_….json: episodes of the finished agent, "
        "return by return,",
        "and their protocol. checkpoints/: networks, optimizers, random states; replay/: the steps",
        "that were played.",
        f"Go on:    {go_on}",
        f"Evaluate: {play}",
        f"Python {platform.python_version()}, {versions}",
        f"Command: {shlex.join(sys.argv)}",
        "",
    ]
    # A folder's name may be no text.
    files.write(folder / "README.txt", "\n".join(lines).encode(errors="surrogateescape"))


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
