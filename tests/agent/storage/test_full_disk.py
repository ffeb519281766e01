"""A full disk ends a run with a sentence.

What was saved before is whole, and saving works again once there is room.
"""

from __future__ import annotations

import errno
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
from agent.storage import checkpoint, files
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


def writers(run: Path, what: str) -> dict[str, Callable[[], object]]:
    """Everything that a run writes, each to be called again and again; `what` will be."""
    rng, steps = np.random.default_rng(1), iter(range(1, 1000))
    big = {"w": torch.from_numpy(rng.random(3000))}
    (logger,) = make_loggers(["tensorboard" if what == "tensorboard" else "csv"], run, {})

    def log(number: int = 800) -> None:
        metrics = {f"metric_{i}": float(x) for i, x in enumerate(rng.random(number))}
        logger.log(metrics, step := next(steps), step)

    log(3)
    return {
        "checkpoint": lambda: checkpoint.save(run, 1, {"net": big}, {"epoch": 1}, keep=1),
        "rows": lambda: checkpoint.append_rows(run, 0, 3000, {"steps": big["w"] * next(steps)}),
        "csv": log,
        "tensorboard": log,
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
    write = writers(run, what)[what]
    write()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - left))
    with pytest.raises(OSError) as full:
        write()
    assert str(run) in files.sentence_of(files.disk_full(full.value))
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert after == before, "nothing half written is left, and what was there is as it was"
    ballast.unlink()
    write()
    assert capfd.readouterr().err == ""  # nor does anybody else complain


@pytest.mark.usefixtures("without_films")
def test_a_run_on_a_full_disk(tmp_path: Path, monkeypatch):
    """It stops with one sentence, which says what to do, and goes on when there is room."""
    run, write = tmp_path / "run", checkpoint.write_new

    def full(path: Path, data: bytes) -> None:
        if path.name == "policy_optimizer.safetensors" and "epoch_000002" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_new", full)
        with pytest.raises(Stopped) as stopped:
            train(tiny(f"run={run}", "learner.mode=eager", "logger=csv"), [])
    sentence = str(stopped.value)
    assert "epoch 2: the disk is full" in sentence and "\n" not in sentence
    assert "policy_optimizer.safetensors could not be written; free some space" in sentence
    assert f"{run / 'checkpoints' / 'epoch_000001'} (go on with resume={run})." in sentence
    train(TrainConfig(resume=str(run)), [f"resume={run}"])
    assert checkpoint.load(run).epoch == 2
    assert [row["epoch"] for row in read_metrics(run / "metrics.csv")] == [1, 2]
