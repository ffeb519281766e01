"""Loggers: every number once, also after a crash or a resume."""

from __future__ import annotations

import csv
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agent.media.films import write_video
from agent.storage.metrics import read_metrics
from agent.training.logger import make_loggers
from envs.errors import BadInput


def table(run: Path) -> list[list[str]]:
    return list(csv.reader((run / "metrics.csv").read_text().splitlines()))


def test_csv_columns_grow_and_rows_complete_in_place(tmp_path: Path) -> None:
    (logger,) = make_loggers(["csv"], tmp_path, {})
    logger.log({"tokenizer/loss": 0.5}, step=100, epoch=1)
    assert table(tmp_path) == [["epoch", "step", "tokenizer/loss"], ["1", "100", "0.5"]]
    logger.log({"policy/entropy": 2.0, "tokenizer/loss": 0.25}, step=100, epoch=1)
    logger.log({"tokenizer/loss": 1 / 3}, step=20_000_000, epoch=2)
    logger.log({"evaluate/return_mean": float("nan")}, step=20_000_000, epoch=2)
    logger.log({"tokenizer/loss": 1.0}, step=20_000_000, epoch=3)
    assert table(tmp_path) == [
        ["epoch", "step", "tokenizer/loss", "policy/entropy", "evaluate/return_mean"],
        ["1", "100", "0.25", "2", ""],
        ["2", "20000000", "0.333333333", "", "nan"],
        ["3", "20000000", "1", "", ""],
    ]
    first = {"epoch": 1, "step": 100, "tokenizer/loss": 0.25, "policy/entropy": 2.0}
    assert read_metrics(tmp_path / "metrics.csv")[0] == first


def test_resuming_drops_what_came_after(tmp_path: Path) -> None:
    (logger,) = make_loggers(["csv"], tmp_path, {})
    for epoch in (1, 2, 3):
        logger.log({"a": epoch} | ({"late": 1} if epoch == 3 else {}), 10 * epoch, epoch)
    (logger,) = make_loggers(["csv"], tmp_path, {}, resume_epoch=2, resume_step=20)
    assert table(tmp_path) == [["epoch", "step", "a"], ["1", "10", "1"], ["2", "20", "2"]]
    logger.log({"b": 5}, 20, 2)  # belongs to the row that is there
    logger.log({"a": 30}, 30, 3)
    assert table(tmp_path)[2:] == [["2", "20", "2", "5"], ["3", "30", "30", ""]]


def test_a_foreign_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("name,price\ntea,3\n")
    with pytest.raises(BadInput, match="metrics.csv"):
        make_loggers(["csv"], tmp_path, {})
    assert (tmp_path / "metrics.csv").read_text() == "name,price\ntea,3\n"


def test_tensorboard(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), dtype=np.uint8)
    (logger,) = make_loggers(["tensorboard"], tmp_path, {"seed": 3})
    for step in (10, 20, 30):
        logger.log({"tokenizer/loss": step / 10}, step, epoch=step // 10)
    logger.image("reconstructions", frames[0], 10)
    write_video(tmp_path / "dream.mp4", frames)
    logger.video("dream", tmp_path / "dream.mp4", 10)
    logger.close()
    # A run that is resumed from step 20.
    (logger,) = make_loggers(["tensorboard"], tmp_path, {}, resume_epoch=2, resume_step=20)
    logger.log({"tokenizer/loss": 7.0}, 30, 3)
    logger.close()
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [(e.step, e.value) for e in read.Scalars("tokenizer/loss")]
    assert losses == [(10, 1.0), (20, 2.0), (30, 7.0)]
    assert read.Images("reconstructions")[0].encoded_image_string.startswith(b"\x89PNG")
    film = read.Images("dream")[0]
    assert film.encoded_image_string.startswith(b"GIF89a") and (film.width, film.height) == (16, 16)


def test_wandb_is_given_everything_and_resumes_the_same_run(tmp_path: Path, monkeypatch) -> None:
    calls = []

    class Run:
        def __getattr__(self, name):
            return lambda *args, **kwargs: calls.append((name, args, kwargs))

    wandb = types.SimpleNamespace(
        init=lambda **kwargs: calls.append(("init", (), kwargs)) or Run(),
        Image=lambda array: "an image",
        Video=lambda path, format: f"a {format}",
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    (logger,) = make_loggers(["wandb"], tmp_path, {"seed": 3})
    logger.log({"a": 1.0}, 10, 1)
    logger.image("picture", np.zeros((2, 2, 3), np.uint8), 10)
    logger.video("dream", tmp_path / "dream.mp4", 10)
    logger.close()
    make_loggers(["wandb"], tmp_path, {"seed": 3})
    assert [args[0] for name, args, _ in calls if name == "log"] == [
        {"a": 1.0, "step": 10, "epoch": 1},
        {"picture": "an image", "step": 10},
        {"dream": "a mp4", "step": 10},
    ]
    one, other = [kwargs for name, _, kwargs in calls if name == "init"]
    assert one == other and one["config"] == {"seed": 3} and one["resume"] == "allow"
    assert "finish" in [name for name, *_ in calls]
