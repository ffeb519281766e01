"""The loop of the paper: collect, learn tokenizer, dynamics and policy (Δ-IRIS, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from agent.agent import Agent
from agent.config import TrainConfig
from agent.data.collect import Collector
from agent.data.prefetch import Prefetcher
from agent.data.replay import Replay
from agent.evaluation.evaluate import Evaluation
from agent.execution import EAGER, Execution
from agent.signals import Pause
from agent.storage import checkpoint
from agent.training import saving, stages
from agent.training.callbacks import Callback
from agent.training.components import PARTS, make_learner
from agent.training.progress import progress
from agent.training.state import STAGES, RunState, Stopwatch
from envs.errors import BadInput, EnvironmentFailed
from envs.vector import make_vector


class Trainer:
    """Holds what a run consists of; `run` is the loop.

    Raises:
        BadInput: The environment cannot be played.
        EnvironmentFailed: The environment fails in its first reset.

    Attributes:
        epoch: Number of epochs that are over, evaluation aside.
        state: Where the run stands within the epoch.
        best: Epoch and return of the best evaluation so far.
        evaluation: The last one.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        agent: Agent,
        execution: Execution = EAGER,
        callbacks: Iterable[Callback] = (),
    ) -> None:
        self.config, self.folder, self.agent, self.callbacks = config, folder, agent, [*callbacks]
        num_envs = config.collect.num_envs
        seeds = np.random.SeedSequence(config.seed).generate_state(num_envs + 1).tolist()
        rows = folder / "replay"
        rows.mkdir(parents=True, exist_ok=True)
        self.replay = Replay(config.replay, num_envs, agent.spaces, seeds[0], rows, agent.device)
        self.envs = make_vector(config.env, seeds[1:])
        try:
            self.collector = Collector(self.envs, agent, self.replay, config.collect.epsilon)
        except BaseException:
            self.envs.close(terminate=True)
            raise
        self.learners = {part: make_learner(agent, config, part, execution) for part in PARTS}
        self.prefetcher, self.watch = Prefetcher(agent.device), Stopwatch()
        self.epoch, self.state, self.finished = 0, RunState(), False
        self.best: dict[str, Any] = {"epoch": None, "return": None}
        self.evaluation: Evaluation | None = None
        self.chunks: tuple[checkpoint.ChunkRecord, ...] = ()
        self.stop: Callable[[], bool] = lambda: False

    def run(self, stop: Callable[[], bool] = lambda: False) -> None:
        """All epochs from where the run stands.

        Raises:
            NonFinite: A loss is not finite.
            Pause: `stop()` was true; the run is saved.
            EnvironmentFailed, BadInput: An environment failed; the run is saved.
        """
        self.stop = stop
        self.emit("on_start")
        try:
            with progress("epochs", self.config.epochs, "epoch", self.epoch, leave=True) as bar:
                while not self.is_last or self.state.stage == "evaluate":
                    self.run_epoch()
                    bar.update()
        except (Pause, EnvironmentFailed, BadInput) as end:
            if self.state.stage == "collect" and not isinstance(end, Pause):
                self.collector.abandon()
            saved = checkpoint.newest(self.folder) == checkpoint.folder_of(self.folder, self.epoch)
            if self.state != RunState() or not saved:
                saving.save(self, paused=True)
            raise
        finally:
            self.emit("on_stop")

    def run_epoch(self) -> None:
        """From where the run stands to the start of the next epoch."""
        while (stage := self.state.stage) != "evaluate":
            if self.stop():
                raise Pause
            metrics = stages.collect(self) if stage == "collect" else stages.learn(self, stage)
            following = STAGES[STAGES.index(stage) + 1]
            self.epoch += following == "evaluate"
            self.state = RunState(following, metrics=self.state.metrics | metrics)
            self.emit("on_stage_end", stage, metrics)
        metrics = self.state.metrics
        if self.epoch % self.config.evaluate_every == 0 or self.is_last:
            evaluated = stages.evaluate(self)
            self.emit("on_stage_end", "evaluate", evaluated)
            metrics = metrics | evaluated
        self.emit("on_epoch_end", metrics)
        self.state = RunState()
        is_best = self.best["epoch"] == self.epoch
        if self.epoch % self.config.checkpoint_every == 0 or self.is_last or is_best:
            with self.watch.timed("save"):
                size = saving.save(self)
            self.emit("on_stage_end", "save", {"checkpoint_gb": size / 1e9})

    @property
    def is_last(self) -> bool:
        """Whether no epoch follows."""
        return self.finished or self.epoch >= self.config.epochs

    def finish(self) -> None:
        """Have the run end after the present epoch, which is saved. For callbacks."""
        self.finished = True

    def emit(self, hook: str, *arguments: Any) -> None:
        """Call a hook of every callback."""
        for callback in self.callbacks:
            getattr(callback, hook)(self, *arguments)
