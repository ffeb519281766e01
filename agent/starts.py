"""Real frames for imagined episodes to start from: those of a run's replay, or given ones."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from agent import checkpoint
from agent.episodes import EpisodeTable
from agent.replay import check_rows
from agent.saved import spaces_from_state
from agent.segment import Segment, untold
from envs.errors import BadInput
from envs.spaces import Spaces

WHERE = ("anywhere", "first")
NEWEST_ROWS = 20_000  # of a replay, to be held in memory: files are read from the newest on until there are so many


class Starts:
    """Where episodes may start: some of the frames of a few columns of rows, each with the frames before it.

    frames:  [V, N, C, H, W] uint8 on the CPU, rows of N environments one after the other, as a replay holds them
    actions: [V, N, F] int64
    places:  [S, 3] int64: row, environment, and how many of the rows before belong to the same episode
    context: how many frames a start shows, at most
    """

    def __init__(self, frames: Tensor, actions: Tensor, places: np.ndarray, context: int) -> None:
        self.frames, self.actions, self.places, self.context = frames, actions, places, context

    def __len__(self) -> int:
        return len(self.places)

    def segment(self, chosen: Sequence[int]) -> Segment:
        """Those starts, [M, context], each from the first slot on.

        Its last frame is the one behind its last step (`mask`); rewards and ends are not told.
        """
        row, env, before = (torch.from_numpy(column) for column in self.places[np.asarray(chosen)].T)
        steps = before.clamp(max=self.context - 1).unsqueeze(1)
        slot = torch.arange(self.context)
        rows, env = row.unsqueeze(1) - steps + slot.minimum(steps), env.unsqueeze(1)
        mask = slot < steps
        return untold(self.frames[rows, env], self.actions[rows, env].masked_fill(~mask.unsqueeze(2), 0), mask)


def of_run(saved: checkpoint.Checkpoint, where: str, context: int) -> Starts:
    """Frames that an action followed, of the newest of a run's replay; "first": only those that began an episode.

    Raises BadInput if `where` is neither that nor "anywhere", or if the replay is not there or holds no such frame.
    """
    if where not in WHERE:
        raise BadInput(f"starts={where!r} was given; give one of {', '.join(WHERE)}, or frames.")
    saved = checkpoint.load(saved.folder, only=["replay"], rows=True)
    try:
        ring_steps, num_envs = map(operator.index, saved.state["replay"]["ring"])
        table = EpisodeTable(num_envs, ring_steps)
        table.load(saved.state["replay"]["vector_steps"], {name: column.numpy() for name, column in saved.tensors["replay"].items()})
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{saved.folder} describes no replay of ours ({error}); use the version that wrote it.") from error

    parts: list[dict[str, Tensor]] = []
    oldest = table.vector_steps
    for chunk in reversed(saved.chunks):
        parts.insert(0, checkpoint.read_rows(saved.run, chunk))
        oldest = chunk.first
        if (table.vector_steps - oldest) * num_envs >= NEWEST_ROWS:
            break
    try:
        for rows in parts:
            check_rows(rows, num_envs, spaces_from_state(saved.state))
        places = places_of(table, oldest, where)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise BadInput(f"{saved.folder} has no rows of ours ({error}); use the version that wrote it.") from error
    if not len(places):
        raise BadInput(f"The replay of {saved.run} holds no frame to start from; give starts=<frames>, or another run.")
    frames, actions = (torch.cat([part[name] for part in parts]) for name in ("frames", "actions"))
    return Starts(frames, actions, places, context)


def places_of(table: EpisodeTable, oldest: int, where: str) -> np.ndarray:
    """`Starts.places` of the frames that an action followed, in rows from the vector step `oldest` on."""
    places: list[tuple[int, int, int]] = []
    for env, began, first, steps in zip(table.columns["env"], table.columns["start"], *table.usable(), strict=True):
        held, stop = max(first, oldest), first + steps
        if where == "first":  # which may have been overwritten
            held, stop = began, min(stop, began + 1) if held == began else began
        places += [(row - oldest, env, row - held) for row in range(held, stop)]
    return np.array(places, np.int64).reshape(-1, 3)


def given(frames: np.ndarray, actions: np.ndarray | None, spaces: Spaces) -> Starts:
    """Starts that each saw T frames and the actions between them.

    frames: [M, T, H, W, C] uint8, as environments show them; actions: [M, T − 1, F], or [M, T − 1] where F = 1, which may
    be left out if T = 1

    Raises BadInput if they are not such.
    """
    shown = (spaces.size, spaces.size, spaces.channels)
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[2:] != shown or 0 in frames.shape:
        raise BadInput(
            f"Frames {list(frames.shape)} of {frames.dtype} were given to start from; give uint8 [M, T, {', '.join(map(str, shown))}], "
            "M starts of T frames one after the other."
        )
    starts, steps = frames.shape[:2]
    expected = (starts, steps - 1, len(spaces.actions))
    actions = np.zeros((starts, 0, len(spaces.actions)), np.int64) if actions is None else actions
    own = actions[..., None] if actions.ndim == 2 else actions
    if own.shape != expected or not np.all((0 <= own) & (own < np.array(spaces.actions))):
        raise BadInput(
            f"Actions {list(actions.shape)} were given with {steps} frames for each of {starts} starts; give "
            f"{list(expected)}, those between the frames, each factor below {', '.join(map(str, spaces.actions))}."
        )
    # A row has the action that follows its frame; none follows the last one.
    rows = np.pad(own.astype(np.int64), ((0, 0), (0, 1), (0, 0)))
    places = np.stack([np.full(starts, steps - 1), np.arange(starts), np.full(starts, steps - 1)], axis=1)
    by_step = torch.from_numpy(frames.transpose(1, 0, 4, 2, 3).copy())
    return Starts(by_step, torch.from_numpy(rows.transpose(1, 0, 2).copy()), places, steps)
