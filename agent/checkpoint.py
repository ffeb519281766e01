"""Checkpoints: written whole or not at all, verified to the last byte before anything is used.

    run/checkpoints/epoch_000010/<name>.safetensors   one file per network, optimizer, ...
                                 state.json           everything that is not a tensor
                                 manifest.json        size and SHA-256 of every file, and of itself
                    epoch_000010_paused/              of a run that was stopped after ten epochs and a part
    run/replay/steps_<first>_<last>_<digest>.safetensors   rows of the replay

Rows of the replay are written once and shared by all checkpoints: saving costs the new rows only.
The name of such a file holds the start of its SHA-256, so a run that is resumed from an older
checkpoint writes beside the rows that it abandons, never over them.

Nothing here runs code from a file: safetensors and JSON, no pickle. One process saves to a run.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
import platform
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from agent.files import Unfit, naming, opened, write_new
from envs.errors import BadInput

FORMAT, FORMAT_VERSION, OLDEST_VERSION = "deltadream checkpoint", 1, 1  # versions from the oldest on are read
VERSIONS = {"deltadream": version("deltadream"), "torch": torch.__version__, "python": platform.python_version()}

# The only names a manifest may hold: no folder, no "..", nothing absolute.
_FILE = re.compile(r"[a-z][a-z0-9_]*\.safetensors|state\.json", re.ASCII)
_CHUNK = re.compile(r"replay/steps_[0-9]+_[0-9]+_[0-9a-f]{16}\.safetensors", re.ASCII)
_FOLDER = re.compile(r"(?:\.replaced-)?epoch_([0-9]+)(_paused)?", re.ASCII)

# Bytes that are read. JSON takes up to thirty times as much memory, and what it holds is not known before it is parsed.
MOST = {"manifest.json": 64 * 2**20, "state.json": 64 * 2**20}
MOST_HEADER = 4 * 2**20  # of a safetensors file: a hundred bytes for each tensor


class Damaged(BadInput):
    """A file of a checkpoint is not as it was written. path: of the file; what: goes behind it in the message"""

    def __init__(self, path: Path, what: str, remedy: str = "restore it from a copy, or give another checkpoint") -> None:
        super().__init__(f"{path} {what}; {remedy}.")
        self.path, self.what, self.remedy = path, what, remedy

    def __reduce__(self) -> tuple[Any, ...]:  # to the process that started this one, in a sweep
        return Damaged, (self.path, self.what, self.remedy)


@dataclass(frozen=True)
class FileRecord:
    """What a manifest says of one file: path, size in bytes, SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


_MANIFEST = FileRecord("manifest.json", -1, "")  # nothing is known of it beforehand; it vouches for itself


