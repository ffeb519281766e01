"""Files of a checkpoint: written with their SHA-256, read only if it is still theirs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.storage.files import write_new
from envs.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

FORMAT, FORMAT_VERSION = "deltadream checkpoint", 2


class Damaged(BadInput):
    """A file of a checkpoint, at `path`, is not as it was written. The message is all three."""

    def __init__(self, path: Path, what: str, remedy: str = "restore it from a copy") -> None:
        super().__init__(path, what, remedy)
        self.path, self.what, self.remedy = path, what, remedy

    def __str__(self) -> str:
        return f"{self.path} {self.what}; {self.remedy}."


@dataclass(frozen=True)
class FileRecord:
    """What a manifest says of a file: path, size in bytes, SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ChunkRecord(FileRecord):
    """A file of replay rows: those of the vector environment's steps first <= step < last."""

    first: int
    last: int


def write(folder: Path, name: str, data: bytes) -> FileRecord:
    """Write a file -> what a manifest shall say of it."""
    write_new(folder / name, data)
    return FileRecord(name, len(data), hashlib.sha256(data).hexdigest())


def serialise(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of a safetensors file."""
    import safetensors.torch  # here: what needs no tensors shall not wait for torch
    import torch

    # clone: safetensors refuses views of a shared storage, and a view would be stored with holes
    own = {
        name: t.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, t in tensors.items()
    }
    return safetensors.torch.save(own)


def write_manifest(
    folder: Path, epoch: int, files: list[FileRecord], chunks: tuple[ChunkRecord, ...]
) -> None:
    """Write a checkpoint's manifest.json, which vouches for all its other files."""
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {name: version(name) for name in ("deltadream", "torch", "safetensors")},
        "epoch": epoch,
        "files": [asdict(record) for record in files],
        "chunks": [asdict(record) for record in chunks],
    }
    write(folder, "manifest.json", _signed(content))


def _signed(content: dict[str, Any]) -> bytes:
    """A manifest, with the SHA-256 of all else in it."""
    text = json.dumps(content, indent=1, sort_keys=True)
    content = content | {"digest": hashlib.sha256(text.encode()).hexdigest()}
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def read_manifest(folder: Path) -> tuple[int, dict[str, FileRecord], tuple[ChunkRecord, ...]]:
    """(epoch, file name -> record, records of the replay's rows) of the checkpoint in `folder`."""
    path = folder / "manifest.json"
    with reading(path):
        raw = path.read_bytes()
    try:
        content = json.loads(raw)
        digest, theirs = content.pop("digest", None), content["format_version"]
        if content["format"] != FORMAT:
            raise ValueError
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Damaged(path, f"does not describe a {FORMAT}") from error
    if theirs != FORMAT_VERSION:
        raise BadInput(
            f"{path} has format version {theirs} and this deltadream reads {FORMAT_VERSION}; use "
            "the version that wrote it, or train again."
        )
    if digest is None or raw != _signed(content):
        raise Damaged(path, "was changed after it was written")
    files = {fields["path"]: FileRecord(**fields) for fields in content["files"]}
    return content["epoch"], files, tuple(ChunkRecord(**fields) for fields in content["chunks"])


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """An OSError from within is Damaged."""
    try:
        yield
    except FileNotFoundError as error:
        raise Damaged(path, "is missing") from error
    except OSError as error:
        raise Damaged(path, f"cannot be read ({error.strerror})") from error


def check_size(root: Path, record: FileRecord) -> Path:
    """The path of a file. Raises Damaged if it is not there, or of another size."""
    path = root / record.path
    with reading(path):
        size = path.stat().st_size
    if size != record.size:
        what = f"has {size} bytes instead of {record.size}: it was cut short or changed"
        raise Damaged(path, what)
    return path


def read(root: Path, record: FileRecord) -> bytes:
    """The bytes of a file. Raises Damaged if they are not those that the record is about."""
    path = check_size(root, record)
    with reading(path):
        data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise Damaged(path, "was changed after it was written: its SHA-256 is another")
    return data


def read_tensors(root: Path, record: FileRecord) -> dict[str, Tensor]:
    """The tensors of a safetensors file, verified as by `read`."""
    import safetensors.torch

    return safetensors.torch.load(read(root, record))


def sync_folders(*folders: Path) -> None:
    """Have the names in these folders on the disk, too."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
