"""The loop of the paper: collect, learn tokenizer, dynamics and policy, evaluate (Δ-IRIS, algorithm 1)."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import psutil
import safetensors.torch
import torch
from tqdm import tqdm

from agent import checkpoint, files
from agent.agent import Agent
from agent.collect import Collector, Episode, achievements_of, to_json
from agent.config import TrainConfig
from agent.evaluation import evaluate
from agent.execution import Execution
from agent.feeding import Feed
from agent.guards import doubts
from agent.learner import Averages, NonFinite
from agent.logger import Logger
from agent.parts import PARTS, make_learner, schedule_of, time_update, total_updates, window
from agent.previews import pictures, write_dream, write_episode
from agent.progress import duration, progress
from agent.random_states import get_random_state, set_random_state
from agent.replay import Draw, Replay, check_rows
from agent.results import describe_evaluation, result_path, write_result
from agent.segment import Segment
from agent.stopping import Pause
from envs.errors import BadInput, EnvironmentFailed
from envs.scores import crafter_score, crafter_success_rates
from envs.vector import make_vector

CHUNK_STEPS = 1000  # steps of the vector environment in a file of the replay: what a save holds in memory twice
READ_EVERY = 50  # updates between two readings of the losses: each is a synchronisation on a GPU


STAGES = ("collect", *PARTS, "evaluate")


@dataclass
class Place:
    """Where a run stands within an epoch.

    stage:    one of STAGES, the one that is under way or comes next
    done:     of it: environment steps, or updates
    metrics:  of the epoch's stages that are over
    episodes: that ended since the epoch began to collect
    restarts: of environments that failed since then
    averages: of the part that is learning (`Averages.state_dict`)
    """

    stage: str = STAGES[0]
    done: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    episodes: list[Episode] = field(default_factory=list)
    restarts: int = 0
    averages: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return vars(self) | {"episodes": [to_json(episode) for episode in self.episodes]}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Place:
        """The inverse of `state_dict`."""
        return cls(**state | {"episodes": [Episode(**fields) for fields in state["episodes"]]})


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
        self.started, self.minutes_before = perf_counter(), 0.0
        self.epoch, self.place = 0, Place()
        self.stop: Callable[[], bool] = lambda: False
        self.best: dict[str, Any] = {"epoch": None, "return": None}
        self.chunks: tuple[checkpoint.ChunkRecord, ...] = ()
        self.doubted: set[str] = set()  # what was warned of in the epoch before

    def run(self, stop: Callable[[], bool] = lambda: False) -> None:
        """All epochs from the present place on. Raises NonFinite if a loss is; where `stop` says so, Pause, and all is saved, as
        where an environment fails and EnvironmentFailed or BadInput is raised."""
        self.stop = stop
        try:
            with progress("epochs", self.config.epochs, "epoch", initial=self.epoch, leave=True) as bar:
                while self.epoch < self.config.epochs or self.place.stage == "evaluate":
                    self.run_epoch()
                    bar.update()
        except (Pause, EnvironmentFailed, BadInput) as end:
            if self.place.stage == "collect" and not isinstance(end, Pause):
                self.collector.abandon()
            if self.place != Place() or checkpoint.newest(self.folder) != checkpoint.folder_of(self.folder, self.epoch):
                self.save(paused=True)
            raise

    def run_epoch(self) -> None:
        """From the present place to the next epoch's start. Raises Pause, as all below."""
        if self.place.stage != "evaluate":
            metrics = self.train_epoch()
            self.epoch, self.place = self.epoch + 1, Place("evaluate")
            self.warn(metrics)
            self.log(metrics | self.breakdown() | {"minutes": self.minutes})
        last = self.epoch == self.config.epochs
        if self.epoch % self.config.evaluate_every == 0 or last:
            self.evaluate()
        self.place, metrics = Place(), {}
        if self.epoch % self.config.checkpoint_every == 0 or last or self.best["epoch"] == self.epoch:
            before = set(self.chunks)
            with self.timed("save"):
                saved = self.save()
            written = [chunk.size for chunk in set(self.chunks) - before] + [file.stat().st_size for file in saved.iterdir()]
            metrics = {"checkpoint_gb": sum(written) / 1e9}
        self.log(metrics | self.breakdown())

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
        for stage, following in itertools.pairwise(STAGES):
            if self.place.stage != stage:  # it is over
                continue
            if self.stop():
                raise Pause
            metrics = self.collect() if stage == "collect" else self.learn(stage)
            self.place = Place(following, metrics=self.place.metrics | metrics)
        memory = psutil.Process().memory_info()
        # Pages of a replay on disk count as resident and shared; the system takes them back when it must.
        return self.place.metrics | {"memory_gb": (memory.rss - getattr(memory, "shared", 0)) / 1e9}

    def collect(self) -> dict[str, float]:
        """What is left of the epoch's environment steps -> what became of all of them."""
        if self.epoch >= self.config.collect.epochs:
            return {}
        first, place, before = self.epoch == 0, self.place, self.replay.steps_added
        steps = self.config.collect.first_steps if first else self.config.collect.steps
        restarts = self.collector.restarts
        with self.timed("collect"), self.bar("collect", steps, "step", place.done) as bar:
            try:
                self.collector.collect(steps - place.done, random=first, progress=bar.update, stop=self.stop, episodes=place.episodes)
            finally:  # where an environment fails, what was played before stays
                taken = self.replay.steps_added - before
                place.done += taken
                place.restarts += self.collector.restarts - restarts
        if place.done < steps:
            raise Pause
        metrics = {"rates/collect_frames_per_second": taken / self.seconds["collect"]} | episode_metrics(place.episodes)
        return metrics | {"collect/restarts": float(place.restarts)}

    def learn(self, part: str) -> dict[str, float]:
        """What is left of the epoch's updates of one part -> the means of the metrics of all of them."""
        schedule, place = schedule_of(self.config, part), self.place
        updates = schedule.updates_in(self.epoch)
        if updates == 0:
            return {}
        learner, feed, before = self.learners[part], self.feed, place.done
        learner.set_learning_rate(schedule.learning_rate_in(self.epoch))
        averages = Averages(self.config.learner.skips, place.averages)
        batch, steps, anchor = window(self.config, part)
        count = self.epoch > 0  # as published, the first epoch draws episodes uniformly
        draws: dict[int, Draw] = {}  # update -> what it learns from, of those whose losses are not read yet
        numbers = itertools.count(before + 1)

        def draw() -> Segment:
            number = next(numbers)
            draws[number] = self.replay.draw(part, batch, steps, anchor, count)
            draws.pop(number - READ_EVERY - 1, None)  # the newest may be drawn ahead
            return self.replay.gather(draws[number])

        segments = feed.segments(draw, updates - before, ahead=lambda: learner.settled and not self.stop())
        with self.timed(part), self.bar(part, updates, "update", before) as bar, contextlib.closing(segments):
            for i, segment in enumerate(segments, start=before + 1):
                metrics = learner.update(segment)
                averages.add({f"{part}/{name}": value for name, value in metrics.items()})
                bar.update()
                pausing = i < updates and self.stop() and not feed.drawn_ahead
                if i % READ_EVERY == 0 or i == updates or pausing:
                    try:
                        means = averages.read()
                    except NonFinite as error:
                        path = self.keep_batch(part, i - error.ago, draws[i - error.ago])
                        raise NonFinite(f"{error} (its batch is kept in {path})") from error
                    if means:
                        bar.set_postfix(loss=f"{means[f'{part}/loss']:.4f}", refresh=False)
                if pausing:
                    place.done, place.averages = i, averages.state_dict()
                    raise Pause
        if averages.skipped:
            means |= {f"{part}/skipped": float(averages.skipped)}
        speed = (updates - before) / self.seconds[part]
        self.seconds[part] -= feed.waited
        for what, seconds in (("wait", feed.waited), ("sample", feed.sampled), ("transfer", feed.transferred)):
            self.seconds[what] = self.seconds.get(what, 0.0) + seconds
        if part == "tokenizer":
            means |= {f"tokenizer/{name}": value.item() for name, value in self.agent.tokenizer.diagnostics().items()}
        # Of the replay, and for the policy the imagined ones.
        frames = batch * (self.config.agent.actor_critic.horizon if part == "policy" else steps)
        return means | {f"rates/{part}_updates_per_second": speed, f"rates/{part}_frames_per_second": speed * frames}

    def keep_batch(self, part: str, update: int, draw: Draw) -> Path:
        """For a post-mortem: the batch of an update of the present epoch, a `Segment`'s tensors -> its file."""
        path = self.folder / f"non_finite_{part}_epoch_{self.epoch:06d}_update_{update:06d}.safetensors"
        tensors = dict(self.replay.gather(draw).cpu().items())
        files.write(path, safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}))
        return path

    def evaluate(self) -> None:
        """Episodes with the present policy; pictures and films of one of them."""
        last = self.epoch == self.config.epochs
        settings = self.config.final_evaluation if last else self.config.evaluation
        with self.timed("evaluate"), self.bar("evaluate", settings.episodes, "episode") as bar:
            result = evaluate(self.agent, self.config.env, settings, bar.update, stop=self.stop)
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

    def save(self, paused: bool = False) -> Path:
        """A checkpoint of everything; rows of the replay that an earlier one holds are not written again.

        paused: whether the run stands somewhere within an epoch
        """
        first = self.chunks[-1].last if self.chunks else 0
        last = self.replay.table.vector_steps
        self.chunks = tuple(c for c in self.chunks if c.last > self.replay.table.oldest)
        first = max(first, self.replay.table.oldest)
        for start in range(first, last, CHUNK_STEPS):
            stop = min(start + CHUNK_STEPS, last)
            self.chunks += (checkpoint.append_rows(self.folder, start, stop, self.replay.rows(start, stop)),)
        replay_state = self.replay.state_dict()
        collector_tensors, collector_state = self.collector.state_dict()
        random_tensors, random_state = get_random_state()
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
            "place": self.place.state_dict(),
            "minutes": self.minutes,
        }
        return checkpoint.save(
            self.folder, self.epoch, tensors, state, self.chunks, keep=self.config.keep, best=self.best["epoch"], paused=paused
        )

    def load(self, saved: checkpoint.Checkpoint) -> None:
        """Go on from a checkpoint of this run. Raises BadInput if it is damaged, or not what `save` writes."""
        try:
            self._load(saved)
        except BadInput:
            raise
        except (LookupError, TypeError, ValueError, RuntimeError, OverflowError, AttributeError) as error:
            what = " ".join(str(error).split("\n")[0].split()).rstrip(".") or type(error).__name__
            raise BadInput(f"{saved.folder} is no checkpoint of this version ({what}); use the version that wrote it.") from error

    def _load(self, saved: checkpoint.Checkpoint) -> None:
        self.agent.load_state_dict(saved.tensors["agent"])
        for part, learner in self.learners.items():
            learner.load_state_dict(saved.tensors[f"{part}_optimizer"])
        episodes = {name: column.numpy() for name, column in saved.tensors["replay"].items()}
        self.replay.load_state_dict(saved.state["replay"] | {"episodes": episodes})
        for chunk in saved.chunks:
            try:
                rows = checkpoint.read_rows(saved.run, chunk)
            except checkpoint.Damaged as error:
                raise checkpoint.advised(error, saved.folder, " (damaged=previous does so)") from error
            check_rows(rows, self.replay.num_envs, self.agent.spaces)
            self.replay.load_rows(chunk.first, rows)
        self.chunks = saved.chunks
        if not self.collector.load_state_dict(saved.tensors["collector"], saved.state["collector"]):
            tqdm.write("The environments did not come back as they were; their running episodes count as truncated.")
        self.epoch, self.best = saved.epoch, {name: saved.state["best"][name] for name in self.best}
        if "place" in saved.state:  # else the version that saved it stopped between epochs only
            self.place = Place.of(saved.state["place"])
        self.minutes_before = float(saved.state.get("minutes", "nan"))  # an earlier version did not count them
        set_random_state(saved.tensors["random"], saved.state["random"])

    def warn(self, metrics: dict[str, float]) -> None:
        """Say what goes wrong, once as long as it lasts."""
        config, codes, actions = self.config.agent, self.agent.tokenizer.quantizer.config.num_codes, self.agent.spaces.actions
        largest = self.replay.largest_reward()
        if config.dynamics.reward == "sign":
            largest = float(largest > 0)
        found = doubts(metrics, codes, actions, largest, config.actor_critic.discount)
        for name in found.keys() - self.doubted:
            tqdm.write(f"Epoch {self.epoch}: {found[name]}", file=sys.stderr)
        self.doubted = set(found)

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

    @property
    def minutes(self) -> float:
        """That the run has taken: its processes' time, compiling and evaluating included, but not what one did after its last save; not
        a number if an earlier version began it."""
        return self.minutes_before + (perf_counter() - self.started) / 60

    def log(self, metrics: dict[str, float]) -> None:
        self.logger.log(metrics, step=self.replay.steps_added, epoch=self.epoch)

    def bar(self, name: str, total: int, unit: str, done: int = 0) -> tqdm:
        return progress(f"epoch {self.epoch} {name}", total, unit, done)


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
