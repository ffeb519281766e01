"""Checkpoints: written whole or not at all, verified to the last byte before anything is used.

    run/checkpoints/epoch_000010/<name>.safetensors   one file per network, optimizer, ...
                                 state.json           everything that is not a tensor
                                 manifest.json        size and SHA-256 of every file, and of itself
                    epoch_000010_paused/              of a run that was stopped within epoch 11
    run/replay/steps_<first>_<last>_<digest>.safetensors   rows of the replay

Rows of the replay are written once and shared by all checkpoints: saving costs the new rows only.
The name of such a file holds the start of its SHA-256, so a run that is resumed from an older
checkpoint writes beside the rows that it abandons, never over them.

Nothing here runs code from a file: safetensors and JSON, no pickle. One process saves to a run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.storage.files import naming
from agent.storage.verified import (
    ChunkRecord,
    Damaged,
    check_size,
    read,
    read_manifest,
    read_tensors,
    reading,
    serialise,
    sync_folders,
    write,
    write_manifest,
)
from envs.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

_FOLDER = re.compile(r"(?:\.replaced-)?epoch_([0-9]+)(_paused)?")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: its folder, its run's (`run_of`), and what `save` was given."""

    folder: Path
    run: Path
    paused: bool
    epoch: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    chunks: tuple[ChunkRecord, ...]


def save(
    run: Path,
    epoch: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    chunks: Iterable[ChunkRecord] = (),
    *,
    keep: int,
    best: int | None = None,
    paused: bool = False,
) -> Path:
    """Write a checkpoint. Those of later epochs are removed: the run has abandoned them.

    A crash anywhere leaves the old or the new checkpoint whole. The next save clears up what else
    it leaves.

    Args:
        run: folder of the run.
        epoch: number of epochs that are over.
        tensors: name -> tensors of any shape, dtype, device and layout.
        state: what JSON can hold; tuples come back as lists, keys as strings.
        chunks: all rows of the replay to be restored with it, from `append_rows` and
            `Checkpoint.chunks`.
        keep: how many checkpoints remain, this one included, besides that of epoch `best`.
        best: epoch of a checkpoint that stays.
        paused: whether the run stands within the epoch that follows. Then the checkpoint does not
            count for `keep`, and it goes when the next one is written.

    Returns:
        The checkpoint's folder.
    """
    chunks = tuple(chunks)
    for chunk in chunks:
        check_size(run, chunk)
    home = run / "checkpoints"
    home.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(run)

    folder = folder_of(run, epoch, paused)
    writing = home / f".writing-{folder.name}"
    with naming(writing):
        writing.mkdir()
    try:
        _write_all(writing, epoch, tensors, state, chunks)
    except OSError:  # a full disk has room again for who has to look after it
        shutil.rmtree(writing, ignore_errors=True)
        raise

    # A folder cannot be renamed onto another. The old one steps aside first, and counts as the
    # checkpoint until the new one is in place (see _folders and _remove_leftovers).
    aside = home / f".replaced-{folder.name}"
    if folder.exists():
        os.replace(folder, aside)
    os.replace(writing, folder)
    sync_folders(home, run)
    if aside.exists():
        shutil.rmtree(aside)
    _remove_old(run, epoch, keep, best, paused)
    return folder


def _write_all(
    writing: Path,
    epoch: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    chunks: tuple[ChunkRecord, ...],
) -> None:
    files = [
        write(writing, f"{name}.safetensors", serialise(entry)) for name, entry in tensors.items()
    ]
    text = json.dumps(dict(state), separators=(",", ":"), sort_keys=True) + "\n"
    files.append(write(writing, "state.json", text.encode()))
    write_manifest(writing, epoch, files, chunks)
    sync_folders(writing)


def append_rows(run: Path, first: int, last: int, tensors: Mapping[str, Tensor]) -> ChunkRecord:
    """Write rows of vector steps first <= step < last; `save` keeps them if given the record."""
    home = run / "replay"
    home.mkdir(parents=True, exist_ok=True)
    beside = home / f".writing-{first}"
    try:
        written = write(home, beside.name, serialise(tensors))
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    path = f"replay/steps_{first:09d}_{last:09d}_{written.sha256[:16]}.safetensors"
    os.replace(beside, run / path)
    sync_folders(home, run)
    return ChunkRecord(path, written.size, written.sha256, first, last)


def _remove_leftovers(run: Path) -> None:
    """Undo or finish what a crash interrupted."""
    home = run / "checkpoints"
    for aside in home.glob(".replaced-*"):
        successor = home / aside.name.removeprefix(".replaced-")
        shutil.rmtree(aside) if successor.exists() else os.replace(aside, successor)
    for leftover in [*home.glob(".writing-*"), *home.glob(".deleted-*")]:
        shutil.rmtree(leftover)
    for leftover in (run / "replay").glob(".writing-*"):
        leftover.unlink()


