"""Where a run's numbers go: TensorBoard, a CSV file, and Weights & Biases for those who ask.

metrics.csv has one row for each (epoch, step) and one column for each metric, as pandas and
spreadsheets like it: every curve is two columns, without a pivot. A metric that first appears
late (an evaluation, say) adds a column, for which the file is written anew beside the old one and
renamed onto it. A row is on disk as soon as its first number is known, and completed in place.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import imageio.v2 as imageio
import numpy as np

from agent import files
from agent.files import naming
from agent.films import gif
from envs.errors import BadInput

KINDS = ("tensorboard", "csv", "wandb")
MOST = 64 * 2**20  # bytes of a metrics.csv that is read: a hundred thousand epochs


class _Writer(Protocol):
    def log(self, metrics: Mapping[str, float], step: int, epoch: int) -> None: ...
    def image(self, name: str, array: np.ndarray, step: int) -> None: ...
    def video(self, name: str, path: Path, step: int) -> None: ...
    def close(self) -> None: ...


class Logger:
    """Hands everything to each of its writers. `step` counts steps of the environments."""

    def __init__(self, writers: Iterable[_Writer]) -> None:
        self.writers = list(writers)

    def log(self, metrics: Mapping[str, float], step: int, epoch: int) -> None:
        """Metrics are named part/what, as in tokenizer/loss; values are numbers or tensors of one element."""
        metrics = {name: float(value) for name, value in metrics.items()}
        for writer in self.writers:
            writer.log(metrics, int(step), int(epoch))

    def image(self, name: str, array: np.ndarray, step: int) -> None:
        """array: [H, W, 3] uint8 in 0..255."""
        for writer in self.writers:
            writer.image(name, array, step)

    def video(self, name: str, path: Path, step: int) -> None:
        """path: an .mp4 or .gif file."""
        for writer in self.writers:
            writer.video(name, Path(path), step)

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


def make_logger(
    kinds: Iterable[str], run: Path, config: Mapping[str, Any], resume_epoch: int = 0, resume_step: int = 0
) -> Logger:
    """A logger that writes to the folder `run`.

    kinds:  any of "tensorboard", "csv", "wandb"
    config: what to show beside the curves
    resume_epoch, resume_step: the last epoch and step that count; 0 and 0 for a new run. What an
            earlier process logged after them is dropped, so that no step appears twice.
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


