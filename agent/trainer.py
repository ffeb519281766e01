"""The loop of the paper: collect, learn tokenizer, dynamics and policy, evaluate (Δ-IRIS, algorithm 1)."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import psutil
import torch
from tqdm import tqdm

from agent import checkpoint
from agent.agent import Agent
from agent.collect import Collector, Episode, achievements_of
from agent.config import TrainConfig
from agent.evaluation import evaluate
from agent.execution import Execution
from agent.feeding import Feed
from agent.learner import Averages
from agent.logger import Logger
from agent.parts import PARTS, make_learner, schedule_of, time_update, total_updates, window
from agent.previews import pictures, write_dream, write_episode
from agent.progress import progress
from agent.replay import Replay
from agent.results import describe_evaluation, result_path, write_result
from agent.segment import Segment
from envs.scores import crafter_score, crafter_success_rates
from envs.vector import make_vector

CHUNK_STEPS = 1000  # steps of the vector environment in a file of the replay: what a save holds in memory twice
READ_EVERY = 50  # updates between two readings of the losses: each is a synchronisation on a GPU


class Trainer:
    """Holds what a run consists of. `run()` is the loop; `logger` may be set before it."""

    def __init__(
        self, config: TrainConfig, folder: Path, agent: Agent, execution: Execution = Execution()  # noqa: B008
    ) -> None:
        self.config, self.folder, self.agent, self.logger = config, folder, agent, Logger([])
        seeds = np.random.SeedSequence(config.seed).generate_state(config.collect.num_envs + 1).tolist()
        (folder / "replay").mkdir(parents=True, exist_ok=True)
        self.replay = Replay(config.replay, config.collect.num_envs, agent.spaces, seeds[0], folder / "replay", agent.device)
        self.envs = make_vector(config.env, seeds[1:])
        try:
            self.collector = Collector(self.envs, agent, self.replay, config.collect.epsilon)
        except BaseException:  # of their first reset
            self.envs.close(terminate=True)
            raise
        self.learners = {part: make_learner(agent, config, part, execution) for part in PARTS}
        self.feed = Feed(agent.device)
        self.seconds: dict[str, float] = {}
        self.epoch = 0
        self.best: dict[str, Any] = {"epoch": None, "return": None}
        self.chunks: tuple[checkpoint.ChunkRecord, ...] = ()

    def run(self) -> None:
        """All epochs from the present one on. Raises NonFinite if a loss is."""
        with progress("epochs", self.config.epochs, "epoch", initial=self.epoch, leave=True) as bar:
            while self.epoch < self.config.epochs:
                metrics = self.train_epoch()
                self.epoch += 1
                self.log(metrics | self.breakdown())
                last = self.epoch == self.config.epochs
                if self.epoch % self.config.evaluate_every == 0 or last:
                    self.evaluate()
                if self.epoch % self.config.checkpoint_every == 0 or last:
                    with self.timed("save"):
                        self.save()
                self.log(self.breakdown())
                bar.update()

    def forecast(self) -> str:
        """How long the epochs that are left will take, from a timed update of each part, which leaves no trace."""
        seconds = {}
        for part in PARTS:
            if updates := total_updates(self.config, part, self.epoch):
                seconds[part] = updates * time_update(self.agent, self.config, part, self.learners[part])
        parts = ", ".join(f"{part} {duration(amount)}" for part, amount in seconds.items())
        return f"about {duration(sum(seconds.values()))} of updates ({parts}); playing and evaluating come on top"

    def train_epoch(self) -> dict[str, float]:
        """Collect, then learn each part -> what became of it."""
        config, metrics = self.config, {}
        if self.epoch < config.collect.epochs:
            metrics |= self.collect()
        for part in PARTS:
            metrics |= self.learn(part)
        memory = psutil.Process().memory_info()
        # Pages of a replay on disk count as resident and shared; the system takes them back when it must.
        return metrics | {"memory_gb": (memory.rss - getattr(memory, "shared", 0)) / 1e9}

    def collect(self) -> dict[str, float]:
        """The epoch's environment steps -> what became of them."""
        first = self.epoch == 0
        steps = self.config.collect.first_steps if first else self.config.collect.steps
        before, restarts = self.replay.steps_added, self.collector.restarts
        with self.timed("collect"), self.bar("collect", steps, "step") as bar:
            episodes = self.collector.collect(steps, random=first, progress=bar.update)
        speed = (self.replay.steps_added - before) / self.seconds["collect"]
        metrics = {"rates/collect_frames_per_second": speed} | episode_metrics(episodes)
        return metrics | {"collect/restarts": float(self.collector.restarts - restarts)}

    def learn(self, part: str) -> dict[str, float]:
        """The epoch's updates of one part -> the means of its metrics."""
        updates = schedule_of(self.config, part).updates_in(self.epoch)
        if updates == 0:
            return {}
        learner, averages, feed = self.learners[part], Averages(), self.feed
        batch, steps, anchor = window(self.config, part)
        count = self.epoch > 0  # as published, the first epoch draws episodes uniformly
        segments = feed.segments(
            lambda: self.replay.sample(part, batch, steps, anchor, count), updates, ahead=lambda: learner.settled
        )
        with self.timed(part), self.bar(part, updates, "update") as bar, contextlib.closing(segments):
            for i, segment in enumerate(segments, start=1):
                metrics = learner.update(segment)
                averages.add({f"{part}/{name}": value for name, value in metrics.items()})
                bar.update()
                if i % READ_EVERY == 0 or i == updates:
                    means = averages.read()
                    bar.set_postfix(loss=f"{means[f'{part}/loss']:.4f}", refresh=False)
        speed = updates / self.seconds[part]
        self.seconds[part] -= feed.waited
        for what, seconds in (("wait", feed.waited), ("sample", feed.sampled), ("transfer", feed.transferred)):
            self.seconds[what] = self.seconds.get(what, 0.0) + seconds
        if part == "tokenizer":
            means |= {f"tokenizer/{name}": value.item() for name, value in self.agent.tokenizer.diagnostics().items()}
        # Of the replay, and for the policy the imagined ones.
        frames = batch * (self.config.agent.actor_critic.horizon if part == "policy" else steps)
        return means | {f"rates/{part}_updates_per_second": speed, f"rates/{part}_frames_per_second": speed * frames}

    def evaluate(self) -> None:
        """Episodes with the present policy; pictures and films of one of them."""
        last = self.epoch == self.config.epochs
        settings = self.config.final_evaluation if last else self.config.evaluation
        with self.timed("evaluate"), self.bar("evaluate", settings.episodes, "episode") as bar:
            result = evaluate(self.agent, self.config.env, settings, bar.update)
        for remark in result.remarks():
            tqdm.write(remark)
        summary = result.summary()
        if last:
            checkpoint_folder = checkpoint.folder_of(self.folder, self.epoch)
            steps = self.replay.steps_added
            about = describe_evaluation(self.config, settings, "agent", checkpoint_folder, self.epoch, steps)
            write_result(result_path(self.folder, "agent", self.epoch, settings), about, result)
        speed = float(result.lengths.sum()) / self.seconds["evaluate"]
        self.log({f"evaluate/{k}": v for k, v in summary.items()} | {"rates/evaluate_frames_per_second": speed})
        if self.best["return"] is None or summary["return_mean"] > self.best["return"]:
            self.best = {"epoch": self.epoch, "return": summary["return_mean"]}

        devices = [self.agent.device] if self.agent.device.type == "cuda" else []
        with self.timed("log"), torch.random.fork_rng(devices):  # to dream draws random numbers, and learning must not notice
            self.show(result.recording)

    def show(self, recording: Segment) -> None:
        """Pictures and films of an episode and of dreams of it."""
        films = self.folder / "films"
        films.mkdir(exist_ok=True)
        name = f"epoch_{self.epoch:06d}"
        write_episode(films / f"{name}_episode.mp4", recording)
        write_dream([films / f"{name}_dream.mp4", films / f"{name}_dream.gif"], self.agent, recording)
        for kind in ("episode", "dream"):
            self.logger.video(f"evaluate/{kind}", films / f"{name}_{kind}.mp4", self.replay.steps_added)
        for kind, picture in pictures(self.agent, recording).items():
            self.logger.image(f"evaluate/{kind}", picture, self.replay.steps_added)

    def save(self) -> Path:
        """A checkpoint of everything; rows of the replay that an earlier one holds are not written again."""
        first = self.chunks[-1].last if self.chunks else 0
        last = self.replay.table.vector_steps
        self.chunks = tuple(c for c in self.chunks if c.last > self.replay.table.oldest)
        first = max(first, self.replay.table.oldest)
        for start in range(first, last, CHUNK_STEPS):
            stop = min(start + CHUNK_STEPS, last)
            self.chunks += (checkpoint.append_rows(self.folder, start, stop, self.replay.rows(start, stop)),)
        self.logger.flush()
        replay_state = self.replay.state_dict()
        collector_tensors, collector_state = self.collector.state_dict()
        random_tensors, random_state = checkpoint.random_state()
        tensors = {
            "agent": self.agent.state_dict(),
            **{f"{part}_optimizer": learner.state_dict() for part, learner in self.learners.items()},
            "replay": {name: torch.from_numpy(column) for name, column in replay_state.pop("episodes").items()},
            "collector": collector_tensors,
            "random": random_tensors,
        }
        state = {
            "config": dataclasses.asdict(self.config),
            "spaces": dataclasses.asdict(self.agent.spaces),
            "replay": replay_state,
            "collector": collector_state,
            "random": random_state,
            "best": self.best,
        }
        return checkpoint.save(
            self.folder, self.epoch, tensors, state, self.chunks, keep=self.config.keep, best=self.best["epoch"]
        )

    def load(self, saved: checkpoint.Checkpoint) -> None:
        """Go on from a checkpoint of this run."""
        self.agent.load_state_dict(saved.tensors["agent"])
        for part, learner in self.learners.items():
            learner.load_state_dict(saved.tensors[f"{part}_optimizer"])
        episodes = {name: column.numpy() for name, column in saved.tensors["replay"].items()}
        self.replay.load_state_dict(saved.state["replay"] | {"episodes": episodes})
        for chunk in saved.chunks:
            self.replay.load_rows(chunk.first, checkpoint.read_rows(saved.run, chunk))
        self.chunks = saved.chunks
        if not self.collector.load_state_dict(saved.tensors["collector"], saved.state["collector"]):
            tqdm.write("The environments did not come back as they were; their running episodes count as truncated.")
        self.epoch, self.best = saved.epoch, saved.state["best"]
        checkpoint.set_random_state(saved.tensors["random"], saved.state["random"])

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Counts the seconds that pass within as `what`'s."""
        started = perf_counter()
        try:
            yield
        finally:
            self.seconds[what] = self.seconds.get(what, 0.0) + perf_counter() - started

    def breakdown(self) -> dict[str, float]:
        """Where the seconds since the last call went. While `sample` and `transfer` prepare the next batch, updates
        run; `wait` is what these had to wait for it."""
        spent = {f"seconds/{what}": seconds for what, seconds in self.seconds.items()}
        self.seconds.clear()
        return spent

    def log(self, metrics: dict[str, float]) -> None:
        self.logger.log(metrics, step=self.replay.steps_added, epoch=self.epoch)

    def bar(self, name: str, total: int, unit: str) -> tqdm:
        return progress(f"epoch {self.epoch} {name}", total, unit)


def duration(seconds: float) -> str:
    """For people."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def episode_metrics(episodes: list[Episode]) -> dict[str, float]:
    """Of the episodes that came to their ends while collecting; empty if none did."""
    episodes = [episode for episode in episodes if not episode.is_broken]
    if not episodes:
        return {}
    metrics = {
        "collect/episodes": float(len(episodes)),
        "collect/return_mean": float(np.mean([episode.total_reward for episode in episodes])),
        "collect/length_mean": float(np.mean([episode.length for episode in episodes])),
    }
    if (achievements := achievements_of(episodes)) is not None:
        metrics["collect/crafter_score"] = crafter_score(crafter_success_rates(achievements))
    return metrics
