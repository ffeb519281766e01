"""Files that are written whole or not at all, and what a full disk means."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

FULL = (errno.ENOSPC, errno.EDQUOT)  # no space, or no more of one's share of it
FOLDERS = ("checkpoints", "films", "replay", "tensorboard", "wandb")  # that a run writes into


def read_config(run: Path) -> dict[str, Any]:
    """What the config.yaml in a run's folder holds.

    Raises:
        ValueError, yaml.YAMLError: it cannot be read, or holds no settings.
    """
    try:
        config = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    except (OSError, OmegaConfBaseException) as error:
        raise ValueError(getattr(error, "strerror", None) or error) from error
    if not isinstance(config, dict):
        raise ValueError("it holds no settings")
    return {str(key): value for key, value in config.items()}


def write(path: Path, data: bytes) -> None:
    """Write a file beside its place, then rename it, so that `path` is never half-written."""
    beside = path.with_name(f".writing-{path.name}")
    with naming(path):
        try:
            write_new(beside, data)
            os.replace(beside, path)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise


def write_new(path: Path, data: bytes) -> None:
    """Write a file to the disk, not only to the system's memory. What lies there is replaced."""
    with naming(path):
        path.unlink(missing_ok=True)
        with open(path, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an OSError from within say which file it is about; one that a write raises does not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def check_room(path: Path) -> None:
    """Raises the OSError that says why nothing can be written beside `path`, if nothing can."""
    probe = path.with_name(f".probe-{path.name}")
    try:
        write(probe, bytes(2**20))
    finally:
        probe.unlink(missing_ok=True)


def disk_full(error: BaseException | None) -> OSError | None:
    """The error of a full disk or quota behind an error, if there is one."""
    for _ in range(20):  # a chain of causes may be a ring
        if error is None or (isinstance(error, OSError) and error.errno in FULL):
            return error
        error = error.__cause__ or error.__context__
    return None


def sentence_of(error: OSError) -> str:
    """What a full disk means, as the beginning of a sentence."""
    what = "the disk is full" if error.errno == errno.ENOSPC else "the quota of the disk is used up"
    return f"{what}, {error.filename or 'a file'} could not be written"
