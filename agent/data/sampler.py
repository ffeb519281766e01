"""Which rows belong to which episode, and how sequences of them are drawn.

Rows arrive from vector environments under Gymnasium's NEXT_STEP autoreset. Each vector step is one
row per environment. The row after an episode's end carries its last observation (`is_step` False),
so an episode of n steps is n + 1 consecutive rows of one environment. A running episode looks the
same: its newest row, whose next frame is still to come, counts as its last observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Anchor = Literal["around", "before"]


class EpisodeTable:
    """The episodes whose rows a ring holds. The row of vector step v is v mod `ring_steps`.

    Attributes:
        vector_steps: Number of vector steps ever added.
        columns: Arrays [E] with one entry per episode: `env`, `start` and `stop` (vector steps,
            `stop` exclusive), the flags `terminated` and `truncated` of its final step, `closed`
            (no row will follow), and `drawn/<component>` for each component that sampled. At most
            one episode of each environment is not closed.
    """

    def __init__(self, num_envs: int, ring_steps: int) -> None:
        self.num_envs = num_envs
        self.ring_steps = ring_steps
        self.vector_steps = 0
        self.columns = {name: np.zeros(0, np.int64) for name in ("env", "start", "stop")}
        self.columns |= {name: np.zeros(0, bool) for name in ("terminated", "truncated", "closed")}

    def load(self, vector_steps: int, columns: Mapping[str, NDArray]) -> None:
        """Take over what another table held."""
        self.vector_steps = vector_steps
        self.columns = {name: np.array(column) for name, column in columns.items()}

    @property
    def oldest(self) -> int:
        """The first vector step that is still held."""
        return max(0, self.vector_steps - self.ring_steps)

    def usable(self) -> tuple[NDArray, NDArray]:
        """First held vector step [E] of each episode, and its number of steps from there [E].

        The ring overwrites an episode from its start. The number is 0 or less if it is gone.
        """
        first = np.maximum(self.columns["start"], self.oldest)
        return first, self.columns["stop"] - 1 - first

    def drawn(self, component: str) -> NDArray:
        """How often `component` drew each episode [E]; the array to count in."""
        return self.columns.setdefault(f"drawn/{component}", np.zeros_like(self.columns["env"]))

    def add(self, terminated: NDArray, truncated: NDArray, is_step: NDArray) -> None:
        """Enter one vector step. All arguments are [N] bool.

        Raises:
            ValueError: `is_step` does not follow from the step before.
        """
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
        """Open an episode in each of `envs`; forget those whose rows are gone."""
        keep = (self.usable()[1] > 0) | ~self.columns["closed"]
        new = {"env": envs, "start": self.vector_steps, "stop": self.vector_steps}
        for name, column in self.columns.items():
            added = np.full(len(envs), new.get(name, 0), column.dtype)
            self.columns[name] = np.concatenate([column[keep], added])


class Draw(NamedTuple):
    """Sequences that were drawn, all [B, L].

    Attributes:
        rows: int64, where the ring holds them; arbitrary in padding.
        shown: bool, False in padding.
        mask: bool, as in `Segment`; so are the following.
        terminated: bool.
        truncated: bool.
    """

    rows: Tensor
    shown: Tensor
    mask: Tensor
    terminated: Tensor
    truncated: Tensor


class EpisodeSampler:
    """Draws episodes by how seldom they were drawn, then a sequence of each (Δ-IRIS)."""

    def __init__(self, table: EpisodeTable, alpha: float, seed: int) -> None:
        self.table = table
        self.alpha = alpha
        self.rng = np.random.default_rng(seed)

    def draw(
        self, component: str, batch_size: int, length: int, anchor: Anchor, count: bool
    ) -> Draw:
        """As `Replay.sample`, without the rows themselves."""
        table = self.table
        first, steps = table.usable()
        drawn = table.drawn(component)
        candidates = np.flatnonzero(steps > 0)
        log_weight = -self.alpha * np.log1p(drawn[candidates])
        weight = np.exp(log_weight - log_weight.max())  # the largest is 1, however large the counts
        probability = weight / weight.sum()
        episode = candidates[self.rng.choice(len(weight), batch_size, p=probability)]
        if count:
            np.add.at(drawn, episode, 1)  # an episode drawn twice counts twice

        n = steps[episode]
        step = self.rng.integers(n)
        offset = self.rng.integers(length, size=batch_size)
        start = step - offset if anchor == "around" else np.minimum(n, step + 1 + offset) - length
        slot = start[:, None] + np.arange(length)  # 0: first step, n: last observation
        episode, first, n = episode[:, None], first[episode, None], n[:, None]
        columns = {name: column[episode] for name, column in table.columns.items()}

        rows = (first + slot.clip(0, n)) % table.ring_steps * table.num_envs + columns["env"]
        mask = (0 <= slot) & (slot < n)
        final = mask & (slot == n - 1) & columns["closed"]
        ends = (final & columns["terminated"], final & columns["truncated"])
        return Draw(*map(torch.from_numpy, (rows, (0 <= slot) & (slot <= n), mask, *ends)))

    def state_dict(self) -> dict[str, Any]:
        """The random generator's state, for JSON."""
        return self.rng.bit_generator.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as the sampler did that gave `state`."""
        self.rng.bit_generator.state = state