@dataclass(frozen=True)
class ChunkRecord(FileRecord):
    """A file of replay rows: those of the vector environment's steps first <= step < last."""

    first: int
    last: int


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint. `run` is the folder that the paths of `chunks` start from (`run_of`); paused: see `save`."""

    folder: Path
    run: Path
    paused: bool
    epoch: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    chunks: tuple[ChunkRecord, ...]


def save(
    run: Path, epoch: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any],
    chunks: Iterable[ChunkRecord] = (), *, keep: int, best: int | None = None, paused: bool = False,
) -> Path:
    """Write `run`/checkpoints/epoch_<epoch> and return it.

    tensors: name -> tensors of any shape, dtype, device and layout; names in a-z, 0-9, _
    state:   what JSON can hold; tuples come back as lists, keys as strings
    chunks:  all rows of the replay to be restored with it, from `append_rows` and `Checkpoint.chunks`
    keep:    how many checkpoints remain, this one included, besides that of epoch `best`
    paused:  whether the run stands within the epoch that follows: then the folder is epoch_<epoch>_paused, it does not
             count for `keep`, and it goes when the next checkpoint is written

    Checkpoints of later epochs are removed: a run resumed from an older one abandoned them. A crash
    anywhere leaves the old or the new checkpoint whole; the next save clears up what else it leaves.
    """
    if keep < 1 or not all(_FILE.fullmatch(f"{name}.safetensors") for name in tensors):
        raise ValueError(f"keep={keep} must be at least 1, and the names {list(tensors)} in a-z, 0-9 and _.")
    chunks = tuple(chunks)
    for chunk in chunks:
        _check_file(run, chunk)
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

    # A folder cannot be renamed onto another: the old one steps aside first, and counts as the
    # checkpoint as long as the new one is not in place (see _folders and _remove_leftovers).
    aside = home / f".replaced-{folder.name}"
    if folder.exists():
        os.replace(folder, aside)
    os.replace(writing, folder)
    _sync_folders(home, run)
    if aside.exists():
        shutil.rmtree(aside)
    _remove_old(run, epoch, keep, best, paused)
    return folder


def _write_all(
    writing: Path, epoch: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any],
    chunks: tuple[ChunkRecord, ...],
) -> None:  # fmt: skip
    """The files of a checkpoint into an empty folder."""
    files = [_write(writing, f"{name}.safetensors", _serialise(entry)) for name, entry in tensors.items()]
    files.append(_write(writing, "state.json", _compact(state)))
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": VERSIONS,
        "epoch": epoch,
        "files": [asdict(record) for record in files],
        "chunks": [asdict(record) for record in chunks],
    }
    content["digest"] = hashlib.sha256(_canonical(content)).hexdigest()
    _write(writing, "manifest.json", _canonical(content))
    _sync_folders(writing)


def append_rows(run: Path, first: int, last: int, tensors: Mapping[str, Tensor]) -> ChunkRecord:
    """Write rows of vector steps first <= step < last; `save` keeps them if it is given the record."""
    home = run / "replay"
    home.mkdir(parents=True, exist_ok=True)
    beside = home / f".writing-{first}"
    try:
        written = _write(home, beside.name, _serialise(tensors))
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    path = f"replay/steps_{first:09d}_{last:09d}_{written.sha256[:16]}.safetensors"
    os.replace(beside, run / path)
    _sync_folders(home, run)
    return ChunkRecord(path, written.size, written.sha256, first, last)


def _serialise(tensors: Mapping[str, Tensor]) -> bytes:
    # clone: safetensors refuses views of a shared storage, and a view would be stored with holes
    own = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    return safetensors.torch.save(own)


def _canonical(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode("ascii")


def _compact(content: Mapping[str, Any]) -> bytes:
    # The actions of long episodes are many small numbers.
    return (json.dumps(dict(content), separators=(",", ":"), sort_keys=True) + "\n").encode("ascii")


def _write(folder: Path, name: str, data: bytes) -> FileRecord:
    if len(data) > MOST.get(name, len(data)):
        raise BadInput(
            f"{folder / name} would have {len(data):,} bytes and at most {MOST[name]:,} are read back; play fewer environments "
            "(collect.num_envs) or shorter episodes."
        )
    write_new(folder / name, data)
    return FileRecord(name, len(data), hashlib.sha256(data).hexdigest())


def _sync_folders(*folders: Path) -> None:
    for folder in folders if os.name != "nt" else ():  # Windows cannot open a folder
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
            os.replace(folder, deleted)  # first: a folder half deleted must not look like a checkpoint
            shutil.rmtree(deleted)
    needed = set()
    for folder in _folders(run).values():
        try:
            needed |= {record.path for record in _read_manifest(folder)[2]}
        except BadInput:
            return  # What a damaged checkpoint needs is unknown: rather keep too much.
    for path in (run / "replay").glob("steps_*"):
        if f"replay/{path.name}" not in needed:
            path.unlink()


def folder_of(run: Path, epoch: int, paused: bool = False) -> Path:
    """Where the checkpoint after so many epochs lies."""
    return run / "checkpoints" / (f"epoch_{epoch:06d}" + "_paused" * paused)


def run_of(folder: Path) -> Path:
    """The run of a checkpoint; where it lies, if it was copied out of one."""
    return folder.parent.parent if folder.parent.name == "checkpoints" else folder.parent


def newest(run: Path) -> Path | None:
    """The folder of the run's latest checkpoint, None if there is none yet."""
    return max(_folders(run).items(), default=(None, None))[1]


def load(path: Path, only: Collection[str] | None = None, rows: bool | None = None) -> Checkpoint:
    """Read and verify a checkpoint: a run's newest if `path` is a run, else the one in folder `path`.

    only: these entries of `tensors` and the state; None: all
    rows: whether every file of replay rows must be there (`read_rows` verifies what it reads), or `chunks` is empty
          and they may be missing, as for evaluation; None: if `only` is None
    Raises BadInput, naming the file and the checkpoint to give instead, if anything is missing, foreign, changed, cut
    short or newer.
    """
    folder = candidates(path)[0]
    try:
        return load_exactly(folder, only, rows)
    except Damaged as error:
        raise advised(error, folder) from error


