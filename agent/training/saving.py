"""A run as a checkpoint, and back: networks, optimizers, replay, environments, random states."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from agent.storage import checkpoint
from agent.storage.rng import get_random_state, set_random_state
from agent.training.state import RunState

if TYPE_CHECKING:
    from agent.training.trainer import Trainer

CHUNK_STEPS = 1000  # of the vector environment in a file of the replay, which is in memory twice


def save(trainer: Trainer, paused: bool = False) -> int:
    """Write a checkpoint; rows of the replay that an earlier one holds are not written again.

    Args:
        paused: Whether the run stands somewhere within an epoch.

    Returns:
        Number of bytes written.
    """
    folder, replay, before = trainer.folder, trainer.replay, set(trainer.chunks)
    first = trainer.chunks[-1].last if trainer.chunks else 0
    last, oldest = replay.table.vector_steps, replay.table.oldest
    trainer.chunks = tuple(chunk for chunk in trainer.chunks if chunk.last > oldest)
    for start in range(max(first, oldest), last, CHUNK_STEPS):
        stop = min(start + CHUNK_STEPS, last)
        rows = replay.rows(start, stop)
        trainer.chunks += (checkpoint.append_rows(folder, start, stop, rows),)
    replay_state = replay.state_dict()
    collector_tensors, collector_state = trainer.collector.state_dict()
    random_tensors, random_state = get_random_state()
    episodes = replay_state.pop("episodes")
    tensors = {
        "agent": trainer.agent.state_dict(),
        **{f"{part}_optimizer": o.state_dict() for part, o in trainer.learners.items()},
        "replay": {name: torch.from_numpy(column) for name, column in episodes.items()},
        "collector": collector_tensors,
        "random": random_tensors,
    }
    state = {
        "config": dataclasses.asdict(trainer.config),
        "spaces": dataclasses.asdict(trainer.agent.spaces),
        "replay": replay_state,
        "collector": collector_state,
        "random": random_state,
        "best": trainer.best,
        "run_state": trainer.state.state_dict(),
        "minutes": trainer.watch.minutes,
    }
    keep, best = trainer.config.keep, trainer.best["epoch"]
    saved = checkpoint.save(
        folder, trainer.epoch, tensors, state, trainer.chunks, keep=keep, best=best, paused=paused
    )
    written = [chunk.size for chunk in set(trainer.chunks) - before]
    return sum(written) + sum(file.stat().st_size for file in saved.iterdir())


def load(trainer: Trainer, saved: checkpoint.Checkpoint) -> None:
    """Bring a trainer to where a checkpoint of its run stands. Raises Damaged as `saved.rows`."""
    replay, collector, state = trainer.replay, trainer.collector, saved.state
    trainer.agent.load_state_dict(saved.tensors["agent"])
    for part, learner in trainer.learners.items():
        learner.load_state_dict(saved.tensors[f"{part}_optimizer"])
    episodes = {name: column.numpy() for name, column in saved.tensors["replay"].items()}
    replay.load_state_dict(state["replay"] | {"episodes": episodes})
    for chunk in saved.chunks:
        replay.load_rows(chunk.first, saved.rows(chunk))
    if not collector.load_state_dict(saved.tensors["collector"], state["collector"]):
        tqdm.write(
            "The environments did not come back as they were; their running episodes count as "
            "truncated."
        )
    trainer.chunks, trainer.epoch, trainer.best = saved.chunks, saved.epoch, state["best"]
    trainer.state = RunState.of(state["run_state"])
    trainer.watch.minutes_before = float(state["minutes"])
    set_random_state(saved.tensors["random"], state["random"])
