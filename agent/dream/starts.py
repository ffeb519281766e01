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

WHERE = ("anywhere", "first")
NEWEST_ROWS = 20_000  # of a replay, held in memory: files are read from the newest on


class StartStates:
    """Where episodes may start: some of the frames of a few columns of rows.

    Args:
        frames: [V, N, C, H, W] uint8 on the CPU, rows of N environments, as a replay holds them.
        actions: [V, N, F] int64.
        indices: [S, 3] int64: row, environment, and how many rows before belong to its episode.
        context: how many frames a start shows, at most.
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
        saved: of the run.
        where: anywhere, or first: only those that began an episode.
        context: of `StartStates`.

    Raises:
        BadInput: `where` is something else, or the replay holds no such frame.
    """
    check_choice("starts", where, WHERE)
    saved = checkpoint.load(saved.folder, only=["replay"], rows=True)
    ring_steps, num_envs = saved.state["replay"]["ring"]
    table = EpisodeTable(num_envs, ring_steps)
    columns = {name: column.numpy() for name, column in saved.tensors["replay"].items()}
    table.load(saved.state["replay"]["vector_steps"], columns)
    parts: list[dict[str, Tensor]] = []
    oldest = table.vector_steps
    for chunk in reversed(saved.chunks):
        parts.insert(0, checkpoint.read_rows(saved.run, chunk))
        oldest = chunk.first
        if (table.vector_steps - oldest) * num_envs >= NEWEST_ROWS:
            break
    indices = start_indices(table, oldest, where)
    if not len(indices):
        raise BadInput(
            f"The replay of {saved.run} holds no frame to start from; give starts=<frames>, or "
            "another run."
        )
    frames, actions = (torch.cat([part[name] for part in parts]) for name in ("frames", "actions"))
    return StartStates(frames, actions, indices, context)


def start_indices(table: EpisodeTable, oldest: int, where: str) -> np.ndarray:
    """`StartStates.indices` of frames that an action followed, in rows from step `oldest` on."""
    indices: list[tuple[int, int, int]] = []
    columns = table.columns["env"], table.columns["start"], *table.usable()
    for env, began, first, steps in zip(*columns, strict=True):
        held, stop = max(first, oldest), first + steps
        if where == "first":  # which may have been overwritten
            held, stop = began, min(stop, began + 1) if held == began else began
        indices += [(row - oldest, env, row - held) for row in range(held, stop)]
    return np.array(indices, np.int64).reshape(-1, 3)


def given_starts(given: Mapping[str, Any], spaces: Spaces) -> StartStates:
    """Starts that each saw T frames and the actions between them.

    Args:
        given: "frames" [M, T, H, W, C] uint8, as environments show them, and "actions"
            [M, T − 1, F], or [M, T − 1] where F = 1; these may be left out if T = 1.
        spaces: of the world's agent.

    Raises:
        BadInput: it is something else.
    """
    if "frames" not in given or not set(given) <= {"frames", "actions"}:
        raise BadInput(
            f"A dream was told to start from {sorted(given)}; give frames, and actions if there "
            "are several."
        )
    frames = np.asarray(given["frames"])
    size = (spaces.size, spaces.size, spaces.channels)
    if (
        frames.dtype != np.uint8
        or frames.ndim != 5
        or frames.shape[2:] != size
        or 0 in frames.shape
    ):
        raise BadInput(
            f"Frames {list(frames.shape)} of {frames.dtype} were given to start from; give uint8 "
            f"[M, T, {', '.join(map(str, size))}], M starts of T frames one after the other."
        )
    starts, steps = frames.shape[:2]
    expected = (starts, steps - 1, len(spaces.actions))
    actions = given.get("actions")
    actions = np.zeros((starts, 0, expected[2]), np.int64) if actions is None else actions
    actions = np.asarray(actions)
    own = actions[..., None] if actions.ndim == 2 else actions
    if own.shape != expected or not np.all((0 <= own) & (own < np.array(spaces.actions))):
        raise BadInput(
            f"Actions {list(actions.shape)} were given with {steps} frames for each of {starts} "
            f"starts; give {list(expected)}, those between the frames, each factor below "
            f"{', '.join(map(str, spaces.actions))}."
        )
    # A row has the action that follows its frame; none follows the last one.
    rows = np.pad(own.astype(np.int64), ((0, 0), (0, 1), (0, 0)))
    last = np.full(starts, steps - 1)
    indices = np.stack([last, np.arange(starts), last], axis=1)
    by_step = torch.from_numpy(frames.transpose(1, 0, 4, 2, 3).copy())
    return StartStates(by_step, torch.from_numpy(rows.transpose(1, 0, 2).copy()), indices, steps)
