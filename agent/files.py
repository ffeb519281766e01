"""Files of a run: read as data that anybody may have written, and written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from envs.errors import BadInput

FULL = (errno.ENOSPC, errno.EDQUOT)  # no space, or no more of one's share of it
_PROBE = 1 << 20  # bytes
FOLDERS = ("checkpoints", "films", "replay", "tensorboard", "wandb")  # that a run writes into


class Unfit(ValueError):
    """A file that is not read; the message goes behind its name: "is a link that leads out of …"."""


@contextlib.contextmanager
def opened(path: Path, root: Path, most: int | None = None) -> Iterator[BinaryIO]:
    """A regular file in the folder `root`, to be read. Raises Unfit, before anything is read if it is none or has more than
    `most` bytes.

    A link may lead to another place in `root`. A pipe or a device is not waited for.
    """
    try:
        real = path.resolve()
        if not real.is_relative_to(root.resolve()):
            raise Unfit(f"is a link that leads out of {root}")
        if not real.exists():
            raise Unfit("is missing")
        with contextlib.ExitStack() as stack:
            # Opening a pipe would wait for somebody who writes.
            descriptor = os.open(real, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
            stack.callback(os.close, descriptor)
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise Unfit("is not a regular file")
            if most is not None and about.st_size > most:
                raise Unfit(f"has {about.st_size:,} bytes, more than the {most:,} that are read")
            yield stack.enter_context(open(descriptor, "rb", closefd=False))
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise Unfit(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error


def read(path: Path, root: Path, most: int) -> bytes:
    """The bytes of a file that can be `opened`."""
    with opened(path, root, most) as file:
        return file.read(os.fstat(file.fileno()).st_size)  # not what is appended meanwhile


def check_inside(run: Path) -> None:
    """Raises BadInput if something in the folder leads out of it, or is neither file nor folder: whoever goes on with a
    run writes to its files. What Weights & Biases keeps in `wandb` is its own, and links to its cache."""
    root = run.resolve()

    def refuse(path: Path, what: str) -> None:
        raise BadInput(f"{path} {what}; take it away, or put back what was there.")

    for place, folders, files in os.walk(run):
        for path in (Path(place) / name for name in (*folders, *files)):
            try:
                mode = path.lstat().st_mode
                if stat.S_ISLNK(mode) and not path.resolve().is_relative_to(root):
                    refuse(path, f"is a link that leads out of {run}")
            except (OSError, RuntimeError):  # a loop of links, or gone by now
                refuse(path, "cannot be followed")
            if not (stat.S_ISLNK(mode) or stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                refuse(path, "is neither a file nor a folder")
        if Path(place) == run and "wandb" in folders:
            folders.remove("wandb")


def check_leads_nowhere(path: Path, root: Path) -> None:
    """Raises BadInput if a place in the folder `root`, where something is to be written, is a link that leads out of it."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise BadInput(f"{path} is a link that leads out of {root}; take it away, or name the output.")


def write(path: Path, data: bytes) -> None:
    """Writes a file beside its place, then renames it: what lies there stays until the new one is whole.

    A link of that name is replaced, not followed. An OSError says which file it is about.
    """
    beside = path.with_name(f".writing-{path.name}")
    with naming(path):
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        try:
            write_new(beside, data)
            os.replace(beside, path)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise


def write_new(path: Path, data: bytes) -> None:
    """Writes a file to the disk, not only to the system's memory. What lies there is replaced, links not followed."""
    with naming(path):
        path.unlink(missing_ok=True)
        with open(path, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def naming(path: Path):
    """An OSError from within says which file it is about: one that a write raises does not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def check_room(path: Path) -> None:
    """Raises the OSError that says why nothing more can be written beside `path`, if nothing can."""
    probe = path.with_name(f".writing-probe-{path.name}")
    try:
        with naming(path):
            write_new(probe, bytes(_PROBE))
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def disk_full(error: BaseException) -> OSError | None:
    """The error of a full disk or quota behind an error, if there is one."""
    seen: BaseException | None = error
    for _ in range(20):  # a chain of causes may be a ring
        if seen is None or (isinstance(seen, OSError) and seen.errno in FULL):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def sentence_of(error: OSError) -> str:
    """What a full disk means, as the beginning of a sentence."""
    what = "the disk is full" if error.errno == errno.ENOSPC else "the quota of the disk is used up"
    return f"{what}, {error.filename or 'a file'} could not be written"
