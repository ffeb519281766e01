"""What a stage of an epoch consists of: playing, the updates of one part, evaluating."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors.torch

from agent.config import PartConfig
from agent.data.collect import Episode, achievements_of
from agent.data.replay import Draw
from agent.evaluation import evaluate as evaluation
from agent.segment import Segment
from agent.signals import Pause
from agent.storage import files
from agent.training.components import sample_spec
from agent.training.learner import Averages, NonFinite
from agent.training.progress import progress
from envs.scores import crafter_score, crafter_success_rates

if TYPE_CHECKING:
    from agent.training.trainer import Trainer

READ_EVERY = 50  # updates between two readings of the losses: each synchronises a GPU


def collect(trainer: Trainer) -> dict[str, float]:
    """Play what is left of the epoch's environment steps -> metrics of all of them.

    Raises:
        Pause: The run was asked to stop.
        EnvironmentFailed, BadInput: An environment failed; what was played before stays.
    """
    config, state, collector = trainer.config.collect, trainer.state, trainer.collector
    if trainer.epoch >= config.epochs:
        return {}
    steps = config.first_steps if trainer.epoch == 0 else config.steps
    played, restarts, before = trainer.replay.steps_added, collector.restarts, state.done
    bar = progress(f"epoch {trainer.epoch} collect", steps, "step", before)
    with trainer.watch.timed("collect"), bar:
        try:
            collector.collect(
                steps - before,
                random=trainer.epoch == 0,
                progress=bar.update,
                stop=trainer.stop,
                episodes=state.episodes,
            )
        finally:
            state.done += trainer.replay.steps_added - played
            state.restarts += collector.restarts - restarts
    if state.done < steps:
        raise Pause
    speed = (state.done - before) / trainer.watch.seconds["collect"]
    metrics = {"rates/collect_frames_per_second": speed, "collect/restarts": float(state.restarts)}
    return metrics | episode_metrics(state.episodes)


def episode_metrics(episodes: list[Episode]) -> dict[str, float]:
    """Metrics of the episodes that came to their ends in collection; empty if none did."""
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


def learn(trainer: Trainer, part: str) -> dict[str, float]:
    """Do what is left of the epoch's updates of one part -> means of the metrics of all of them.

    Raises:
        Pause: The run was asked to stop.
        NonFinite: A loss is not finite.
    """
    schedule: PartConfig = getattr(trainer.config, part)
    state, watch = trainer.state, trainer.watch
    updates, before = schedule.updates_in(trainer.epoch), state.done
    if updates == 0:
        return {}
    learner, prefetcher, replay = trainer.learners[part], trainer.prefetcher, trainer.replay
    learner.set_learning_rate(schedule.learning_rate_in(trainer.epoch))
    averages = Averages(state.averages)
    spec = sample_spec(trainer.config, part)
    draws: dict[int, Draw] = {}  # of the updates whose losses are not read yet
    numbers = itertools.count(before + 1)

    def draw() -> Segment:
        number = next(numbers)
        # As published, the first epoch draws episodes uniformly.
        draws[number] = replay.draw(part, spec, count=trainer.epoch > 0)
        draws.pop(number - READ_EVERY - 1, None)  # the newest may be drawn ahead
        return replay.gather(draws[number])

    def ahead() -> bool:  # not while a graph is captured
        return learner.updates > learner.warm_up and not trainer.stop()

    segments = prefetcher.segments(draw, updates - before, ahead)
    bar = progress(f"epoch {trainer.epoch} {part}", updates, "update", before)
    with watch.timed(part), bar, contextlib.closing(segments):
        for i, segment in enumerate(segments, start=before + 1):
            metrics = learner.update(segment)
            averages.add({f"{part}/{name}": value for name, value in metrics.items()})
            bar.update()
            pausing = i < updates and trainer.stop() and not prefetcher.drawn_ahead
            if i % READ_EVERY == 0 or i == updates or pausing:
                try:
                    means = averages.read()
                except NonFinite as error:
                    update = i - error.ago
                    path = keep_batch(trainer, part, update, replay.gather(draws[update]))
                    raise NonFinite(f"{error} (its batch is kept in {path})") from error
                bar.set_postfix(loss=f"{means[f'{part}/loss']:.4f}", refresh=False)
            if pausing:
                state.done, state.averages = i, averages.state_dict()
                raise Pause
    speed = (updates - before) / watch.seconds[part]
    # Frames of the replay; for the policy, imagined ones.
    steps = trainer.config.agent.actor_critic.horizon if part == "policy" else spec.steps
    means[f"rates/{part}_updates_per_second"] = speed
    means[f"rates/{part}_frames_per_second"] = speed * spec.batch * steps
    watch.seconds[part] -= prefetcher.waited
    spent = {"sample": prefetcher.sampled, "transfer": prefetcher.transferred}
    for what, seconds in {"wait": prefetcher.waited, **spent}.items():
        watch.seconds[what] += seconds
    if part == "tokenizer":
        for name, value in trainer.agent.tokenizer.diagnostics().items():
            means[f"tokenizer/{name}"] = value.item()
    return means


def keep_batch(trainer: Trainer, part: str, update: int, segment: Segment) -> Path:
    """Write the batch of an update, for a post-mortem -> its file."""
    name = f"non_finite_{part}_epoch_{trainer.epoch:06d}_update_{update:06d}.safetensors"
    tensors = {name: tensor.contiguous() for name, tensor in segment.cpu().items()}
    files.write(trainer.folder / name, safetensors.torch.save(tensors))
    return trainer.folder / name


def evaluate(trainer: Trainer) -> dict[str, float]:
    """Play episodes to measure the policy -> metrics. Raises Pause if the run is asked to stop."""
    config, watch = trainer.config, trainer.watch
    settings = config.final_evaluation if trainer.is_last else config.evaluation
    bar = progress(f"epoch {trainer.epoch} evaluate", settings.episodes, "episode")
    with watch.timed("evaluate"), bar:
        result = evaluation.evaluate(
            trainer.agent, config.env, settings, bar.update, stop=trainer.stop
        )
    trainer.evaluation = result
    summary = {f"evaluate/{name}": value for name, value in result.summary().items()}
    speed = float(result.lengths.sum()) / watch.seconds["evaluate"]
    return summary | {"rates/evaluate_frames_per_second": speed}
