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
from envs.failures import describe

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
    """Remembers the best evaluation, whose checkpoint stays."""

    def on_stage_end(self, trainer: Trainer, stage: str, metrics: dict[str, float]) -> None:
        """As in `Callback`."""
        if stage == "evaluate":
            value = metrics["evaluate/return_mean"]
            if trainer.best["return"] is None or value > trainer.best["return"]:
                trainer.best = {"epoch": trainer.epoch, "return": value}


class Logging(Callback):
    """Writes the metrics of an epoch, with where its seconds went.

    A row is written when the parts have learned, and completed after evaluating and saving.
    """

    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def on_stage_end(self, trainer: Trainer, stage: str, metrics: dict[str, float]) -> None:
        """As in `Callback`."""
        if stage == PARTS[-1]:
            memory = psutil.Process().memory_info()
            # Pages of a replay on disk count as resident and shared; the system takes them back.
            own = memory.rss - getattr(memory, "shared", 0)
            metrics = trainer.state.metrics | {
                "memory_gb": own / 1e9,
                "minutes": trainer.watch.minutes,
            }
        elif stage not in ("evaluate", "save"):
            return
        metrics = metrics | trainer.watch.breakdown()
        self.logger.log(metrics, step=trainer.replay.steps_added, epoch=trainer.epoch)

    def on_stop(self, trainer: Trainer) -> None:
        """As in `Callback`."""
        self.logger.close()


class Films(Callback):
    """Pictures and films of an evaluated episode and of dreams of it."""

    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def on_stage_end(self, trainer: Trainer, stage: str, metrics: dict[str, float]) -> None:
        """As in `Callback`."""
        if stage != "evaluate" or trainer.evaluation is None:
            return
        devices = [trainer.agent.device] if trainer.agent.device.type == "cuda" else []
        # To dream draws random numbers, and learning must not notice.
        with trainer.watch.timed("log"), torch.random.fork_rng(devices):
            try:
                self.show(trainer)
            except (OSError, RuntimeError) as error:  # no ffmpeg, say: the run goes on
                if disk_full(error):
                    raise
                said = f"Epoch {trainer.epoch}: not all films were made ({describe(error)})."
                tqdm.write(said, file=sys.stderr)

    def show(self, trainer: Trainer) -> None:
        """Write and log them."""
        agent, recording = trainer.agent, trainer.evaluation.recording
        step, stem = (
            trainer.replay.steps_added,
            trainer.folder / "films" / f"epoch_{trainer.epoch:06d}",
        )
        stem.parent.mkdir(exist_ok=True)
        films = {kind: stem.with_name(f"{stem.name}_{kind}.mp4") for kind in ("episode", "dream")}
        write_episode(films["episode"], recording)
        write_dream([films["dream"], films["dream"].with_suffix(".gif")], agent, recording)
        for kind, film in films.items():
            self.logger.video(f"evaluate/{kind}", film, step)
        for kind, picture in pictures(agent, recording).items():
            self.logger.image(f"evaluate/{kind}", picture, step)


class HealthWarnings(Callback):
    """Says what goes wrong, once as long as it lasts."""

    def __init__(self) -> None:
        self.said: set[str] = set()
        self.cut: str | None = None  # what was said of rewards

    def on_stage_end(self, trainer: Trainer, stage: str, metrics: dict[str, float]) -> None:
        """As in `Callback`."""
        if stage == "evaluate":
            for remark in trainer.evaluation.remarks() if trainer.evaluation else ():
                tqdm.write(remark)
        if stage == "collect" and not self.cut:
            self.cut = health.cut_rewards(
                trainer.replay.reward_sizes(), trainer.config.agent.dynamics.reward
            )
            if self.cut:
                tqdm.write(self.cut, file=sys.stderr)
        if stage != PARTS[-1]:
            return
        config, (_, largest) = trainer.agent.config, trainer.replay.reward_sizes()
        if config.dynamics.reward == "sign":
            largest = float(largest > 0)
        codes, discount = config.tokenizer.quantizer.num_codes, config.actor_critic.discount
        actions = trainer.agent.spaces.actions
        found = health.warnings(trainer.state.metrics, codes, actions, largest, discount)
        for name in found.keys() - self.said:
            tqdm.write(f"Epoch {trainer.epoch}: {found[name]}", file=sys.stderr)
        self.said = set(found)
