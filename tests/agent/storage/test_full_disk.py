"""A full disk ends a run with a sentence.

What was saved before is whole, and saving works again once there is room.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.config import TrainConfig
from agent.media.curves import plot_curves
from agent.media.films import write_video
from agent.runs.train import train
from agent.storage import checkpoint, files, verified
from agent.storage.metrics import read_metrics
from agent.training.logger import make_loggers
from envs.errors import Stopped
from tests.tiny import tiny

FILM = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), np.uint8)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB, where one may be made."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", place], capture_output=True
    ).returncode
    if made != 0:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(place: Path, left: int) -> Path:
    """Fill the disk but for `left` bytes, in blocks of 4 KiB -> the file that fills it."""
    ballast = place / "ballast"
    free = shutil.disk_usage(place).free
    with open(ballast, "wb") as file:
        file.write(bytes(max(0, free - left)))
    return ballast


def writers(run: Path) -> dict[str, Callable[[], object]]:
    """Everything that a run writes, each to be called again and again."""
    rng, steps = np.random.default_rng(1), iter(range(1, 1000))
    loggers = {kind: make_loggers([kind], run, {})[0] for kind in ("csv", "tensorboard")}
    big = {"w": torch.from_numpy(rng.random(3000))}

    def log(kind: str) -> None:
        metrics = {f"metric_{i}": float(x) for i, x in enumerate(rng.random(800))}
        loggers[kind].log(metrics, step := next(steps), step)

    log("csv")
    return {
        "checkpoint": lambda: checkpoint.save(run, 1, {"net": big}, {"epoch": 1}, keep=1),
        "rows": lambda: checkpoint.append_rows(run, 0, 3000, {"steps": big["w"] * next(steps)}),
        "csv": lambda: log("csv"),
        "tensorboard": lambda: log("tensorboard"),
        "mp4": lambda: write_video(run / "films" / "film.mp4", FILM),
        "gif": lambda: write_video(run / "films" / "film.gif", FILM),
        "curves": lambda: plot_curves(run),
        "json": lambda: files.write(run / "evaluation.json", bytes(20_000)),
    }


@pytest.mark.parametrize("left", [0, 8192])
@pytest.mark.parametrize(
    "what", ["checkpoint", "rows", "csv", "tensorboard", "mp4", "gif", "curves", "json"]
)
def test_each_writer_on_a_full_disk(small_disk: Path, what: str, left: int, capfd):
    run = small_disk / "run"
    run.mkdir()
    write = writers(run)[what]
    write()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    ballast = fill(small_disk, left)
    with pytest.raises(OSError) as full:
        write()
    assert files.disk_full(full.value) is not None
    assert str(run) in files.sentence_of(files.disk_full(full.value))
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert after.keys() == before.keys(), "nothing half written is left"
    assert after == before, "what was there is as it was"
    ballast.unlink()
    write()
    assert capfd.readouterr().err == ""  # nor does anybody else complain


def fail_at(n: int, patch: pytest.MonkeyPatch, code: int) -> Callable[[], int]:
    """Let the n-th write, sync, rename, new file or folder fail as on a full disk.

    Returns:
        A function that counts such calls so far.
    """
    count = 0

    def failing(function):
        def call(*arguments, **named):
            nonlocal count
            count += 1
            if count == n:
                raise OSError(code, os.strerror(code))
            return function(*arguments, **named)

        return call

    class Writing(io.FileIO):
        """Half of what it is given still finds room."""

        def write(self, data) -> int:
            nonlocal count
            count += 1
            if count == n:
                super().write(data[: len(data) // 2])
                raise OSError(code, os.strerror(code))
            return super().write(data)

    def open_(path, mode="r", *rest, **named):
        return (
            failing(Writing)(path, mode.replace("b", ""))
            if "x" in mode
            else open(path, mode, *rest, **named)
        )

    patch.setattr(files, "open", open_, raising=False)
    for module, name in [(os, "replace"), (os, "fsync"), (Path, "mkdir")]:
        patch.setattr(module, name, failing(getattr(module, name)))
    return lambda: count


@pytest.mark.parametrize("code", files.FULL, ids=["full", "quota"])
def test_a_save_that_fails_at_any_call(tmp_path: Path, code: int):
    """Either the previous checkpoint stays, to the bit, or the new one is whole.

    A later save clears up.
    """

    def save(run: Path, epoch: int, value: float) -> None:
        last = 4 * epoch
        chunk = checkpoint.append_rows(run, last - 4, last, {"steps": torch.arange(last - 4, last)})
        checkpoint.save(
            run, epoch, {"net": {"w": torch.full((5,), value)}}, {"value": value}, [chunk], keep=2
        )

    def held(run: Path) -> tuple:
        saved = checkpoint.load(run)
        rows = [checkpoint.read_rows(saved.run, chunk)["steps"].tolist() for chunk in saved.chunks]
        return saved.epoch, saved.state, saved.tensors["net"]["w"].tolist(), rows

    old, new, failed = (
        (1, {"value": 1.0}, [1.0] * 5, [[0, 1, 2, 3]]),
        (2, {"value": 2.0}, [2.0] * 5, [[4, 5, 6, 7]]),
        0,
    )
    for n in range(1, 100):
        run = tmp_path / str(n)
        save(run, 1, 1.0)
        with pytest.MonkeyPatch.context() as patch:
            count = fail_at(n, patch, code)
            try:
                save(run, 2, 2.0)
            except OSError as error:
                assert files.disk_full(
                    error
                ) is error and "could not be written" in files.sentence_of(error)
                failed += 1
        if count() < n:
            break
        assert held(run) in (old, new)
        save(run, 3, 3.0)
        assert checkpoint.load(run).state == {"value": 3.0}
        assert not [path for path in run.rglob("*") if path.name.startswith(".")]
    assert failed == n - 1 > 15


@pytest.mark.usefixtures("without_films")
def test_a_run_on_a_full_disk(tmp_path: Path, monkeypatch):
    """It stops with one sentence, which says what to do, and goes on when there is room."""
    run, write = tmp_path / "run", verified.write_new

    def full(path: Path, data: bytes) -> None:
        if path.name == "policy_optimizer.safetensors" and "epoch_000002" in str(path):
            with files.naming(path):
                raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    config = tiny(f"run={run}", "learner.mode=eager", "logger=csv")
    with monkeypatch.context() as patch:
        patch.setattr(verified, "write_new", full)
        with pytest.raises(Stopped) as stopped:
            train(config, [])
    sentence = str(stopped.value)
    assert (
        "epoch 2: the disk is full" in sentence
        and "policy_optimizer.safetensors could not be written; free some space" in sentence
    )
    assert (
        f"{run / 'checkpoints' / 'epoch_000001'} (go on with resume={run})." in sentence
        and "\n" not in sentence
    )
    train(TrainConfig(resume=str(run)), [f"resume={run}"])
    assert checkpoint.load(run).epoch == 2 and [
        row["epoch"] for row in read_metrics(run / "metrics.csv")
    ] == [1, 2]