def load_exactly(folder: Path, only: Collection[str] | None = None, rows: bool | None = None) -> Checkpoint:
    """As `load`, of a checkpoint's folder. Raises Damaged if it is, and other BadInput."""
    run = run_of(folder)
    if not folder.resolve().is_relative_to(run.resolve()):
        raise Damaged(folder, f"is a link that leads out of {run}")
    epoch, files, chunks = _read_manifest(folder)
    entries = [name.removesuffix(".safetensors") for name in files if name != "state.json"]
    if missing := set(only or ()) - set(entries):
        raise BadInput(f"{folder} holds {entries} but not {sorted(missing)}; give another agent's checkpoint.")
    if only is not None:
        entries = [name for name in entries if name in only]
    if not (only is None if rows is None else rows):
        chunks = ()
    if chunks and run == folder.parent:
        raise BadInput(f"{folder} is a checkpoint without its run, whose replay has to be there to train on; copy the run's whole folder.")
    for record in chunks:
        _check_file(run, record)
    tensors = {name: _read_tensors(folder, files[f"{name}.safetensors"]) for name in entries}
    state = _parse(folder / "state.json", _read(folder, files["state.json"], MOST["state.json"]))
    return Checkpoint(folder, run, folder.name.endswith("_paused"), epoch, tensors, state, chunks)


def read_rows(run: Path, chunk: ChunkRecord) -> dict[str, Tensor]:
    """The tensors of one file of replay rows, verified; Damaged if it is not as it was written."""
    return _read_tensors(run, chunk)


def verify_rows(saved: Checkpoint) -> None:
    """Raises Damaged if a file of the checkpoint's replay rows is not as it was written."""
    for chunk in saved.chunks:
        _check_content(saved.run, chunk)


def advised(error: Damaged, folder: Path, how: str = "") -> Damaged:
    """The error, with the checkpoint to give instead of that in `folder`, if there is one. how: another way to have it"""
    for other in earlier(folder):
        try:
            _, files, chunks = _read_manifest(other)
            for record in files.values():
                _check_content(other, record)
            for record in chunks:
                _check_file(run_of(folder), record)
        except BadInput:
            continue
        if error.path not in [run_of(folder) / chunk.path for chunk in chunks]:
            return Damaged(error.path, error.what, f"restore it from a copy, or give the checkpoint before it, {other}{how}")
    return Damaged(error.path, error.what, "restore it from a copy: there is no whole checkpoint before it to be given")


def candidates(path: Path) -> list[Path]:
    """The checkpoint that is meant by the folder of a run, the newest, or by its own; then those before it, newest first.

    Raises BadInput if there is none.
    """
    path = Path(path)
    try:
        aside = path.with_name(f".replaced-{path.name}") if path.name else path
        path = (aside if aside.is_dir() and not path.exists() else path).resolve()
        if (path / "manifest.json").exists() or _FOLDER.fullmatch(path.name):
            return [path, *earlier(path)]
        folders = [folder for _, folder in sorted(_folders(path).items(), reverse=True)]
    except (OSError, RuntimeError) as error:  # no permission, a name too long, a loop of links
        raise Damaged(path, f"cannot be read ({error})") from error
    if not folders:
        accepted = "a run's folder (it holds checkpoints/epoch_...) or a checkpoint's (it holds manifest.json)"
        raise BadInput(f"{path} holds no checkpoint; give {accepted}.")
    return folders


def earlier(folder: Path) -> list[Path]:
    """The checkpoints of the same run that were written before the one in `folder`, newest first."""
    match = _FOLDER.fullmatch(folder.name)
    folders = _folders(run_of(folder)) if match else {}
    return [folders[place] for place in sorted(folders, reverse=True) if place < (int(match[1]), bool(match[2]))]


def _folders(run: Path) -> dict[tuple[int, bool], Path]:
    """(epoch, whether paused in the next) -> folder; one that stepped aside counts where its successor never arrived."""
    home = run / "checkpoints"
    paths = sorted(home.iterdir()) if home.is_dir() else []  # "." sorts before "e"
    return {(int(match[1]), bool(match[2])): path for path in paths if (match := _FOLDER.fullmatch(path.name))}


