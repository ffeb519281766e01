"""Where a run's numbers go: TensorBoard, a CSV file, and Weights & Biases for those who ask.

metrics.csv has one row for each (epoch, step) and one column for each metric, as pandas and
spreadsheets like it: every curve is two columns, without a pivot.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np

from agent.media.films import gif
from agent.storage import files
from agent.storage.metrics import read_metrics, write_metrics
from envs.errors import BadInput

KINDS = ("tensorboard", "csv", "wandb")
SPARE = 2**20  # bytes of disk that TensorBoard wants for an epoch


class Logger:
    """Hands everything to each of its writers. `step` counts steps of the environments."""

    writers: Iterable[Logger] = ()

    def __init__(self, writers: Iterable[Logger]) -> None:
        self.writers = list(writers)

    def log(self, metrics: Mapping[str, float], step: int, epoch: int) -> None:
        """Log numbers or tensors of one element, named part/what, as in tokenizer/loss."""
        metrics = {name: float(value) for name, value in metrics.items()}
        for writer in self.writers:
            writer.log(metrics, int(step), int(epoch))

    def image(self, name: str, array: np.ndarray, step: int) -> None:
        """Log a picture [H, W, 3] uint8 in 0..255."""
        for writer in self.writers:
            writer.image(name, array, step)

    def video(self, name: str, path: Path, step: int) -> None:
        """Log a film, an .mp4 or .gif file."""
        for writer in self.writers:
            writer.video(name, path, step)

    def close(self) -> None:
        """Write what is not written yet."""
        for writer in self.writers:
            writer.close()


def make_logger(
    kinds: Iterable[str],
    run: Path,
    config: Mapping[str, Any],
    resume_epoch: int = 0,
    resume_step: int = 0,
) -> Logger:
    """A logger that writes to the folder of a run.

    Args:
        kinds: any of "tensorboard", "csv", "wandb".
        run: the folder.
        config: what to show beside the curves.
        resume_epoch: the last epoch that counts, 0 for a new run. What an earlier process logged
            after it is dropped, so that no step appears twice.
        resume_step: the step at its end.

    Raises:
        BadInput: a kind is not known or not installed, or metrics.csv is no log of ours.
    """
    kinds = list(dict.fromkeys(kinds))
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise BadInput(f"The logger {unknown[0]!r} is not known; choose any of {', '.join(KINDS)}.")
    run.mkdir(parents=True, exist_ok=True)
    makers = {
        "tensorboard": lambda: _TensorBoard(run, config, resume_epoch, resume_step),
        "csv": lambda: _Csv(run / "metrics.csv", resume_epoch),
        "wandb": lambda: _WandB(run, config),
    }
    return Logger(makers[kind]() for kind in kinds)


class _TensorBoard(Logger):
    def __init__(
        self, run: Path, config: Mapping[str, Any], resume_epoch: int, resume_step: int
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        # TensorBoard hides what earlier processes wrote from `purge_step` on.
        purge_step = resume_step + 1 if resume_epoch else 0
        self.folder = run / "tensorboard"
        self.folder.mkdir(parents=True, exist_ok=True)
        place = str(self.folder)
        if not place.isprintable():  # TensorBoard encodes paths as UTF-8, whatever the locale
            place = f"/proc/self/fd/{os.open(self.folder, os.O_RDONLY)}"
        self.writer = SummaryWriter(place, purge_step=purge_step)
        text = json.dumps(config, indent=2, default=str)
        self.writer.add_text("config", f"```\n{text}\n```", resume_step)
        self.writer.flush()

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

        # TensorBoard shows an animated GIF; its own add_video would need moviepy.
        with imageio.get_reader(path) as reader:
            frames = np.stack([np.asarray(frame)[..., :3] for frame in reader])
            fps = reader.get_meta_data().get("fps", 15.0)
        height, width = frames.shape[1:3]
        picture = Summary.Image(height=height, width=width, encoded_image_string=gif(frames, fps))
        self.writer.file_writer.add_summary(
            Summary(value=[Summary.Value(tag=name, image=picture)]), step
        )

    def close(self) -> None:
        self.writer.close()


class _Csv(Logger):
    def __init__(self, path: Path, resume_epoch: int) -> None:
        self.path = path
        self.rows = [row for row in read_metrics(path) if row["epoch"] <= resume_epoch]
        write_metrics(path, self.rows)

    def log(self, metrics: Mapping[str, float], step: int, epoch: int) -> None:
        place = {"epoch": epoch, "step": step}
        if not self.rows or place.items() - self.rows[-1].items():
            self.rows.append(place)
        self.rows[-1] |= metrics
        write_metrics(self.path, self.rows)  # whole or not at all; a row is some hundred bytes


class _WandB(Logger):
    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise BadInput(
                "The logger 'wandb' was asked for and Weights & Biases is not installed; "
                "run `pip install -e '.[wandb]'`, or choose from tensorboard, csv."
            ) from error
        self.wandb = wandb
        # The identifier stays with the run, so that a resumed run goes on in the same curves.
        path = run / "wandb_id.txt"
        if not path.exists():
            files.write(path, (os.urandom(4).hex() + "\n").encode())
        self.run = wandb.init(
            project="deltadream",
            name=run.name,
            id=path.read_text().strip(),
            resume="allow",
            dir=str(run),
            config=dict(config),
        )
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
