"""Checkpoints: what comes back is what was saved, whatever crashes, and nothing else is accepted."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import checkpoint
from agent.checkpoint import append_rows, load, newest, read_rows, save
from agent.random_states import get_random_state, set_random_state
from envs.errors import BadInput

DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
]


def write(run: Path, epoch: int, value: float, chunks=(), **options) -> Path:
    """A small checkpoint whose every part tells `value`."""
    tensors = {"policy": {"w": torch.full((3,), value)}, "policy_optimizer": {"m": torch.full((2,), value)}}
    return save(run, epoch, tensors, {"value": value}, chunks, **{"keep": 2, **options})


def value_of(path: Path) -> float:
    loaded = load(path)
    values = {loaded.state["value"], *loaded.tensors["policy"]["w"].tolist()}
    values |= set(loaded.tensors["policy_optimizer"]["m"].tolist())
    for chunk in loaded.chunks:
        assert read_rows(loaded.run, chunk)["steps"].tolist() == list(range(chunk.first, chunk.last))
    assert len(values) == 1  # never a mixture of two checkpoints
    return values.pop()


def rows(run: Path, first: int, last: int) -> checkpoint.ChunkRecord:
    return append_rows(run, first, last, {"steps": torch.arange(first, last)})


def resign(folder: Path, **changes) -> None:
    """Change the manifest as someone would who knows the format."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text()) | changes
    content.pop("digest", None)
    content["digest"] = hashlib.sha256(checkpoint._canonical(content)).hexdigest()
    path.write_bytes(checkpoint._canonical(content))


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Put other bytes into a file and vouch for them in the manifest."""
    (folder / name).write_bytes(data)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    for record in files:
        if record["path"] == name:
            record |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    resign(folder, files=files)


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**31),
)
def test_round_trip(shapes: list[list[int]], dtype: torch.dtype, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    entry = {
        f"layer.{i}": torch.randint(-2, 99, shape, generator=generator).abs().to(dtype)
        for i, shape in enumerate(shapes)
    }
    with tempfile.TemporaryDirectory() as run:
        save(Path(run), 3, {"net": entry}, {"a": [1, 0.1, None, "é"]}, [append_rows(Path(run), 0, 5, entry)], keep=1)
        loaded = load(Path(run))
        assert loaded.epoch == 3 and loaded.state == {"a": [1, 0.1, None, "é"]}
        for back in (loaded.tensors["net"], read_rows(loaded.run, loaded.chunks[0])):
            assert back.keys() == entry.keys()
            for name, tensor in entry.items():
                assert back[name].dtype == dtype and back[name].shape == tensor.shape
                assert torch.equal(back[name], tensor)


def test_views_and_shared_storage(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    parameter = torch.nn.Parameter(base.clone())
    entry = {
        "base": base, "same": base, "transposed": base.T, "column": base[:, 1], "expanded": base[0].expand(2, 4),
        "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last), "parameter": parameter,
        "nan": torch.tensor([float("nan"), float("inf"), -0.0]),
    }
    save(tmp_path, 1, {"net": entry, "empty": {}}, {}, keep=1)
    loaded = load(tmp_path).tensors
    assert loaded["empty"] == {}
    for name, tensor in entry.items():
        torch.testing.assert_close(loaded["net"][name], tensor.detach(), rtol=0, atol=0, equal_nan=True)
    assert (newest(tmp_path) / "net.safetensors").stat().st_size < 2500  # views are stored without their holes


def test_only_what_evaluation_needs(tmp_path: Path) -> None:
    folder = write(tmp_path, 1, 1.0, [rows(tmp_path, 0, 4)])
    shutil.rmtree(tmp_path / "replay")
    (folder / "policy_optimizer.safetensors").unlink()
    loaded = load(tmp_path, only=["policy"])
    assert loaded.tensors.keys() == {"policy"} and loaded.chunks == () and loaded.state == {"value": 1.0}
    with pytest.raises(BadInput, match="missing"):
        load(tmp_path)
    with pytest.raises(BadInput, match="dynamics"):
        load(tmp_path, only=["policy", "dynamics"])


@pytest.mark.parametrize("name", ["best", "epoch_000001"])
def test_a_copy_without_its_run(tmp_path: Path, name: str) -> None:
    """It can be evaluated, which is written beside it, and not be trained on."""
    run = tmp_path / "runs" / "a"
    folder = shutil.copytree(write(run, 1, 1.0, [rows(run, 0, 4)]), tmp_path / name)
    loaded = load(folder, only=["policy"])
    assert loaded.run == tmp_path and loaded.epoch == 1
    with pytest.raises(BadInput, match=f"{name} is a checkpoint without its run"):
        load(folder)


class Crash(Exception):
    pass


@pytest.mark.parametrize("same_epoch", [False, True])
def test_a_crash_anywhere_leaves_a_whole_checkpoint(tmp_path: Path, monkeypatch, same_epoch: bool) -> None:
    """Fail the n-th write, rename, sync or removal of a save, for every n until it runs through."""
    countdown = 0

    def fragile(function):
        def call(*args, **kwargs):
            nonlocal countdown
            countdown -= 1
            if countdown == 0:
                raise Crash
            return function(*args, **kwargs)
        return call

    epoch, survived = 2, {1.0: 0, 2.0: 0}
    for n in range(1, 200):
        run = tmp_path / str(n)
        chunks = [rows(run, 0, 4)]
        write(run, 1, 0.0, chunks)
        write(run, epoch, 1.0, chunks)
        with monkeypatch.context() as patch:
            countdown = n
            for module, name in [(os, "replace"), (os, "fsync"), (shutil, "rmtree"), (Path, "unlink"), (Path, "mkdir")]:
                patch.setattr(module, name, fragile(getattr(module, name)))
            try:
                write(run, epoch if same_epoch else 3, 2.0, [*chunks, rows(run, 4, 8)])
                break
            except Crash:
                pass
        survived[value_of(run)] += 1
        if same_epoch:
            assert value_of(run / "checkpoints" / "epoch_000002") in survived
        write(run, 4, 3.0, chunks)  # the next save clears up
        assert value_of(run) == 3.0
        assert not [path for path in run.rglob("*") if path.name.startswith(".")]
        assert len(list((run / "replay").iterdir())) <= 2
    assert countdown > 0 and survived[1.0] > 8 and survived[2.0] > 1  # crashes fell on both sides of the rename


def files_of(run: Path) -> list[Path]:
    return [path for path in sorted(run.rglob("*")) if path.is_file()]


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, 1, 1.0, [rows(tmp_path, 0, 4)])
    assert len(files_of(tmp_path)) == 5
    bits = random.Random(0)
    for path in files_of(tmp_path):
        data = path.read_bytes()
        for position in range(len(data)):
            changed = bytearray(data)
            changed[position] ^= 1 << bits.randrange(8)
            path.write_bytes(changed)
            with pytest.raises(BadInput, match=path.name):
                value_of(tmp_path)
        path.write_bytes(data)
    assert value_of(tmp_path) == 1.0


def test_truncated_extended_and_missing_files(tmp_path: Path) -> None:
    write(tmp_path, 1, 1.0, [rows(tmp_path, 0, 4)])
    for path in files_of(tmp_path):
        data = path.read_bytes()
        lengths = {0, 1, 7, 8, 9, len(data) - 1, *random.Random(0).sample(range(len(data)), min(20, len(data)))}
        for cut in [data[:length] for length in lengths] + [data + b"\0", data + b"\n"]:
            path.write_bytes(cut)
            with pytest.raises(BadInput, match=path.name):
                value_of(tmp_path)
        path.unlink()
        for damage in (lambda: None, path.mkdir):  # missing, then a folder of that name
            damage()
            with pytest.raises(BadInput, match=path.name):
                value_of(tmp_path)
        path.rmdir()
        path.write_bytes(data)


def test_foreign_folders(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", Path("/"), Path(".")):
        with pytest.raises(BadInput, match="holds no checkpoint; give"):
            load(path)
    with pytest.raises(BadInput, match="cannot be read"):
        load(tmp_path / ("x" * 5000))
    assert newest(tmp_path) is None
    for text in ["", "[]", "{}", "null", "\xff", '{"format": "deltadream checkpoint"}', "[" * 100_000, '{"a":' * 900]:
        (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
        with pytest.raises(BadInput, match="manifest.json"):
            load(tmp_path)


def test_newer_format(tmp_path: Path) -> None:
    folder = write(tmp_path, 1, 1.0)
    resign(folder, format_version=2)
    with pytest.raises(BadInput, match="manifest.json has format version 2 .* upgrade"):
        load(tmp_path)
    resign(folder, format_version=0)
    with pytest.raises(BadInput, match="manifest.json has format version 0 .* use the deltadream that wrote it"):
        load(tmp_path)
    for other in ("1", None, True, 1.0):
        resign(folder, format_version=other)
        with pytest.raises(BadInput, match="manifest.json"):
            load(tmp_path)


def test_manifests_that_lie(tmp_path: Path) -> None:
    """A manifest with a valid digest is still not free to name any file, nor to have any form."""
    run = tmp_path / "run"
    folder = write(run, 1, 1.0, [rows(run, 0, 4)])
    shutil.copy(folder / "policy.safetensors", folder.parent / "other.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    file, chunk = manifest["files"][0], manifest["chunks"][0]

    def refused(match: str, **changes) -> None:
        resign(folder, **{**manifest, **changes})
        with pytest.raises(BadInput, match=match):
            load(folder)

    for name in ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "a\0.safetensors", "net.pt",
                 "C:\\net.safetensors", "net.safetensors\n", "manifest.json", None, 3, chunk["path"]]:
        refused("manifest.json", files=[{**file, "path": name}, *manifest["files"][1:]])
    for name in ["../x.safetensors", "replay/../steps_0_1_0123456789abcdef.safetensors", "/etc/passwd", file["path"]]:
        refused("manifest.json", chunks=[{**chunk, "path": name}])
    for files in (None, [], [1], [{}], [{**file, "more": 1}], {"policy": 1}):
        refused("manifest.json", files=files)
    for chunks in (None, [file], [1]):
        refused("manifest.json", chunks=chunks)
    for epoch in ("1", None, 1.5):
        refused("manifest.json", epoch=epoch)
    for field in ("size", "sha256"):
        refused("policy.safetensors", files=[{**file, field: None}, *manifest["files"][1:]])


def test_symbolic_links(tmp_path: Path) -> None:
    run = tmp_path / "run"
    folder = write(run, 1, 1.0, [rows(run, 0, 4)])
    for path in files_of(run):
        outside = tmp_path / path.name
        os.replace(path, outside)
        path.symlink_to(outside)
        with pytest.raises(BadInput, match=f"{path.name} is a link that leads out"):
            load(run)
        path.unlink()
        path.symlink_to(path)  # a loop
        with pytest.raises(BadInput, match=path.name):
            load(run)
        path.unlink()
        os.replace(outside, path)
    (tmp_path / "latest").symlink_to(run)  # one's own link to a run is fine
    assert value_of(tmp_path / "latest") == value_of(run) == 1.0
    os.replace(folder, tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    with pytest.raises(BadInput, match="leads out"):
        load(run)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize("vouched", [False, True])
def test_a_pickle_never_runs(tmp_path: Path, monkeypatch, vouched: bool) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path, 1, 1.0)
    torch.save({"w": torch.zeros(3), "bomb": Bomb()}, tmp_path / "bomb.pt")
    for data in (pickle.dumps(Bomb()), (tmp_path / "bomb.pt").read_bytes()):
        for name in ("policy.safetensors", "state.json"):
            before = (folder / name).read_bytes()
            replace_file(folder, name, data) if vouched else (folder / name).write_bytes(data)
            with pytest.raises(BadInput, match=name):
                load(tmp_path)
            replace_file(folder, name, before)
    assert not (tmp_path / "exploded").exists()
    assert value_of(tmp_path) == 1.0


def test_headers_that_lie_about_sizes(tmp_path: Path) -> None:
    """A manifest may vouch for a crafted file; the header's claims are still held against its size."""
    folder = write(tmp_path, 1, 1.0)

    def crafted(length: int | None = None, **tensor) -> bytes:
        header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **tensor}}).encode()
        return struct.pack("<Q", len(header) if length is None else length) + header + bytes(8)

    replace_file(folder, "policy.safetensors", crafted())
    assert load(tmp_path).tensors["policy"]["w"].tolist() == [0, 0]
    for data in [
        crafted(length=2**63), crafted(length=2**64 - 1), crafted(length=10**6), crafted(length=3),
        crafted(shape=[2**62]), crafted(shape=[2**32, 2**32, 2**32]), crafted(shape=[-2]), crafted(shape=[1]),
        crafted(data_offsets=[0, 2**40]), crafted(data_offsets=[8, 0]), crafted(data_offsets=[4, 12]),
        crafted(dtype="F999"), crafted(dtype="F64"), b"", bytes(8), bytes(100),
    ]:
        replace_file(folder, "policy.safetensors", data)
        with pytest.raises(BadInput, match="policy.safetensors"):
            load(tmp_path)