def _read_manifest(folder: Path) -> tuple[int, dict[str, FileRecord], tuple[ChunkRecord, ...]]:
    """(epoch, file name -> record, records of the replay's rows) of the checkpoint in `folder`."""
    path, raw = folder / "manifest.json", _read(folder, _MANIFEST, MOST["manifest.json"])
    content = _parse(path, raw)
    theirs, digest = content.get("format_version"), content.pop("digest", None)
    if content.get("format") != FORMAT or type(theirs) is not int:
        raise Damaged(path, f"does not describe a {FORMAT}")
    if theirs < OLDEST_VERSION:
        known = f"this deltadream reads {OLDEST_VERSION} to {FORMAT_VERSION}"
        raise BadInput(f"{path} has format version {theirs} and {known}; use the deltadream that wrote it.")
    if theirs > FORMAT_VERSION:
        known = f"this deltadream reads up to {FORMAT_VERSION}"
        raise BadInput(f"{path} has format version {theirs} and {known}; upgrade it, or give an older checkpoint.")
    try:
        signed = _canonical({**content, "digest": digest})
        if hashlib.sha256(_canonical(content)).hexdigest() != digest or raw != signed:
            raise Damaged(path, "was changed after it was written")
        files = {fields["path"]: FileRecord(**fields) for fields in content["files"]}
        chunks = tuple(ChunkRecord(**fields) for fields in content["chunks"])
        for record in (*files.values(), *chunks):
            if not (_CHUNK if isinstance(record, ChunkRecord) else _FILE).fullmatch(record.path):
                raise Damaged(path, f"names the file {record.path!r}, which no checkpoint may hold")
        for chunk in chunks:
            if type(chunk.first) is not int or type(chunk.last) is not int or not 0 <= chunk.first < chunk.last:
                raise Damaged(path, f"says that {chunk.path} holds the steps {chunk.first!r} to {chunk.last!r}")
        return operator.index(content["epoch"]), {"state.json": files["state.json"], **files}, chunks
    except (KeyError, TypeError, RecursionError, UnicodeEncodeError) as error:
        raise Damaged(path, "is not a manifest of this format") from error


@contextmanager
def _opened(root: Path, record: FileRecord, most: int | None = None) -> Iterator[BinaryIO]:
    """The record's file, which is there, inside `root`, and of the right size, to be read."""
    path = root / record.path
    try:
        with opened(path, root, most) as file:
            size = os.fstat(file.fileno()).st_size
            if size != record.size and record is not _MANIFEST:
                raise Damaged(path, f"has {size} bytes instead of {record.size}: it was cut short or changed")
            yield file
    except Unfit as error:
        raise Damaged(path, str(error)) from error


def _check_file(root: Path, record: FileRecord) -> None:
    """Raises Damaged if the file cannot be opened, or is of another size."""
    with _opened(root, record):
        pass


def _check_content(root: Path, record: FileRecord) -> None:
    """Raises Damaged if the file is not the one that the record vouches for. Its bytes are not held in memory."""
    with _opened(root, record) as file:
        _compare(root, record, hashlib.file_digest(file, "sha256").hexdigest())


def _read(root: Path, record: FileRecord, most: int | None = None) -> bytes:
    """The bytes of a file, which are those that the record vouches for, at most `most`."""
    with _opened(root, record, most) as file:
        data = file.read(record.size)
    if record is not _MANIFEST:
        _compare(root, record, hashlib.sha256(data).hexdigest())
    return data


def _compare(root: Path, record: FileRecord, sha256: str) -> None:
    if sha256 != record.sha256:
        raise Damaged(root / record.path, "was changed after it was written: its SHA-256 is not the manifest's")


def _parse(path: Path, data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Damaged(path, "is not a JSON object")
    return content


def _read_tensors(root: Path, record: FileRecord) -> dict[str, Tensor]:
    path = root / record.path
    _check_file(root, record)  # so that its size is what is there
    needed, free = 2 * record.size, psutil.virtual_memory().available
    if needed > free:  # a file may be a terabyte of holes
        raise BadInput(
            f"{path} takes {needed / 1e9:.2f} GB of memory to be read, and only {free / 1e9:.2f} GB are free; free some, or use "
            "another machine."
        )
    data = _read(root, record)
    if int.from_bytes(data[:8], "little") > MOST_HEADER:
        raise Damaged(path, f"is not a safetensors file: its header would have more than {MOST_HEADER:,} bytes")
    try:
        return safetensors.torch.load(data)  # checks that the header and every tensor lie inside the file
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise Damaged(path, "is not a safetensors file") from error
