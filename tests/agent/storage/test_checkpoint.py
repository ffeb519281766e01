"""Checkpoints return what was saved, and survive crashes."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.storage import checkpoint, files
from agent.storage.checkpoint import append_rows, load, newest, save
from agent.storage.rng import get_random_state, set_random_state
from envs.errors import BadInput

DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
]


def write(run: Path, epoch: int, value: float, chunks=(), **options) -> Path:
    """A small checkpoint whose every part tells `value`."""
    tensors = {name: {"w": torch.full((3,), value)} for name in ("policy", "policy_optimizer")}
    return save(run, epoch, tensors, {"value": value}, chunks, **{"keep": 2, **options})


def value_of(path: Path) -> float:
    """The value of a checkpoint all of which is read."""
    saved = load(path)
    saved.verify()
    values = {saved.state["value"]}
    for entry in saved.tensors.values():
        values |= set(entry["w"].tolist())
    for chunk in saved.chunks:
        assert saved.rows(chunk)["steps"].tolist() == list(range(chunk.first, chunk.last))
    assert len(values) == 1  # never a mixture of two checkpoints
    return values.pop()


def rows(run: Path, first: int, last: int) -> checkpoint.ChunkRecord:
    return append_rows(run, first, last, {"steps": torch.arange(first, last)})


def epochs(run: Path) -> list[int]:
    return sorted(int(path.name[6:]) for path in (run / "checkpoints").iterdir())


@settings(max_examples=20, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**31),
)
def test_round_trip(shapes: list[list[int]], dtype: torch.dtype, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    entry = {
        f"layer.{i}": torch.randint(0, 99, shape, generator=generator).to(dtype)
        for i, shape in enumerate(shapes)
    }
    state = {"a": [1, 0.1, None, "é"]}
    with tempfile.TemporaryDirectory() as place:
        save(Path(place), 3, {"net": entry}, state, [append_rows(Path(place), 0, 5, entry)], keep=1)
        loaded = load(Path(place))
        assert loaded.epoch == 3 and loaded.state == state
        for back in (loaded.tensors["net"], loaded.rows(loaded.chunks[0])):
            assert back.keys() == entry.keys()
            for name, tensor in entry.items():
                assert back[name].dtype == dtype and torch.equal(back[name], tensor)


def test_views_and_shared_storage(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    entry = {
        "base": base,
        "same": base,
        "transposed": base.T,
        "column": base[:, 1],
        "expanded": base[0].expand(2, 4),
        "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(base.clone()),
        "nan": torch.tensor([float("nan"), float("inf"), -0.0]),
    }
    save(tmp_path, 1, {"net": entry, "empty": {}}, {}, keep=1)
    loaded = load(tmp_path).tensors
    assert loaded["empty"] == {}
    for name, tensor in entry.items():
        own = tensor.detach()
        torch.testing.assert_close(loaded["net"][name], own, rtol=0, atol=0, equal_nan=True)
    size = (newest(tmp_path) / "net.safetensors").stat().st_size
    assert size < 2500  # views are stored without their holes


def test_no_device_is_stored(tmp_path: Path) -> None:
    """A checkpoint says nowhere on which device its tensors were: it opens on any."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    save(tmp_path, 1, {"net": {"w": torch.arange(6.0, device=device).view(2, 3)}}, {}, keep=1)
    data = (newest(tmp_path) / "net.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert set(header["w"]) == {"dtype", "shape", "data_offsets"}
    assert load(tmp_path).tensors["net"]["w"].device.type == "cpu"


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


@pytest.mark.parametrize("name", ["best", "epoch_000001"])
def test_copies_moves_and_links(tmp_path: Path, name: str) -> None:
    """A checkpoint without its run can be evaluated, and not be trained on."""
    run = tmp_path / "run"
    folder = shutil.copytree(write(run, 1, 1.0, [rows(run, 0, 4)]), tmp_path / name)
    loaded = load(folder)
    assert loaded.run == tmp_path and loaded.tensors["policy"]["w"].tolist() == [1.0] * 3
    with pytest.raises(BadInput, match=f"{tmp_path}/replay/.* is missing"):
        loaded.verify()
    moved = run.rename(tmp_path / "moved")
    (tmp_path / "latest").symlink_to(moved)
    assert value_of(moved) == value_of(tmp_path / "latest") == 1.0


def test_foreign_folders(tmp_path: Path, monkeypatch) -> None:
    for path in (tmp_path, tmp_path / "nowhere", Path("/")):
        with pytest.raises(BadInput, match="holds no checkpoint; give"):
            load(path)
    assert newest(tmp_path) is None
    for text in ("", "[]", "{}", "null", "\xff"):
        (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
        with pytest.raises(BadInput, match="manifest.json does not describe a checkpoint"):
            load(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", "deltadream checkpoint 1")
        write(tmp_path / "run", 1, 1.0)
    with pytest.raises(BadInput, match="checkpoint 1', and this .* use the version that wrote"):
        load(tmp_path / "run")


class Fault:
    """The n-th write, sync, rename, removal or new folder fails; of a write half is done.

    Attributes:
        calls: how many there were so far.
    """

    def __init__(self, n: int, error: BaseException, patch: pytest.MonkeyPatch) -> None:
        self.n, self.error, self.calls = n, error, 0
        fault = self

        class Writing(io.FileIO):
            def write(self, data) -> int:
                if fault.is_due():
                    super().write(data[: len(data) // 2])
                    raise error
                return super().write(data)

        patch.setattr(files, "open", lambda path, _: Writing(path, "w"), raising=False)
        calls = [(os, "replace"), (os, "fsync"), (Path, "mkdir")]
        if not isinstance(error, OSError):  # a full disk does not hinder a removal
            calls += [(shutil, "rmtree"), (Path, "unlink")]
        for module, name in calls:
            patch.setattr(module, name, self.failing(getattr(module, name)))

    def is_due(self) -> bool:
        self.calls += 1
        return self.calls == self.n

    def failing(self, function):
        def call(*args, **kwargs):
            if self.is_due():
                raise self.error
            return function(*args, **kwargs)

        return call


class Crash(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (Crash(), False),
        (Crash(), True),
        (OSError(errno.ENOSPC, "full"), False),
        (OSError(errno.EDQUOT, "quota"), True),
    ],
)
def test_a_save_that_fails_anywhere_leaves_a_whole_checkpoint(
    tmp_path: Path, error: BaseException, again: bool
) -> None:
    """The one before or the new one, and the next save clears up. again: of the same epoch."""
    survived = {1.0: 0, 2.0: 0}
    for n in range(1, 100):
        run = tmp_path / str(n)
        chunks = [rows(run, 0, 4)]
        write(run, 1, 0.0, chunks)
        write(run, 2, 1.0, chunks)
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(n, error, patch)
            try:
                write(run, 2 if again else 3, 2.0, [*chunks, rows(run, 4, 8)])
            except type(error):
                pass
        survived[value_of(run)] += 1
        write(run, 4, 3.0, chunks)
        assert value_of(run) == 3.0
        assert not [path for path in run.rglob("*") if path.name.startswith(".")]
        assert len(list((run / "replay").iterdir())) <= 2
        if fault.calls < n:
            break
    assert fault.calls < n and survived[1.0] > 8 and survived[2.0] > 1


def test_keep_and_best(tmp_path: Path) -> None:
    for epoch in range(1, 8):
        write(tmp_path, epoch, float(epoch), keep=2, best=3 if epoch >= 3 else None)
    assert epochs(tmp_path) == [3, 6, 7]
    write(tmp_path, 8, 8.0, keep=1, best=7)
    assert epochs(tmp_path) == [7, 8]
    assert value_of(tmp_path) == 8.0 and value_of(tmp_path / "checkpoints" / "epoch_000007") == 7.0


def test_a_paused_one_goes_with_the_next(tmp_path: Path) -> None:
    write(tmp_path, 1, 1.0, keep=1)
    paused = write(tmp_path, 1, 1.5, keep=1, paused=True)
    assert load(tmp_path).paused and value_of(tmp_path) == 1.5
    assert paused.name == "epoch_000001_paused" and value_of(paused.with_name("epoch_000001")) == 1
    write(tmp_path, 2, 2.0, keep=2)
    assert epochs(tmp_path) == [1, 2] and not load(tmp_path).paused


def test_resuming_an_older_checkpoint_abandons_the_later_ones(tmp_path: Path) -> None:
    first = rows(tmp_path, 0, 4)
    write(tmp_path, 1, 1.0, [first])
    write(tmp_path, 2, 2.0, [first, rows(tmp_path, 4, 8)])
    loaded = load(tmp_path / "checkpoints" / "epoch_000001")
    again = append_rows(tmp_path, 4, 8, {"steps": torch.arange(4, 8), "other": torch.zeros(1)})
    assert value_of(tmp_path) == 2.0  # still whole: the new history's rows have their own file
    for epoch, value in [(2, 3.0), (3, 4.0), (2, 5.0)]:
        write(tmp_path, epoch, value, [*loaded.chunks, again], keep=3)
    assert epochs(tmp_path) == [1, 2] and value_of(tmp_path) == 5.0


def test_rows_are_written_once_and_removed_when_no_checkpoint_needs_them(tmp_path: Path) -> None:
    chunks, inodes = [], {}
    for epoch in range(1, 6):
        chunks = [*chunks, rows(tmp_path, 4 * epoch, 4 * epoch + 4)][-2:]  # the replay holds two
        write(tmp_path, epoch, float(epoch), chunks, keep=2)
        for path in (tmp_path / "replay").iterdir():
            assert inodes.setdefault(path.name, path.stat().st_ino) == path.stat().st_ino
        assert load(tmp_path).chunks == tuple(chunks)
    kept = sorted(path.name for path in (tmp_path / "replay").iterdir())
    assert [name[:25] for name in kept] == [f"steps_{4 * e:09d}_{4 * e + 4:09d}" for e in (3, 4, 5)]
    assert len(inodes) == 5 and value_of(tmp_path / "checkpoints" / "epoch_000004") == 4.0

    # What a damaged one needs is unknown, and stays.
    (tmp_path / "checkpoints" / "epoch_000005" / "manifest.json").write_text("{}")
    write(tmp_path, 6, 6.0, keep=2)
    assert len(list((tmp_path / "replay").iterdir())) == 3
