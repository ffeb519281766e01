"""Real frames for imagined episodes to start from: those of a run's replay, or given ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.config.training import check_choice
from agent.data.sampler import EpisodeTable
from agent.segment import Segment, unlabelled_segment
from agent.storage import checkpoint
from envs.errors import BadInput
from envs.spaces import Spaces

NEWEST_ROWS = 20_000  # of a replay, held in memory: files are read from the newest on


class StartStates:
    """Where episodes may start: some of the frames of a few columns of rows.

    Args:
        frames: [V, N, C, H, W] uint8 on the CPU, rows of N environments, as a replay holds them.
        actions: [V, N, F] int64.
        indices: [S, 3] int64: row, environment, and how many rows before belong to its episode.
        context: How many frames a start shows, at most.
    """

    def __init__(self, frames: Tensor, actions: Tensor, indices: np.ndarray, context: int) -> None:
        self.frames, self.actions, self.indices, self.context = frames, actions, indices, context

    def __len__(self) -> int:
        return len(self.indices)

    def segment(self, chosen: Sequence[int]) -> Segment:
        """Those starts, [M, context], each from the first slot on, without rewards and ends.

        Its last frame is the one behind its last step (`mask`).
        """
        row, env, before = (torch.from_numpy(x) for x in self.indices[np.asarray(chosen)].T)
        steps = before.clamp(max=self.context - 1).unsqueeze(1)
        slot = torch.arange(self.context)
        rows, env = row.unsqueeze(1) - steps + slot.minimum(steps), env.unsqueeze(1)
        mask = slot < steps
        actions = self.actions[rows, env].masked_fill(~mask.unsqueeze(2), 0)
        return unlabelled_segment(self.frames[rows, env], actions, mask)


def starts_of_run(saved: checkpoint.Checkpoint, where: str, context: int) -> StartStates:
    """Frames that an action followed, of the newest of a run's replay.

    Args:
        saved: Of the run.
        where: anywhere, or first: only those that began an episode.
        context: Of `StartStates`.
    """
    check_choice("starts", where, ("anywhere", "first"))
    ring_steps, num_envs = saved.state["replay"]["ring"]
    table = EpisodeTable(num_envs, ring_steps)
    columns = {name: column.numpy() for name, column in saved.tensors["replay"].items()}
    table.load(saved.state["replay"]["vector_steps"], columns)
    parts: list[dict[str, Tensor]] = []
    oldest = table.vector_steps
    for chunk in reversed(saved.chunks):
        parts.insert(0, saved.rows(chunk))
        oldest = chunk.first
        if (table.vector_steps - oldest) * num_envs >= NEWEST_ROWS:
            break
    indices = start_indices(table, oldest, where == "first")
    if not len(indices):
        raise BadInput(f"The replay of {saved.run} holds no frame to start from; give frames.")
    frames, actions = (torch.cat([part[name] for part in parts]) for name in ("frames", "actions"))
    return StartStates(frames, actions, indices, context)


def start_indices(table: EpisodeTable, oldest: int, only_first: bool) -> np.ndarray:
    """`StartStates.indices` of frames that an action followed, in rows from step `oldest` on."""
    indices: list[tuple[int, int, int]] = []
    columns = table.columns["env"], table.columns["start"], *table.usable()
    for env, start, first, steps in zip(*columns, strict=True):
        held, stop = max(first, oldest), first + steps
        if only_first:  # none if it is no longer held
            stop = min(stop, start + 1)
        indices += [(row - oldest, env, row - held) for row in range(held, stop)]
    return np.array(indices, np.int64).reshape(-1, 3)


def given_starts(given: Mapping[str, Any], spaces: Spaces) -> StartStates:
    """Starts that each saw T frames and the actions between them.

    Args:
        given: "frames" [M, T, H, W, C] uint8, as environments show them, and "actions"
            [M, T − 1, F], or [M, T − 1] where F = 1; these may be left out if T = 1.
        spaces: Of the world's agent.

    Raises:
        BadInput: It is something else.
    """
    factors, size = spaces.actions, (spaces.size, spaces.size, spaces.channels)
    frames, actions = np.asarray(given.get("frames")), given.get("actions")
    number, length = (*frames.shape, 0, 0)[:2]
    expected = (number, length - 1, len(factors))
    actions = np.zeros(expected) if actions is None and length == 1 else np.asarray(actions)
    actions = actions[..., None] if actions.ndim == 2 else actions
    if (
        not set(given) <= {"frames", "actions"}
        or frames.dtype != np.uint8
        or frames.shape != (number, length, *size)
        or frames.size == 0
        or actions.shape != expected
        or not np.all((actions >= 0) & (actions < np.array(factors)))
    ):
        shapes = ", ".join(f"{name} {list(np.shape(x))}" for name, x in given.items())
        raise BadInput(
            f"A dream cannot start from {shapes}; give frames, uint8 [M, T, "
            f"{', '.join(map(str, size))}], and actions, [M, T − 1, {len(factors)}], each factor "
            f"below {', '.join(map(str, factors))}."
        )
    # A row has the action that follows its frame; none follows the last one.
    rows = np.pad(actions.astype(np.int64), ((0, 0), (0, 1), (0, 0)))
    last = np.full(number, length - 1)
    indices = np.stack([last, np.arange(number), last], axis=1)
    by_step = torch.from_numpy(frames.transpose(1, 0, 4, 2, 3).copy())
    return StartStates(by_step, torch.from_numpy(rows.transpose(1, 0, 2).copy()), indices, length)