def _remove_old(run: Path, epoch: int, keep: int, best: int | None, paused: bool) -> None:
    folders = _folders(run)
    whole = sorted(place for place in folders if place[0] <= epoch and not place[1])
    kept = {*whole[-keep:], (best, False), (epoch, paused)}
    for place, folder in folders.items():
        if place not in kept:
            deleted = folder.with_name(f".deleted-{folder.name}")
            os.replace(folder, deleted)  # first: half of a folder must not look like a checkpoint
            shutil.rmtree(deleted)
    needed = set()
    for folder in _folders(run).values():
        try:
            needed |= {record.path for record in read_manifest(folder)[2]}
        except BadInput:
            return  # what a damaged checkpoint needs is unknown: rather keep too much
    for path in (run / "replay").glob("steps_*"):
        if f"replay/{path.name}" not in needed:
            path.unlink()


def folder_of(run: Path, epoch: int, paused: bool = False) -> Path:
    """Where the checkpoint after so many epochs lies."""
    return run / "checkpoints" / (f"epoch_{epoch:06d}" + "_paused" * paused)


def run_of(folder: Path) -> Path:
    """The run of a checkpoint; the folder that it lies in, if it was copied out of its run."""
    return folder.parent.parent if folder.parent.name == "checkpoints" else folder.parent


def newest(run: Path) -> Path | None:
    """The folder of the run's latest checkpoint, None if there is none yet."""
    return max(_folders(run).items(), default=(None, None))[1]


def load(path: Path, only: Collection[str] | None = None, rows: bool | None = None) -> Checkpoint:
    """Read and verify a checkpoint.

    Args:
        path: folder of a run, for its newest checkpoint, or of a checkpoint.
        only: names of the entries of `tensors` to read; None: all.
        rows: whether every file of replay rows must be there (`read_rows` verifies what it reads).
            If not, `chunks` is empty, as for evaluation. None: as `only` is None.

    Raises:
        BadInput: a file is missing, foreign, changed, cut short or of another format version. The
            sentence names it and the checkpoint to give instead.
    """
    folder = candidates(path)[0]
    try:
        return load_exactly(folder, only, rows)
    except Damaged as error:
        raise advised(error, folder) from error


def load_exactly(
    folder: Path, only: Collection[str] | None = None, rows: bool | None = None
) -> Checkpoint:
    """As `load`, of a checkpoint's folder. Raises Damaged if it is, and other BadInput."""
    run = run_of(folder)
    epoch, files, chunks = read_manifest(folder)
    entries = only
    if only is None:
        entries = [name.removesuffix(".safetensors") for name in files if name != "state.json"]
    if not (only is None if rows is None else rows):
        chunks = ()
    if chunks and run == folder.parent:
        raise BadInput(
            f"{folder} is a checkpoint without its run, whose replay has to be there to train on; "
            "copy the run's whole folder."
        )
    for record in chunks:
        check_size(run, record)
    tensors = {name: read_tensors(folder, files[f"{name}.safetensors"]) for name in entries}
    state = json.loads(read(folder, files["state.json"]))
    return Checkpoint(folder, run, folder.name.endswith("_paused"), epoch, tensors, state, chunks)


def read_rows(run: Path, chunk: ChunkRecord) -> dict[str, Tensor]:
    """The columns of a file of replay rows. Raises Damaged if it is not as it was written."""
    return read_tensors(run, chunk)


def verify_rows(saved: Checkpoint) -> None:
    """Raises Damaged if a file of the checkpoint's replay rows is not as it was written."""
    for chunk in saved.chunks:
        read(saved.run, chunk)


def advised(error: Damaged, folder: Path, how: str = "") -> Damaged:
    """The error, with the checkpoint to give instead of `folder`. how: another way to have it."""
    for other in earlier(folder):
        try:
            chunks = load_exactly(other, rows=True).chunks
        except BadInput:
            continue
        if error.path not in [run_of(folder) / chunk.path for chunk in chunks]:
            remedy = f"restore it from a copy, or give the checkpoint before it, {other}{how}"
            return Damaged(error.path, error.what, remedy)
    remedy = "restore it from a copy: there is no whole checkpoint before it"
    return Damaged(error.path, error.what, remedy)


def candidates(path: Path) -> list[Path]:
    """The checkpoint that `path` means, then those before it, newest first; see `load`.

    Raises:
        BadInput: there is none.
    """
    path = Path(path).resolve()
    with reading(path):
        if (path / "manifest.json").exists() or _FOLDER.fullmatch(path.name):
            return [path, *earlier(path)]
        folders = [folder for _, folder in sorted(_folders(path).items(), reverse=True)]
    if not folders:
        raise BadInput(
            f"{path} holds no checkpoint; give a run's folder (it holds checkpoints/epoch_...) or "
            "a checkpoint's (it holds manifest.json)."
        )
    return folders


def earlier(folder: Path) -> list[Path]:
    """The checkpoints of the same run that were written before `folder`, newest first."""
    match = _FOLDER.fullmatch(folder.name)
    found = sorted(_folders(run_of(folder)).items(), reverse=True) if match else []
    return [path for place, path in found if place < (int(match[1]), bool(match[2]))]


def _folders(run: Path) -> dict[tuple[int, bool], Path]:
    """(epoch, whether paused within the next) -> folder.

    One that stepped aside counts where its successor never arrived.
    """
    home = run / "checkpoints"
    paths = sorted(home.iterdir()) if home.is_dir() else []  # "." sorts before "e"
    found = [(match, path) for path in paths if (match := _FOLDER.fullmatch(path.name))]
    return {(int(match[1]), bool(match[2])): path for match, path in found}
