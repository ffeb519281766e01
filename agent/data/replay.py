"""Episodes in, segments out: a ring of rows in memory, on disk or on the device."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from agent.config import ReplayConfig
from agent.data.sampler import Draw, EpisodeTable, SampleSpec, draw
from agent.segment import Segment
from envs.errors import BadInput
from envs.spaces import Spaces

CPU = torch.device("cpu")


class Replay:
    """The newest `capacity` rows of `num_envs` environments, sampled as segments.

    Args:
        config: capacity in rows, kind of storage, and the exponent of the draws.
        num_envs: N, environments that are played side by side.
        spaces: of the environments.
        seed: of the draws.
        scratch_dir: where storage "memmap" keeps its rows, an existing folder; None: the system's
            temporary one.
        device: where storage "device" keeps them.

    Raises:
        BadInput: the rows do not fit the memory or the disk.

    Attributes:
        columns: `frames` [R, C, H, W] uint8, `actions` [R, F] int64 and `rewards` [R] float32.
            Vector step v of environment e is row (v * N + e) mod R.
        table: the episodes that the rows belong to.
        steps_added: number of steps ever added.
    """

    def __init__(
        self,
        config: ReplayConfig,
        num_envs: int,
        spaces: Spaces,
        seed: int,
        scratch_dir: Path | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.check_fits(config, num_envs, spaces, scratch_dir, device)
        self.device = device if config.storage == "device" else CPU
        self.num_envs, self.alpha = num_envs, config.alpha
        self.table = EpisodeTable(num_envs, config.capacity // num_envs)
        self.rng = np.random.default_rng(seed)
        self.steps_added = 0
        self._written = 0  # vector steps; fewer than the table knows while rows are being loaded
        size = self.table.ring_steps * num_envs
        kinds = {
            "frames": ((size, *spaces.frame_shape), torch.uint8),
            "actions": ((size, len(spaces.actions)), torch.int64),
            "rewards": ((size,), torch.float32),
        }
        self.columns = {
            name: zeros_on_disk(shape, dtype, scratch_dir)
            if config.storage == "memmap"
            else torch.zeros(shape, dtype=dtype, device=self.device)
            for name, (shape, dtype) in kinds.items()
        }

    @staticmethod
    def bytes_needed(config: ReplayConfig, num_envs: int, spaces: Spaces) -> int:
        """Bytes of a full replay: per row a frame, an action and a reward."""
        row = int(np.prod(spaces.frame_shape)) + 8 * len(spaces.actions) + 4
        return config.capacity // num_envs * num_envs * row

    @classmethod
    def check_fits(
        cls,
        config: ReplayConfig,
        num_envs: int,
        spaces: Spaces,
        scratch_dir: Path | None = None,
        device: torch.device = CPU,
    ) -> None:
        """Raises BadInput if the rows do not fit what is free, or are too few to hold a step."""
        if config.capacity < 2 * num_envs:
            raise BadInput(
                f"replay.capacity={config.capacity} holds no step; give {2 * num_envs} or more."
            )
        if config.storage == "memmap":
            place = f"disk in {scratch_dir or tempfile.gettempdir()}"
            free = psutil.disk_usage(str(scratch_dir or tempfile.gettempdir())).free
        elif config.storage == "device" and device.type == "cuda":
            place = f"memory of {device}"
            free = torch.cuda.mem_get_info(device)[0] // 2  # the other half is for the updates
        else:
            place, free = "memory", psutil.virtual_memory().available
        needed = cls.bytes_needed(config, num_envs, spaces)
        if needed > free:
            raise BadInput(
                f"replay.capacity={config.capacity} needs {needed / 1e9:.2f} GB of {place}, and "
                f"only {free / 1e9:.2f} GB are free; lower it, or choose another replay.storage."
            )

    def add(
        self,
        frames: Tensor,
        actions: ArrayLike,
        rewards: ArrayLike,
        terminated: ArrayLike,
        truncated: ArrayLike,
        is_step: ArrayLike,
    ) -> None:
        """Enter one vector step: the fields of `agent.data.collect.Row`.

        Where `is_step` is False only the frame counts.
        """
        flags = [np.asarray(flag, bool) for flag in (terminated, truncated, is_step)]
        self.table.add(*flags)
        columns = {"frames": frames, "actions": actions, "rewards": rewards}
        self._write({name: torch.as_tensor(column)[None] for name, column in columns.items()})
        self.steps_added += int(flags[2].sum())

    def _by_step(self, column: Tensor) -> Tensor:
        """A view [vector steps of the ring, N, ...] of a column."""
        return column.unflatten(0, (-1, self.num_envs))

    def _write(self, rows: dict[str, Tensor]) -> None:
        """Append columns [n, N, ...]."""
        count = len(rows["rewards"])
        steps = torch.arange(self._written, self._written + count, device=self.device)
        for name, column in self.columns.items():
            self._by_step(column)[steps % self.table.ring_steps] = rows[name].to(column)
        self._written += count

    @property
    def num_steps(self) -> int:
        """Steps that can be sampled now."""
        return int(self.table.usable()[1].clip(0).sum())

    def sample(self, component: str, spec: SampleSpec, count: bool = True) -> Segment:
        """Draw sequences and gather their rows -> [B, L] where the rows are.

        Args:
            component: who samples: draws are counted for each apart.
            spec: what is drawn (see `agent.data.sampler.draw`).
            count: whether the draws count for the following ones.
        """
        return self.gather(self.draw(component, spec, count))

    def draw(self, component: str, spec: SampleSpec, count: bool = True) -> Draw:
        """What `sample` would gather."""
        drawn = self.table.drawn(component)
        episodes, sequences = draw(self.table, drawn, spec, self.alpha, self.rng)
        if count:
            np.add.at(drawn, episodes, 1)  # an episode drawn twice counts twice
        return sequences

    def gather(self, drawn: Draw) -> Segment:
        """Segment [B, L] of what was drawn; the same again as long as no row is added."""
        rows, shown, mask, terminated, truncated = (part.to(self.device) for part in drawn)
        # index_select takes a twelfth of the time of brackets.
        frames, actions, rewards = (
            column.index_select(0, rows.flatten()).unflatten(0, rows.shape)
            for column in self.columns.values()
        )
        frames *= shown[..., None, None, None]
        return Segment(
            frames=frames,
            actions=actions.masked_fill(~mask[..., None], 0),
            rewards=rewards.masked_fill(~mask, 0),
            terminated=terminated,
            truncated=truncated,
            mask=mask,
            batch_size=rows.shape,
        )

    def reward_sizes(self) -> tuple[float, float]:
        """Least and largest magnitude of the rewards other than 0; (0, 0) if there is none."""
        held = self.columns["rewards"][: self._written * self.num_envs].abs()
        held = held[held > 0]
        return (float(held.min()), float(held.max())) if len(held) else (0.0, 0.0)

    def drop_newest(self, broken: NDArray) -> None:
        """Take back the newest step of the environments `broken` [N] bool, which failed in it.

        The step was entered as truncated. Its frame is the episode's last observation.
        """
        columns = self.table.columns
        columns["stop"][~columns["closed"] & broken[columns["env"]]] -= 1
        self.steps_added -= int(broken.sum())

    def cut_running(self) -> None:
        """End the running episodes as truncated, where environments could not be restored.

        Their newest rows become last observations; the next rows begin new episodes.
        """
        columns = self.table.columns
        columns["terminated"] &= columns["closed"]  # running: it could only be the newest row's
        columns["truncated"] |= ~columns["closed"]
        columns["closed"][:] = True

    def rows(self, first: int, stop: int) -> dict[str, Tensor]:
        """Columns [n, N, ...] of the vector steps [first, stop), which must be held."""
        steps = torch.arange(first, stop, device=self.device) % self.table.ring_steps
        return {name: self._by_step(column)[steps].cpu() for name, column in self.columns.items()}

    def load_rows(self, first: int, rows: dict[str, Tensor]) -> None:
        """After `load_state_dict`: bring back what `rows` gave from vector step `first` on.

        Files of rows come in order. What is older than the ring is skipped.
        """
        self._write({name: column[self._written - first :] for name, column in rows.items()})

    def state_dict(self) -> dict[str, Any]:
        """Numbers, numpy arrays [E] (`episodes`) and nested dictionaries; the rows are apart."""
        return {
            "ring": [self.table.ring_steps, self.num_envs],
            "vector_steps": self.table.vector_steps,
            "steps_added": self.steps_added,
            "episodes": {name: column.copy() for name, column in self.table.columns.items()},
            "rng": self.rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of a replay of the same capacity; then `load_rows`."""
        self.table.load(state["vector_steps"], state["episodes"])
        self.steps_added = state["steps_added"]
        self.rng.bit_generator.state = state["rng"]
        self._written = self.table.oldest


def zeros_on_disk(shape: tuple[int, ...], dtype: torch.dtype, folder: Path | None) -> Tensor:
    """A tensor in a file that has no name, whose disk space comes back however the process ends.

    The space is taken at once: a memory map that finds none later ends the process by a signal.

    Raises:
        OSError: there is not so much.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)) * dtype.itemsize)
        kind = torch.zeros(0, dtype=dtype).numpy().dtype
        return torch.from_numpy(np.memmap(file, kind, "w+", shape=shape))
