"""What a stage of an epoch consists of: playing, or the updates of one part."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors.torch

from agent.data.collect import Episode, achievements_of
from agent.data.replay import Draw
from agent.segment import Segment
from agent.signals import Pause
from agent.storage import files
from agent.training.components import sample_spec, schedule_of
from agent.training.learner import Averages, NonFinite
from agent.training.progress import progress
from envs.scores import crafter_score, crafter_success_rates

if TYPE_CHECKING:
    from agent.training.trainer import Trainer

READ_EVERY = 50  # updates between two readings of the losses: each synchronises a GPU


def collect(trainer: Trainer) -> dict[str, float]:
    """Play what is left of the epoch's environment steps -> metrics of all of them.

    Raises:
        Pause: the run was asked to stop.
        EnvironmentFailed, BadInput: an environment failed; what was played before stays.
    """
    config, state, collector = trainer.config.collect, trainer.state, trainer.collector
    if trainer.epoch >= config.epochs:
        return {}
    first = trainer.epoch == 0
    steps = config.first_steps if first else config.steps
    played, restarts = trainer.replay.steps_added, collector.restarts
    bar = progress(f"epoch {trainer.epoch} collect", steps, "step", state.done)
    with trainer.watch.timed("collect"), bar:
        try:
            collector.collect(
                steps - state.done,
                random=first,
                progress=bar.update,
                stop=trainer.stop,
                episodes=state.episodes,
            )
        finally:
            taken = trainer.replay.steps_added - played
            state.done += taken
            state.restarts += collector.restarts - restarts
    if state.done < steps:
        raise Pause
    speed = taken / trainer.watch.seconds["collect"]
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
        Pause: the run was asked to stop.
        NonFinite: a loss is not finite.
    """
    schedule, state = schedule_of(trainer.config, part), trainer.state
    updates, before = schedule.updates_in(trainer.epoch), state.done
    if updates == 0:
        return {}
    learner, prefetcher, replay = trainer.learners[part], trainer.prefetcher, trainer.replay
    learner.set_learning_rate(schedule.learning_rate_in(trainer.epoch))
    averages = Averages(trainer.config.learner.skips, state.averages)
    spec = sample_spec(trainer.config, part)
    count = trainer.epoch > 0  # as published, the first epoch draws episodes uniformly
    draws: dict[int, Draw] = {}  # of the updates whose losses are not read yet
    numbers = itertools.count(before + 1)

    def draw() -> Segment:
        number = next(numbers)
        draws[number] = replay.draw(part, *spec, count)
        draws.pop(number - READ_EVERY - 1, None)  # the newest may be drawn ahead
        return replay.gather(draws[number])

    segments = prefetcher.segments(
        draw, updates - before, ahead=lambda: learner.settled and not trainer.stop()
    )
    bar = progress(f"epoch {trainer.epoch} {part}", updates, "update", before)
    with trainer.watch.timed(part), bar, contextlib.closing(segments):
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
                if means:
                    bar.set_postfix(loss=f"{means[f'{part}/loss']:.4f}", refresh=False)
            if pausing:
                state.done, state.averages = i, averages.state_dict()
                raise Pause
    if averages.skipped:
        means |= {f"{part}/skipped": float(averages.skipped)}
    speed = (updates - before) / trainer.watch.seconds[part]
    trainer.watch.add(part, -prefetcher.waited)
    trainer.watch.add("wait", prefetcher.waited)
    trainer.watch.add("sample", prefetcher.sampled)
    trainer.watch.add("transfer", prefetcher.transferred)
    if part == "tokenizer":
        diagnostics = trainer.agent.tokenizer.diagnostics()
        means |= {f"tokenizer/{name}": value.item() for name, value in diagnostics.items()}
    # Frames of the replay; for the policy, imagined ones.
    steps = trainer.config.agent.actor_critic.horizon if part == "policy" else spec.steps
    rates = {"updates": speed, "frames": speed * spec.batch * steps}
    return means | {f"rates/{part}_{what}_per_second": rate for what, rate in rates.items()}


def keep_batch(trainer: Trainer, part: str, update: int, segment: Segment) -> Path:
    """Write the batch of an update, for a post-mortem -> its file."""
    name = f"non_finite_{part}_epoch_{trainer.epoch:06d}_update_{update:06d}.safetensors"
    tensors = {name: tensor.contiguous() for name, tensor in segment.cpu().items()}
    files.write(trainer.folder / name, safetensors.torch.save(tensors))
    return trainer.folder / name
