"""What watches a run: callbacks with four hooks, as in Keras, Lightning and Stable-Baselines3."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import psutil
import torch
from tqdm import tqdm

from agent.media.previews import pictures, write_dream, write_episode
from agent.storage.files import disk_full
from agent.training import health
from agent.training.components import PARTS
from agent.training.logger import Logger
from envs.errors import describe

if TYPE_CHECKING:
    from agent.training.trainer import Trainer


class Callback:
    """Watches a run. Override the hooks that you need.

    `trainer` has `epoch`, `config`, `agent`, `replay`, `evaluation` and `finish()`, which ends the
    run after the present epoch.
    """

    def on_start(self, trainer: Trainer) -> None:
        """Before the first epoch, or where a resumed run goes on."""

    def on_stage_end(self, trainer: Trainer, stage: str, metrics: dict[str, float]) -> None:
        """After collect, tokenizer, dynamics, policy, evaluate and save, with their metrics."""

    def on_epoch_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """After each epoch, with the metrics of all its stages, before it is saved."""

    def on_stop(self, trainer: Trainer) -> None:
        """When the run ends, however it does."""


class Best(Callback):
    """Keeps epoch and return of the best evaluation, whose checkpoint stays."""

    def on_stage_end(self, trainer: Trainer, stage: str, metrics: dict[str, float]) -> None:
        if stage == "evaluate":
            value, best = metrics["evaluate/return_mean"], trainer.best["return"]
            if best is None or value > best:
                trainer.best = {"epoch": trainer.epoch, "return": value}


class Logging(Callback):
    """Writes the metrics of an epoch, with where its seconds went.

    A row is written when the parts have learned, and completed after evaluating and saving.
    """

    def __init__(self, loggers: list[Logger]) -> None:
        self.loggers = loggers

    def on_stage_end(self, trainer: Trainer, stage: str, metrics: dict[str, float]) -> None:
        if stage == PARTS[-1]:
            memory = psutil.Process().memory_info()
            # Pages of a replay on disk count as resident and shared; the system takes them back.
            own = (memory.rss - getattr(memory, "shared", 0)) / 1e9
            metrics = trainer.state.metrics | {"memory_gb": own, "minutes": trainer.watch.minutes}
        elif stage not in ("evaluate", "save"):
            return
        metrics = metrics | trainer.watch.breakdown()
        for logger in self.loggers:
            logger.log(metrics, trainer.replay.steps_added, trainer.epoch)

    def on_stop(self, trainer: Trainer) -> None:
        for logger in self.loggers:
            logger.close()


class Films(Callback):
    """Pictures and films of an evaluated episode and of dreams of it."""

    def __init__(self, loggers: list[Logger]) -> None:
        self.loggers = loggers

    def on_stage_end(self, trainer: Trainer, stage: str, metrics: dict[str, float]) -> None:
        if stage != "evaluate":
            return
        devices = [trainer.agent.device] if trainer.agent.device.type == "cuda" else []
        # To dream draws random numbers, and learning must not notice.
        with trainer.watch.timed("log"), torch.random.fork_rng(devices):
            try:
                self.show(trainer)
            except (OSError, RuntimeError) as error:  # no ffmpeg, say: the run goes on
                if disk_full(error):
                    raise
                what = f"Epoch {trainer.epoch}: not all films were made ({describe(error)})."
                tqdm.write(what, file=sys.stderr)

    def show(self, trainer: Trainer) -> None:
        """Write and log them."""
        agent, recording = trainer.agent, trainer.evaluation.recording
        folder, step = trainer.folder / "films", trainer.replay.steps_added
        folder.mkdir(exist_ok=True)
        episode, dream = (
            folder / f"epoch_{trainer.epoch:06d}_{kind}.mp4" for kind in ("episode", "dream")
        )
        write_episode(episode, recording)
        write_dream([dream, dream.with_suffix(".gif")], agent, recording)
        shown = pictures(agent, recording)
        for logger in self.loggers:
            logger.video("evaluate/episode", episode, step)
            logger.video("evaluate/dream", dream, step)
            for kind, picture in shown.items():
                logger.image(f"evaluate/{kind}", picture, step)


class HealthWarnings(Callback):
    """Warns of what goes wrong, once as long as it lasts."""

    def __init__(self) -> None:
        self.warned: set[str] = set()

    def on_stage_end(self, trainer: Trainer, stage: str, metrics: dict[str, float]) -> None:
        if stage == "evaluate":
            for remark in trainer.evaluation.remarks():
                tqdm.write(remark)
        if stage == PARTS[-1]:
            actions, sizes = trainer.agent.spaces.actions, trainer.replay.reward_sizes()
            metrics = trainer.state.metrics
            found = health.warnings(metrics, trainer.agent.config, actions, sizes)
            for name, warning in found.items():
                if name not in self.warned:
                    tqdm.write(f"Epoch {trainer.epoch}: {warning}", file=sys.stderr)
            self.warned = set(found)
