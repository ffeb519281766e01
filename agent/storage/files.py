"""Files that are written whole or not at all, and what a full disk means."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

FULL = (errno.ENOSPC, errno.EDQUOT)  # no space, or no more of one's share of it
FOLDERS = ("checkpoints", "films", "replay", "tensorboard", "wandb")  # that a run writes into


def read_config(run: Path) -> dict[str, Any]:
    """What the config.yaml in a run's folder holds.

    Raises:
        OSError, ValueError, yaml.YAMLError: it cannot be read, or holds no settings.
    """
    try:
        config = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    except OmegaConfBaseException as error:
        raise ValueError(error) from error
    if not isinstance(config, dict):
        raise ValueError("it holds no settings")
    return {str(key): value for key, value in config.items()}


def write(path: Path, data: bytes) -> None:
    """Write a file beside its place, then rename it, so that `path` is never half-written."""
    beside = path.with_name(f".writing-{path.name}")
    try:
        write_new(beside, data)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def write_new(path: Path, data: bytes) -> None:
    """Write a file to the disk, not only to the system's memory."""
    try:
        with open(path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = str(path)  # an error of a write does not name it
        raise


def disk_full(error: BaseException | None) -> OSError | None:
    """The error of a full disk or quota behind an error, if there is one."""
    while error is not None and not (isinstance(error, OSError) and error.errno in FULL):
        error = error.__cause__ or error.__context__
    return error


def sentence_of(error: OSError) -> str:
    """What a full disk means, as the beginning of a sentence."""
    what = "the disk is full" if error.errno == errno.ENOSPC else "the quota of the disk is used up"
    return f"{what}, {error.filename or 'a file'} could not be written"