class _TensorBoard:
    """An events file, as SummaryWriter writes it, but in this thread and at once: a full disk is met where it is met."""

    def __init__(self, run: Path, config: Mapping[str, Any], resume_epoch: int, resume_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter
        from torch.utils.tensorboard import summary  # slow to import, and not everybody's choice

        self.event, self.summary = Event, summary
        folder = run / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files in the order of their names: a clock that was set back must not put this one first.
        earlier = [int(path.suffixes[2][1:]) for path in folder.glob("events.out.tfevents.[0-9]*.*") if path.suffixes[2][1:].isdecimal()]
        now = max([int(time.time()), *(second + 1 for second in earlier)])
        self.path = folder / f"events.out.tfevents.{now:010d}.{socket.gethostname()}.{os.getpid()}.0"
        self.file = open(self.path, "xb", buffering=0)  # nothing waits, nothing is left to fail at the end
        self.records = RecordWriter(self.file)
        # TensorBoard hides the events of earlier processes from this step on.
        purge_step = resume_step + 1 if resume_epoch else 0
        self._write(purge_step, file_version="brain.Event:2")
        self._write(purge_step, session_log=SessionLog(status=SessionLog.START))
        text = json.dumps(config, indent=2, default=str)
        self._write(resume_step, summary=summary.text("config", f"```\n{text}\n```"))

    def _write(self, step: int, **what: Any) -> None:
        with naming(self.path):
            self.records.write(self.event(wall_time=time.time(), step=int(step), **what).SerializeToString())

    def log(self, metrics: Mapping[str, float], step: int, epoch: int) -> None:
        for name, value in {**metrics, "epoch": epoch}.items():
            self._write(step, summary=self.summary.scalar(name, value))

    def image(self, name: str, array: np.ndarray, step: int) -> None:
        self._write(step, summary=self.summary.image(name, array, dataformats="HWC"))

    def video(self, name: str, path: Path, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        # To TensorBoard a video is a picture that happens to be an animated GIF. Its own add_video
        # would need moviepy.
        data, fps = path.read_bytes(), 15.0
        with imageio.get_reader(path) as reader:
            height, width = np.asarray(reader.get_data(0)).shape[:2]
            if path.suffix != ".gif":
                fps = reader.get_meta_data()["fps"]
                data = gif(np.stack([np.asarray(frame) for frame in reader]), fps)
        picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        self._write(step, summary=Summary(value=[Summary.Value(tag=name, image=picture)]))

    def close(self) -> None:
        self.file.close()


class _Csv:
    def __init__(self, path: Path, resume_epoch: int) -> None:
        self.path = path
        rows = [row for row in read_metrics(path) if row["epoch"] <= resume_epoch]
        # In order of appearance, without the columns that only dropped rows filled.
        self.columns = list(dict.fromkeys(["epoch", "step", *(name for row in rows for name in row)]))
        self.row: dict[str, float] = rows.pop() if rows else {}  # the last one, which may still grow
        self._rewrite(rows)

    def log(self, metrics: Mapping[str, float], step: int, epoch: int) -> None:
        if (self.row.get("epoch"), self.row.get("step")) != (epoch, step):
            self.row = {"epoch": epoch, "step": step}
            self.start = self.path.stat().st_size
        self.row |= metrics
        if new := [name for name in metrics if name not in self.columns]:
            self.columns += new
            self._rewrite([row for row in read_metrics(self.path) if (row["epoch"], row["step"]) != (epoch, step)])
            return
        with naming(self.path), open(self.path, "r+b") as file:
            file.seek(self.start)
            file.write(self._lines([self.row]))
            file.truncate()

    def _rewrite(self, earlier: list[dict[str, float]]) -> None:
        """Write the file anew: the header, earlier rows, the current row."""
        text = ",".join(self.columns).encode() + b"\n" + self._lines(earlier)
        self.start = len(text)  # where the current row starts
        files.write(self.path, text + (self._lines([self.row]) if self.row else b""))

    def _lines(self, rows: list[dict[str, float]]) -> bytes:
        # Nine digits are exact for float32; epoch and step are whole.
        lines = [[_number(row[name]) if name in row else "" for name in self.columns] for row in rows]
        return "".join(",".join(line) + "\n" for line in lines).encode()

    def image(self, name: str, array: np.ndarray, step: int) -> None:
        """Pictures have no place in a table."""

    def video(self, name: str, path: Path, step: int) -> None:
        """Nor have videos."""

    def close(self) -> None:
        """Nothing is open."""


class _WandB:
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
        identifier = files.read(path, run, most=100).decode("ascii", errors="replace").strip()
        if not re.fullmatch(r"\w{1,64}", identifier, re.ASCII):
            raise BadInput(f"{path} holds {identifier!r}, which names no run of Weights & Biases; take it away.")
        self.run = wandb.init(
            project="deltadream", name=run.name, id=identifier, resume="allow", dir=str(run), config=dict(config),
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


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else format(value, ".9g")


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv, in order: {"epoch": int, "step": int, metric: float, ...}.

    A metric without a value is left out of its row. No file, no rows; a row that a crash cut
    short is passed over. Raises BadInput if the file is no log of ours.
    """
    if not os.path.lexists(path):
        return []
    try:
        text = files.read(path, path.parent, MOST).decode("utf-8", errors="replace")
    except files.Unfit as error:
        raise BadInput(f"{path} {error}; move it away.") from error
    foreign = BadInput(f"{path} is not a log of ours: its first columns must be epoch and step; move it away.")
    try:
        lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
    except csv.Error as error:  # a field without end
        raise foreign from error
    if text and (not lines or lines[0][:2] != ["epoch", "step"]):
        raise foreign
    rows = []
    for line in lines[1:]:
        try:
            numbers = [(name, text) for name, text in zip(lines[0], line, strict=True) if text]
            rows.append({name: int(text) if name in ("epoch", "step") else float(text) for name, text in numbers})
            rows[-1]["epoch"], rows[-1]["step"]
        except (ValueError, KeyError):
            continue
    return rows


def plot_curves(run: Path) -> Path:
    """Draw `run`/metrics.csv as `run`/curves.png, one panel per kind of metric that it holds."""
    from matplotlib.figure import Figure  # slow to import; without pyplot it needs no display

    rows = read_metrics(run / "metrics.csv")
    if not rows:
        raise BadInput(f"{run} has no metrics.csv with rows in it; give the folder of a run that logs to csv.")
    panels = _panels(list(dict.fromkeys(name for row in rows for name in row if name not in ("epoch", "step", "minutes"))))
    width = min(3, len(panels))
    height = -(-len(panels) // width)
    figure = Figure(figsize=(5 * width, 3.2 * height), dpi=110, layout="constrained")
    for place, (title, names) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(height, width, place)
        x = "step" if title == "Returns" else "epoch"  # a return is judged by the experience that it took
        for name in names:
            points = [(row[x], row[name]) for row in rows if name in row]
            marker = "o" if len(points) < 30 else ""
            axes.plot(*zip(*points, strict=True), marker=marker, markersize=3, linewidth=1.3, label=name)
        positive = all(not row[name] <= 0 for name in names for row in rows if name in row)
        if title.endswith("losses") and positive:
            axes.set_yscale("log")
        axes.set(title=title, xlabel="environment steps" if x == "step" else "epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    files.write(run / "curves.png", picture.getvalue())
    return run / "curves.png"


def _panels(metrics: list[str]) -> dict[str, list[str]]:
    """Title -> names of the metrics drawn in it; only panels that have some."""
    panels: dict[str, list[str]] = {"Returns": []}
    for name in metrics:
        part, _, what = name.rpartition("/")
        if "return" in what and part in ("collect", "evaluate"):
            title = "Returns"
        elif "loss" in what:
            title = f"{part.capitalize()} losses"
        elif "entropy" in what:
            title = f"{part.capitalize()} entropy"
        elif "codebook" in what:
            title = "Codebook use"
        else:
            title = part.capitalize() or "Other"
        panels.setdefault(title, []).append(name)
    return {title: names for title, names in panels.items() if names}
