"""Where a run's numbers go: TensorBoard, a CSV file, and Weights & Biases for those who ask.

metrics.csv has one row for each epoch and one column for each metric.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np

from agent.media.films import gif
from agent.storage import files
from agent.storage.metrics import read_metrics, write_metrics

SPARE = 2**20  # bytes of disk that TensorBoard wants for an epoch


class Logger:
    """A writer of metrics, pictures and films. `step` counts steps of the environments."""

    def log(self, metrics: Mapping[str, float], step: int, epoch: int) -> None:
        """Log numbers named part/what, as in tokenizer/loss."""

    def image(self, name: str, array: np.ndarray, step: int) -> None:
        """Log a picture [H, W, 3] uint8."""

    def video(self, name: str, path: Path, step: int) -> None:
        """Log a film, an .mp4 file."""

    def close(self) -> None:
        """Write what is not written yet."""


def make_loggers(
    kinds: Iterable[str],
    run: Path,
    config: Mapping[str, Any],
    resume_epoch: int = 0,
    resume_step: int = 0,
) -> list[Logger]:
    """Loggers that write to the folder of a run.

    Args:
        kinds: Any of "tensorboard", "csv", "wandb".
        config: What to show beside the curves.
        resume_epoch: The last epoch that counts, 0 for a new run. What an earlier process logged
            after it is dropped, so that no step appears twice.
        resume_step: The step at its end.
    """
    makers = {
        "tensorboard": lambda: TensorBoard(run, config, resume_step),
        "csv": lambda: Csv(run / "metrics.csv", resume_epoch),
        "wandb": lambda: WandB(run, config),
    }
    return [makers[kind]() for kind in dict.fromkeys(kinds)]


class TensorBoard(Logger):
    """Curves, pictures and films in the folder tensorboard/."""

    def __init__(self, run: Path, config: Mapping[str, Any], resume_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.folder = run / "tensorboard"
        # TensorBoard hides what earlier processes wrote from `purge_step` on.
        self.writer = SummaryWriter(str(self.folder), purge_step=resume_step + 1)
        text = json.dumps(config, indent=2, default=str)
        self.writer.add_text("config", f"```\n{text}\n```", resume_step)

    def log(self, metrics: Mapping[str, float], step: int, epoch: int) -> None:
        if shutil.disk_usage(self.folder).free < SPARE:  # its thread would print a traceback
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
        for name, value in {**metrics, "epoch": epoch}.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def image(self, name: str, array: np.ndarray, step: int) -> None:
        self.writer.add_image(name, array, step, dataformats="HWC")

    def video(self, name: str, path: Path, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        frames = imageio.imread(path)
        height, width = frames.shape[1:3]
        # TensorBoard shows an animated GIF; its own add_video would need moviepy.
        film = Summary.Image(height=height, width=width, encoded_image_string=gif(frames, fps=15))
        summary = Summary(value=[Summary.Value(tag=name, image=film)])
        self.writer.file_writer.add_summary(summary, step)

    def close(self) -> None:
        self.writer.close()


class Csv(Logger):
    """The table metrics.csv, written whole or not at all."""

    def __init__(self, path: Path, resume_epoch: int) -> None:
        self.path = path
        self.rows = [row for row in read_metrics(path) if row["epoch"] <= resume_epoch]
        write_metrics(path, self.rows)

    def log(self, metrics: Mapping[str, float], step: int, epoch: int) -> None:
        if not self.rows or self.rows[-1]["epoch"] != epoch:
            self.rows.append({"epoch": epoch, "step": step})
        self.rows[-1] |= metrics
        write_metrics(self.path, self.rows)


class WandB(Logger):
    """Weights & Biases, project deltadream. A resumed run goes on in the same curves."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        import wandb

        self.wandb, path = wandb, run / "wandb_id.txt"
        if not path.exists():
            files.write(path, os.urandom(4).hex().encode())
        about = {"id": path.read_text().strip(), "name": run.name, "config": dict(config)}
        self.run = wandb.init(project="deltadream", resume="allow", dir=str(run), **about)
        # Ours is the x-axis: W&B's own counter cannot go back to where a resumed run starts.
        self.run.define_metric("*", step_metric="step")

    def log(self, metrics: Mapping[str, float], step: int, epoch: int) -> None:
        self.run.log({**metrics, "step": step, "epoch": epoch})

    def image(self, name: str, array: np.ndarray, step: int) -> None:
        self.run.log({name: self.wandb.Image(array), "step": step})

    def video(self, name: str, path: Path, step: int) -> None:
        self.run.log({name: self.wandb.Video(str(path), format=path.suffix[1:]), "step": step})

    def close(self) -> None:
        self.run.finish()