def epochs(run: Path) -> list[int]:
    return sorted(int(path.name[6:]) for path in (run / "checkpoints").iterdir())


def test_keep_and_best(tmp_path: Path) -> None:
    for epoch in range(1, 8):
        write(tmp_path, epoch, float(epoch), keep=2, best=3 if epoch >= 3 else None)
    assert epochs(tmp_path) == [3, 6, 7]
    write(tmp_path, 8, 8.0, keep=1, best=7)
    assert epochs(tmp_path) == [7, 8]
    assert value_of(tmp_path) == 8.0 and value_of(tmp_path / "checkpoints" / "epoch_000007") == 7.0
    with pytest.raises(ValueError, match="keep"):
        write(tmp_path, 9, 9.0, keep=0)
    with pytest.raises(ValueError, match="../policy"):
        save(tmp_path, 9, {"../policy": {}}, {}, keep=1)
    assert epochs(tmp_path) == [7, 8]


def test_resuming_an_older_checkpoint_abandons_the_later_ones(tmp_path: Path) -> None:
    first = rows(tmp_path, 0, 4)
    write(tmp_path, 1, 1.0, [first])
    write(tmp_path, 2, 2.0, [first, rows(tmp_path, 4, 8)])
    loaded = load(tmp_path / "checkpoints" / "epoch_000001")
    again = append_rows(tmp_path, 4, 8, {"steps": torch.arange(4, 8), "other": torch.zeros(1)})
    assert value_of(tmp_path) == 2.0  # still whole: the rows of the new history have a file of their own
    for epoch, value in [(2, 3.0), (3, 4.0), (2, 5.0)]:
        write(tmp_path, epoch, value, [*loaded.chunks, again], keep=3)
    assert epochs(tmp_path) == [1, 2] and value_of(tmp_path) == 5.0


