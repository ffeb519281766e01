"""Which rows of the replay are whose episode, how often each was drawn, and how windows of them are drawn.

Rows arrive from vector environments under Gymnasium's NEXT_STEP autoreset: each vector step is one
row per environment, and the row after an episode's end carries its last observation (`is_step`
False), so an episode of n steps is n + 1 consecutive rows of one environment. The same holds for a
running episode: its newest row, whose next frame is still to come, counts as the last observation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchrl.data.replay_buffers.samplers import Sampler
from torchrl.data.replay_buffers.storages import Storage

Anchor = Literal["around", "before"]


class EpisodeTable:
    """Which rows of the ring belong to which episode, and how often each was drawn.

    Vector step v of environment e is row (v * num_envs + e) mod (ring_steps * num_envs). `columns`
    are arrays [E], one entry per episode: env, start and stop (vector steps, stop exclusive), the
    flags terminated and truncated of its final step, closed (no row will follow), and
    "drawn/<component>" for each component that sampled. At most one per environment is not closed.
    """

    def __init__(self, num_envs: int, ring_steps: int) -> None:
        self.num_envs = num_envs
        self.ring_steps = ring_steps
        self.vector_steps = 0  # ever added
        self.columns = {name: np.zeros(0, np.int64) for name in ("env", "start", "stop")}
        self.columns |= {name: np.zeros(0, bool) for name in ("terminated", "truncated", "closed")}

    def load(self, vector_steps: int, columns: dict[str, NDArray]) -> None:
        """Take over what another table held. Raises ValueError if no table of this size can have held it."""
        names, own = ({name for name in table if not name.startswith("drawn/")} for table in (columns, self.columns))
        lengths = {column.shape for column in columns.values()}
        if names != own or len(lengths) != 1 or len(*lengths) != 1 or type(vector_steps) is not int or vector_steps < 0:
            raise ValueError("the table of episodes has other columns")
        if any(column.dtype != self.columns.get(name, self.columns["env"]).dtype for name, column in columns.items()):
            raise ValueError("the table of episodes has columns of other types")
        env, start, stop = columns["env"], columns["start"], columns["stop"]
        running = env[~columns["closed"]]
        if (
            not np.all((0 <= env) & (env < self.num_envs) & (0 <= start) & (start <= stop) & (stop <= vector_steps))
            or any(np.any(column < 0) for name, column in columns.items() if name not in names)
            or len(np.unique(running)) != len(running)
        ):
            raise ValueError("the table of episodes names rows that there cannot be")
        self.vector_steps, self.columns = vector_steps, columns

    @property
    def oldest(self) -> int:
        """The first vector step that is still held."""
        return max(0, self.vector_steps - self.ring_steps)

    def usable(self) -> tuple[NDArray, NDArray]:
        """Each episode's first held vector step [E] and its number of steps from there [E], at
        most 0 if it is gone: the ring overwrites an episode from its start."""
        first = np.maximum(self.columns["start"], self.oldest)
        return first, self.columns["stop"] - 1 - first

    def drawn(self, component: str) -> NDArray:
        """How often `component` drew each episode [E]; the array to count in."""
        return self.columns.setdefault(f"drawn/{component}", np.zeros_like(self.columns["env"]))

    def add(self, terminated: NDArray, truncated: NDArray, is_step: NDArray) -> None:
        """Enter one vector step; all arguments [N] bool. ValueError if `is_step` doesn't follow."""
        idle = np.setdiff1d(np.arange(self.num_envs), self.columns["env"][~self.columns["closed"]])
        if len(idle):
            self._begin(idle)
        columns = self.columns
        running = np.flatnonzero(~columns["closed"])
        running = running[columns["env"][running].argsort()]  # one for each environment
        wrong = np.flatnonzero(is_step == (columns["terminated"] | columns["truncated"])[running])
        if len(wrong):
            raise ValueError(
                f"is_step of environments {wrong.tolist()} is wrong: it must be False exactly in "
                "the row after a step that terminated or truncated (NEXT_STEP autoreset)."
            )
        columns["stop"][running] += 1
        columns["terminated"][running] |= terminated & is_step
        columns["truncated"][running] |= truncated & is_step
        columns["closed"][running] = ~is_step
        self.vector_steps += 1

    def _begin(self, envs: NDArray) -> None:
        """Open an episode in each of `envs`; forget those that are gone: the table stays small."""
        keep = (self.usable()[1] > 0) | ~self.columns["closed"]
        new = {"env": envs, "start": self.vector_steps, "stop": self.vector_steps}
        for name, column in self.columns.items():
            added = np.full(len(envs), new.get(name, 0), column.dtype)
            self.columns[name] = np.concatenate([column[keep], added])


class EpisodeSampler(Sampler):
    """Draws episodes by how seldom they were drawn, then a window of each (Δ-IRIS).

    torchrl calls `sample(storage, rows)` without further arguments: `window` is set before.
    """

    window: tuple[str, int, Anchor, bool]  # component, length, anchor, count of Replay.sample

    def __init__(self, table: EpisodeTable, alpha: float, seed: int) -> None:
        self.table = table
        self.alpha = alpha
        self.rng = np.random.default_rng(seed)

    def sample(self, storage: Storage, batch_size: int) -> tuple[Tensor, dict[str, Tensor]]:
        """batch_size: rows, a multiple of the window's length L, as in torchrl's SliceSampler.
        Returns rows [B * L] int64 and info of [B * L] bool: mask, terminated, truncated (as in
        Segment) and shown (False on padding, whose row is an arbitrary one of the episode).
        """
        (component, length, anchor, count), table = self.window, self.table
        first, steps = table.usable()
        drawn = table.drawn(component)
        candidates = np.flatnonzero(steps > 0)
        log_weight = -self.alpha * np.log1p(drawn[candidates])
        weight = np.exp(log_weight - log_weight.max())  # the largest is 1, however large the counts
        batch = batch_size // length
        episode = candidates[self.rng.choice(len(weight), batch, p=weight / weight.sum())]
        if count:
            np.add.at(drawn, episode, 1)  # an episode drawn twice counts twice

        n = steps[episode]
        step = self.rng.integers(n)
        offset = self.rng.integers(length, size=batch)
        start = step - offset if anchor == "around" else np.minimum(n, step + 1 + offset) - length
        slot = start[:, None] + np.arange(length)  # 0: first step, n: last observation
        first, n, env = first[episode, None], n[:, None], table.columns["env"][episode, None]

        rows = (first + slot.clip(0, n)) % table.ring_steps * table.num_envs + env
        mask = (0 <= slot) & (slot < n)
        final = mask & (slot == n - 1) & table.columns["closed"][episode, None]
        info = {
            "mask": mask,
            "shown": (0 <= slot) & (slot <= n),
            "terminated": final & table.columns["terminated"][episode, None],
            "truncated": final & table.columns["truncated"][episode, None],
        }
        info = {name: torch.from_numpy(value.ravel()) for name, value in info.items()}
        return torch.from_numpy(rows.ravel()), info

    def state_dict(self) -> dict[str, Any]:
        return self.rng.bit_generator.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state_dict

    def _empty(self) -> None:
        """Nothing to forget: what is held is the table's to know."""

    def dumps(self, path: Path) -> None:
        raise NotImplementedError("Save Replay.state_dict() and Replay.rows() instead.")

    loads = dumps
