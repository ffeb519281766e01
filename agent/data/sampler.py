"""Which rows belong to which episode, and how sequences of them are drawn.

Rows arrive from vector environments under Gymnasium's NEXT_STEP autoreset. Each vector step is one
row per environment. The row after an episode's end carries its last observation (`is_step` False),
so an episode of n steps is n + 1 consecutive rows of one environment. A running episode looks the
same: its newest row, whose next frame is still to come, counts as its last observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

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
        """Enter one vector step. All arguments are [N] bool."""
        idle = np.setdiff1d(np.arange(self.num_envs), self.columns["env"][~self.columns["closed"]])
        if len(idle):
            self._start(idle)
        columns = self.columns
        running = np.flatnonzero(~columns["closed"])
        running = running[columns["env"][running].argsort()]  # one for each environment
        columns["stop"][running] += 1
        columns["terminated"][running] |= terminated & is_step
        columns["truncated"][running] |= truncated & is_step
        columns["closed"][running] = ~is_step
        self.vector_steps += 1

    def _start(self, envs: NDArray) -> None:
        """Open an episode in each of `envs`; forget those whose rows are gone."""
        keep = (self.usable()[1] > 0) | ~self.columns["closed"]
        new = {"env": envs, "start": self.vector_steps, "stop": self.vector_steps}
        for name, column in self.columns.items():
            added = np.full(len(envs), new.get(name, 0), column.dtype)
            self.columns[name] = np.concatenate([column[keep], added])


class SampleSpec(NamedTuple):
    """What is drawn: `batch` sequences of `steps`, around or before a random step."""

    batch: int
    steps: int
    anchor: Anchor


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


def draw(
    table: EpisodeTable, drawn: NDArray, spec: SampleSpec, alpha: float, rng: np.random.Generator
) -> tuple[NDArray, Draw]:
    """Draw episodes by how seldom they were drawn, then a sequence of each (Δ-IRIS).

    An episode is drawn with probability ∝ (1 / (1 + drawn))^alpha, then one of its steps t
    uniformly, then L slots: "around" begins at t - U{0..L-1} and may overlap both ends of the
    episode; "before" ends at t + U{0..L-1}, at most at the final step, and may overlap only the
    start.

    Args:
        table: of E episodes.
        drawn: how often each was drawn [E].
        spec: what is drawn.
        alpha: exponent.
        rng: where the draws come from.

    Returns:
        Which episodes were drawn [B], and the sequences.
    """
    first, steps = table.usable()
    candidates = np.flatnonzero(steps > 0)
    log_weight = -alpha * np.log1p(drawn[candidates])
    weight = np.exp(log_weight - log_weight.max())  # the largest is 1, however large the counts
    chosen = candidates[rng.choice(len(weight), spec.batch, p=weight / weight.sum())]

    n, length = steps[chosen], spec.steps
    step = rng.integers(n)
    offset = rng.integers(length, size=spec.batch)
    around, before = step - offset, np.minimum(n, step + 1 + offset) - length
    start = around if spec.anchor == "around" else before
    slot = start[:, None] + np.arange(length)  # 0: first step, n: last observation
    first, n = first[chosen, None], n[:, None]
    columns = {name: column[chosen, None] for name, column in table.columns.items()}

    rows = (first + slot.clip(0, n)) % table.ring_steps * table.num_envs + columns["env"]
    mask = (0 <= slot) & (slot < n)
    final = mask & (slot == n - 1) & columns["closed"]
    ends = (final & columns["terminated"], final & columns["truncated"])
    shown = (0 <= slot) & (slot <= n)
    return chosen, Draw(*map(torch.from_numpy, (rows, shown, mask, *ends)))
