"""Checkpoints: written whole or not at all, and read only as they were written.

    run/checkpoints/epoch_000010/<name>.safetensors   one file per network, optimizer, ...
                                 state.json           everything that is not a tensor
                                 manifest.json        SHA-256 of every file, and of itself
                    epoch_000010_paused/              of a run that was stopped within epoch 11
    run/replay/steps_<first>_<last>_<digest>.safetensors   rows of the replay

Rows of the replay are written once and shared by all checkpoints. A run that is resumed from an
older checkpoint writes new rows beside those that it abandons: file names hold a digest.

Nothing here runs code from a file: safetensors and JSON, no pickle. One process saves to a run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.storage.files import write, write_new
from envs.errors import BadInput

if TYPE_CHECKING:  # here and below: what reads no tensors does not wait for torch
    from torch import Tensor

FORMAT = "deltadream checkpoint 3"
_FOLDER = re.compile(r"(?:\.replaced-)?epoch_([0-9]+)(_paused)?")


class Damaged(BadInput):
    """A file of a checkpoint is not as it was written."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path} {what}; restore it from a copy, or give an earlier checkpoint.")


class ChunkRecord(NamedTuple):
    """A file of replay rows: those of the vector environment's steps first <= step < last."""

    path: str
    size: int
    sha256: str
    first: int
    last: int


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: its folder, its run's (`run_of`), and what `save` was given.

    Attributes:
        digests: name of a file -> SHA-256 in hexadecimal.
    """

    folder: Path
    run: Path
    paused: bool
    epoch: int
    digests: dict[str, str]
    state: dict[str, Any]
    chunks: tuple[ChunkRecord, ...]

    @cached_property
    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Name -> tensors, read and verified when they are first asked for."""
        return {
            name.removesuffix(".safetensors"): read_tensors(self.folder / name, digest)
            for name, digest in self.digests.items()
            if name != "state.json"
        }

    def rows(self, chunk: ChunkRecord) -> dict[str, Tensor]:
        """The columns of a file of replay rows, verified."""
        return read_tensors(self.run / chunk.path, chunk.sha256)

    def verify(self) -> None:
        """Read every file that the run needs to go on. Raises Damaged."""
        for name, digest in self.digests.items():
            read(self.folder / name, digest)
        for chunk in self.chunks:
            read(self.run / chunk.path, chunk.sha256)


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
        chunks: all rows of the replay, from `append_rows` and `Checkpoint.chunks`.
        keep: how many checkpoints remain, this one included, besides that of epoch `best`.
        best: epoch of a checkpoint that stays.
        paused: whether the run stands within the epoch that follows. Such a checkpoint does not
            count for `keep`, and is removed when the next one is written.

    Returns:
        The checkpoint's folder.
    """
    home = run / "checkpoints"
    home.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(run)
    folder = folder_of(run, epoch, paused)
    writing = home / f".writing-{folder.name}"
    digests = {}
    try:
        writing.mkdir()
        for name, entry in tensors.items():
            file = f"{name}.safetensors"
            digests[file] = _write(writing / file, _serialise(entry))
        text = json.dumps(dict(state), separators=(",", ":"), sort_keys=True)
        digests["state.json"] = _write(writing / "state.json", text.encode())
        manifest = {
            "format": FORMAT,
            "versions": {name: version(name) for name in ("deltadream", "torch", "safetensors")},
            "epoch": epoch,
            "files": digests,
            "chunks": [chunk._asdict() for chunk in chunks],
        }
        _write(writing / "manifest.json", _signed(manifest))
        _sync(writing)
    except OSError:  # a full disk has room again for who has to look after it
        shutil.rmtree(writing, ignore_errors=True)
        raise

    # A folder cannot be renamed onto another. The old one steps aside first, and counts as the
    # checkpoint until the new one is in place (see _folders and _remove_leftovers).
    aside = home / f".replaced-{folder.name}"
    if folder.exists():
        os.replace(folder, aside)
    os.replace(writing, folder)
    _sync(home, run)
    if aside.exists():
        shutil.rmtree(aside)
    _remove_old(run, epoch, keep, best, paused)
    return folder


def append_rows(run: Path, first: int, last: int, tensors: Mapping[str, Tensor]) -> ChunkRecord:
    """Write rows of vector steps first <= step < last; `save` keeps them if given the record."""
    data = _serialise(tensors)
    digest = _sha256(data)
    path = f"replay/steps_{first:09d}_{last:09d}_{digest[:16]}.safetensors"
    (run / "replay").mkdir(parents=True, exist_ok=True)
    write(run / path, data)
    _sync(run / "replay", run)
    return ChunkRecord(path, len(data), digest, first, last)


def _write(path: Path, data: bytes) -> str:
    """Write a file -> its SHA-256."""
    write_new(path, data)
    return _sha256(data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _serialise(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of a safetensors file."""
    import safetensors.torch
    import torch

    # clone: safetensors refuses views of a shared storage, and a view would be stored with holes
    own = {
        name: t.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, t in tensors.items()
    }
    return safetensors.torch.save(own)