def test_rows_are_written_once_and_removed_when_no_checkpoint_needs_them(tmp_path: Path) -> None:
    chunks, inodes = [], {}
    for epoch in range(1, 6):
        chunks = [*chunks, rows(tmp_path, 4 * epoch, 4 * epoch + 4)][-2:]  # the replay holds two chunks
        write(tmp_path, epoch, float(epoch), chunks, keep=2)
        for path in (tmp_path / "replay").iterdir():
            assert inodes.setdefault(path.name, path.stat().st_ino) == path.stat().st_ino
        assert load(tmp_path).chunks == tuple(chunks)
    assert len(inodes) == 5
    kept = sorted(path.name for path in (tmp_path / "replay").iterdir())
    assert [name[:25] for name in kept] == [f"steps_{4 * e:09d}_{4 * e + 4:09d}" for e in (3, 4, 5)]
    assert value_of(tmp_path / "checkpoints" / "epoch_000004") == 4.0

    (tmp_path / "checkpoints" / "epoch_000005" / "manifest.json").write_text("{}")  # damaged: what it needs is unknown
    write(tmp_path, 6, 6.0, keep=2)
    assert len(list((tmp_path / "replay").iterdir())) == 3

    (tmp_path / chunks[0].path).unlink()
    with pytest.raises(BadInput, match="missing"):
        write(tmp_path, 7, 7.0, chunks)  # refused at once, not when somebody resumes


def test_random_state(tmp_path: Path) -> None:
    def draw() -> list[float]:
        ours = [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()]
        devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
        return ours + [torch.randn((), device=device).item() for device in devices]

    draw()  # leaves a second Gaussian waiting in Python's and NumPy's generators
    tensors, state = get_random_state()
    save(tmp_path, 1, {"random": tensors}, {"random": state}, keep=1)
    expected = draw()
    assert draw() != expected
    loaded = load(tmp_path)
    set_random_state(loaded.tensors["random"], loaded.state["random"])
    assert draw() == expected
    for bad in [({}, state), (tensors, {}), ({"cpu": torch.zeros(3)}, state), (tensors, {**state, "numpy": [1]})]:
        with pytest.raises(BadInput, match="random states"):
            set_random_state(*bad)
