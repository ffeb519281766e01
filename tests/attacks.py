"""What somebody may put in the place of a file that we read back. None of it may run, write, hang or fill the memory."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import resource
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from agent import checkpoint

MARKER = "it_ran"  # a folder that code from a file would make in the working directory
MEMORY = 2 * 2**30  # bytes that reading a run may take besides what the process has
SECONDS = 30  # after which it hangs


class Bomb:
    def __reduce__(self):
        return os.mkdir, (MARKER,)


def torch_pickle() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(3), "bomb": Bomb()}, buffer)
    return buffer.getvalue()


def header(length: int | None = None, tail: bytes = bytes(8), **tensor) -> bytes:
    """A safetensors file of one tensor [2] float32, whose header says otherwise."""
    text = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **tensor}}).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + tail


def with_interpolation(path: Path) -> bytes:
    """The file itself, with a setting that would be looked up, where it has settings."""
    text = path.read_text(errors="replace")
    for setting in ('"experiment":"catch"', '"experiment": "catch"', "experiment: catch"):
        if setting in text:
            return text.replace(setting, setting.replace("catch", "${oc.env:HOME}")).encode()
    return b"experiment: ${oc.env:HOME}\n"


# name -> what then lies at the path.
CONTENTS: dict[str, Callable[[Path], bytes]] = {
    "pickle": lambda path: pickle.dumps(Bomb()),
    "torch pickle": lambda path: torch_pickle(),
    "yaml tag": lambda path: f"experiment: !!python/object/apply:os.mkdir ['{MARKER}']\n".encode(),
    "yaml name": lambda path: b"!!python/name:os.system ''\n",
    "yaml merged again and again": lambda path: (
        "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 12))
    ).encode(),
    "interpolation": with_interpolation,
    "header bomb": lambda path: header(length=2**63),
    "header of a gigabyte": lambda path: header(length=2**30),
    "giant shape": lambda path: header(shape=[2**40, 2**20], data_offsets=[0, 2**62]),
    "giant offsets": lambda path: header(shape=[2**30], data_offsets=[0, 2**32]),
    "deep": lambda path: b"[" * 1_000_000,
    "deep objects": lambda path: b'{"a":' * 500_000,
    "many lists": lambda path: b'{"epoch":[' + b"[]," * 1_000_000 + b"1]}",
    "giant number": lambda path: b'{"epoch":' + b"9" * 1_000_000 + b"}",
    "one long line": lambda path: b"epoch,step," + b"a," * 1_000_000 + b"\n",
    "nothing": lambda path: b"",
    "zeros": lambda path: bytes(100_000),
}


def put_sparse(path: Path, outside: Path) -> None:
    """A terabyte that takes no room on the disk."""
    os.truncate(path, 2**40)


def put_pipe(path: Path, outside: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def put_folder(path: Path, outside: Path) -> None:
    path.unlink()
    path.mkdir()


def put_link(path: Path, outside: Path) -> None:
    """Out of the run, to a file that is as it should be."""
    os.replace(path, outside / path.name)
    path.symlink_to(outside / path.name)


def put_loop(path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def put_device(path: Path, outside: Path) -> None:
    """Bytes without end."""
    path.unlink()
    path.symlink_to("/dev/zero")


PLACES: dict[str, Callable[[Path, Path], None]] = {
    "sparse": put_sparse, "pipe": put_pipe, "folder": put_folder, "link out": put_link, "loop": put_loop, "device": put_device
}  # fmt: skip
ATTACKS = [*CONTENTS, *PLACES]


def attack(path: Path, name: str, outside: Path) -> None:
    """Put an attack in the place of a file of a run. Where a manifest vouches for the file, that vouches for the attack."""
    PLACES[name](path, outside) if name in PLACES else path.write_bytes(CONTENTS[name](path))
    if path.name != "manifest.json" and (path.parent / "manifest.json").exists() and path.is_file() and not path.is_symlink():
        vouch(path.parent, path)


def attack_rows(run: Path, name: str, outside: Path) -> Path:
    """The same with a file of replay rows, whose name holds its checksum: the manifest names the new one. -> its path"""
    saved = checkpoint.load(run)
    path, folder = run / saved.chunks[-1].path, checkpoint.newest(run)
    if name in PLACES:
        PLACES[name](path, outside)
        if name == "sparse":
            resign(folder, lambda content: content["chunks"][-1].update(size=2**40))
        return path
    path.write_bytes(CONTENTS[name](path))
    record = content_record(path)
    new = path.with_name(f"{path.name.rpartition('_')[0]}_{record['sha256'][:16]}.safetensors")
    os.replace(path, new)
    resign(folder, lambda content: content["chunks"][-1].update(record, path=f"replay/{new.name}"))
    return new


def content_record(path: Path) -> dict[str, object]:
    """What a manifest says of the file; nobody waits for the checksum of a terabyte."""
    size = path.stat().st_size
    return {"size": size, "sha256": "0" * 64 if size > 2**30 else hashlib.sha256(path.read_bytes()).hexdigest()}


def vouch(folder: Path, path: Path) -> None:
    """Have the manifest say that the file is as it was written."""

    def change(content: dict) -> None:
        for record in content["files"]:
            if record["path"] == path.name:
                record.update(content_record(path))

    resign(folder, change)


def resign(folder: Path, change: Callable[[dict], object]) -> None:
    """Change a manifest as someone would who knows the format."""
    content = json.loads((folder / "manifest.json").read_text())
    content.pop("digest")
    change(content)
    content["digest"] = hashlib.sha256(checkpoint._canonical(content)).hexdigest()
    (folder / "manifest.json").write_bytes(checkpoint._canonical(content))


@contextmanager
def bounded(memory: int = MEMORY) -> Iterator[None]:
    """What is within fails if it takes more address space, or so long that it must be waiting for something."""

    def hangs(*_) -> None:
        raise TimeoutError(f"nothing happened for {SECONDS} s")

    limits, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, hangs)
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + memory, limits[1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def look(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Every file, folder, link and pipe below, and whether they changed, without opening what would hang."""
    seen = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        is_file = path.is_file() and not path.is_symlink() and about.st_size < 2**25
        changed = 0 if path.is_dir() else about.st_mtime_ns  # what is in a folder is seen anyway
        seen[str(path.relative_to(folder))] = (about.st_mode, about.st_size, changed, path.read_bytes() if is_file else b"")
    return seen