def _signed(manifest: dict[str, Any]) -> bytes:
    """The bytes of a manifest, with the SHA-256 of all else in it."""
    digest = _sha256(json.dumps(manifest, sort_keys=True).encode())
    return (json.dumps(manifest | {"digest": digest}, indent=1, sort_keys=True) + "\n").encode()


def _sync(*folders: Path) -> None:
    """Have the names in these folders on the disk, too."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
            needed |= {chunk["path"] for chunk in _read_manifest(folder)["chunks"]}
        except BadInput:
            return  # what a damaged checkpoint needs is unknown: rather keep too much
    for path in (run / "replay").glob("steps_*"):
        if f"replay/{path.name}" not in needed:
            path.unlink()


def load(path: Path) -> Checkpoint:
    """The checkpoint in `path`, or the newest of the run in `path`.

    Manifest and state are read, and verified; tensors when they are asked for.

    Raises:
        BadInput: there is none, a file is missing or changed, or the format is another.
    """
    folder = candidates(path)[0]
    manifest = _read_manifest(folder)
    digests = manifest["files"]
    return Checkpoint(
        folder,
        run_of(folder),
        folder.name.endswith("_paused"),
        manifest["epoch"],
        digests,
        json.loads(read(folder / "state.json", digests["state.json"])),
        tuple(ChunkRecord(**chunk) for chunk in manifest["chunks"]),
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    data = read(path)
    try:
        manifest = json.loads(data)
        format = manifest["format"]
        manifest.pop("digest", None)
    except (ValueError, LookupError, TypeError) as error:
        raise Damaged(path, "does not describe a checkpoint") from error
    if format != FORMAT:
        raise BadInput(
            f"{path} is a {format!r}, and this version reads a {FORMAT!r}; use the version that "
            "wrote it, or train again."
        )
    if data != _signed(manifest):
        raise Damaged(path, "was changed after it was written")
    return manifest


def read(path: Path, digest: str | None = None) -> bytes:
    """The bytes of a file. Raises Damaged if there are none, or their SHA-256 is another."""
    try:
        data = path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        what = "is missing" if missing else f"cannot be read ({error.strerror})"
        raise Damaged(path, what) from error
    if digest not in (None, _sha256(data)):
        raise Damaged(path, "was changed after it was written")
    return data


def read_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, verified as by `read`."""
    import safetensors.torch

    return safetensors.torch.load(read(path, digest))


def folder_of(run: Path, epoch: int, paused: bool = False) -> Path:
    """Where the checkpoint after so many epochs lies."""
    return run / "checkpoints" / (f"epoch_{epoch:06d}" + "_paused" * paused)


def run_of(folder: Path) -> Path:
    """The run of a checkpoint; the folder that it lies in, if it was copied out of its run."""
    return folder.parent.parent if folder.parent.name == "checkpoints" else folder.parent


def newest(run: Path) -> Path | None:
    """The folder of the run's latest checkpoint, None if there is none yet."""
    return max(_folders(run).items(), default=(None, None))[1]


def candidates(path: Path) -> list[Path]:
    """The checkpoint that `path` means (see `load`), then those before it, newest first.

    Raises:
        BadInput: there is none.
    """
    path = path.resolve()
    is_checkpoint = (path / "manifest.json").exists() or _FOLDER.fullmatch(path.name)
    folders = _folders(run_of(path) if is_checkpoint else path)
    found = [folder for _, folder in sorted(folders.items(), reverse=True)]
    if is_checkpoint:
        return found[found.index(path) :] if path in found else [path]
    if not found:
        raise BadInput(
            f"{path} holds no checkpoint; give a run's folder (it holds checkpoints/epoch_...) or "
            "a checkpoint's (it holds manifest.json)."
        )
    return found


def _folders(run: Path) -> dict[tuple[int, bool], Path]:
    """(epoch, whether paused within the next) -> folder.

    One that stepped aside counts where its successor never arrived.
    """
    home = run / "checkpoints"
    paths = sorted(home.iterdir()) if home.is_dir() else []  # "." sorts before "e"
    found = [(match, path) for path in paths if (match := _FOLDER.fullmatch(path.name))]
    return {(int(match[1]), bool(match[2])): path for match, path in found}
