"""Episodes in, segments out: torchrl's replay buffer, its storage, and the sampler of agent/episodes.py."""

from __future__ import annotations

import ctypes
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from numpy.typing import ArrayLike, NDArray
from tensordict import TensorDict
from torch import Tensor
from torchrl.data import LazyMemmapStorage, LazyTensorStorage, ReplayBuffer
from torchrl.data.replay_buffers.storages import Storage

from agent.episodes import Anchor, EpisodeSampler, EpisodeTable
from agent.files import FULL
from agent.segment import Segment
from envs.errors import BadInput
from envs.spaces import Spaces

CPU = torch.device("cpu")


@dataclass
class ReplayConfig:
    """capacity: rows (environment steps) held, over all environments
    storage:  "memory", "memmap" (on disk) or "device" (in the memory of the device that learns)
    alpha:    exponent of the draw (1 / (1 + times drawn))^alpha, 5 for Crafter, 1 for Atari
    """

    capacity: int
    storage: str = "memory"
    alpha: float = 5.0

    def __post_init__(self) -> None:
        if self.storage not in ("memory", "memmap", "device"):
            raise BadInput(f"replay.storage={self.storage} is not known; choose memory, memmap or device.")
        if self.alpha < 0:
            raise BadInput(f"replay.alpha={self.alpha} is negative; give 0 (uniform) or more.")


class Draw(NamedTuple):
    """rows: [B * L] int64, where the storage holds them; info: as `EpisodeSampler.sample`; length: L"""

    rows: Tensor
    info: dict[str, Tensor]
    length: int


def check_rows(rows: dict[str, Tensor], num_envs: int, spaces: Spaces) -> None:
    """Raises ValueError if these cannot be `Replay.rows` of environments with such spaces."""
    expected = {
        "frames": (torch.uint8, spaces.frame_shape), "actions": (torch.int64, (len(spaces.actions),)), "rewards": (torch.float32, ())
    }  # fmt: skip
    steps = len(rows["rewards"])
    for name, (dtype, shape) in expected.items():
        if rows[name].shape != (steps, num_envs, *shape) or rows[name].dtype != dtype:
            raise ValueError(f"rows have {name} {list(rows[name].shape)} of {rows[name].dtype}")
    if not bool(((0 <= rows["actions"]) & (rows["actions"] < torch.tensor(spaces.actions))).all()):
        raise ValueError("rows have actions that nobody can choose")


def reserve(folder: Path) -> None:
    """Takes the disk space of the files in a folder, which so far have a size only. Raises OSError if it is not there.

    Where a page of a memory map finds no room, the system ends the process by a signal, without a word. File systems that
    cannot do it at once are left alone.
    """
    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None) if os.name == "posix" else None
    for path in folder.rglob("*.memmap") if fallocate else ():
        with open(path, "r+b") as file:
            if fallocate(file.fileno(), 0, ctypes.c_int64(0), ctypes.c_int64(path.stat().st_size)) and ctypes.get_errno() in FULL:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))


class Replay:
    """The newest `capacity` rows of `num_envs` environments, sampled as segments.

    scratch_dir: where memmap keeps its rows, an existing folder; None: the system's temporary one.
    device: where storage "device" keeps them.
    BadInput if the rows don't fit the memory or the disk.
    """

    def __init__(
        self, config: ReplayConfig, num_envs: int, spaces: Spaces, seed: int,
        scratch_dir: Path | None = None, device: torch.device = CPU,
    ) -> None:  # fmt: skip
        self.check_fits(config, num_envs, spaces, scratch_dir, device)
        self.device = device if config.storage == "device" else CPU
        self.num_envs = num_envs
        self.spaces = spaces
        self.table = EpisodeTable(num_envs, config.capacity // num_envs)
        self.sampler = EpisodeSampler(self.table, config.alpha, seed)
        self.steps_added = 0  # rows with is_step, ever
        self._written = 0  # vector steps; fewer than the table knows while rows are being loaded
        size = self.table.ring_steps * num_envs
        if config.storage != "memmap":
            self._allocate(LazyTensorStorage(size, device=self.device))
            return
        # A deleted file stays mapped: its disk space is the process's own and comes back however
        # the process ends. (torchrl's automatic cleanup replaces the signal handlers.)
        with tempfile.TemporaryDirectory(dir=scratch_dir, ignore_cleanup_errors=True) as folder:
            self._allocate(LazyMemmapStorage(size, scratch_dir=folder, auto_cleanup=False))
            try:
                reserve(Path(folder))
            except OSError as error:
                raise BadInput(
                    f"replay.capacity={config.capacity} needs {self.bytes_needed(config, num_envs, spaces) / 1e9:.2f} GB of disk in "
                    f"{scratch_dir or tempfile.gettempdir()}, which could not be taken ({error.strerror}); lower replay.capacity "
                    "or free some space."
                ) from error

    def _allocate(self, storage: Storage) -> None:
        """A lazy storage allocates at its first rows; give it some now and take them back."""
        self.buffer = ReplayBuffer(storage=storage, sampler=self.sampler)
        frames = torch.zeros(1, self.num_envs, *self.spaces.frame_shape, dtype=torch.uint8)
        actions = torch.zeros(1, self.num_envs, len(self.spaces.actions))
        self._write(frames, actions, torch.zeros(1, self.num_envs))
        self.buffer.empty()
        self._written = 0

    @staticmethod
    def bytes_needed(config: ReplayConfig, num_envs: int, spaces: Spaces) -> int:
        """When full: per row a uint8 frame, an int64 for each of an action's factors and a float32 reward."""
        return config.capacity // num_envs * num_envs * (int(np.prod(spaces.frame_shape)) + 8 * len(spaces.actions) + 4)

    @classmethod
    def check_fits(
        cls, config: ReplayConfig, num_envs: int, spaces: Spaces,
        scratch_dir: Path | None = None, device: torch.device = CPU,
    ) -> None:  # fmt: skip
        """BadInput if the rows don't fit what is free now, or are too few to hold a step."""
        if config.capacity < 2 * num_envs:
            raise BadInput(
                f"replay.capacity={config.capacity} holds no step; give {2 * num_envs} or more."
            )
        if config.storage == "device" and device.type == "cuda":
            free, place = torch.cuda.mem_get_info(device)[0], f"memory of {device}"
            free //= 2  # the other half is for the updates
            remedy = "lower replay.capacity or set replay.storage=memory"
        elif config.storage != "memmap":
            free, place = psutil.virtual_memory().available, "memory"
            remedy = "lower replay.capacity or set replay.storage=memmap"
        else:
            folder = str(scratch_dir or tempfile.gettempdir())
            free, place = psutil.disk_usage(folder).free, f"disk in {folder}"
            remedy = "lower replay.capacity or free some space"
        needed = cls.bytes_needed(config, num_envs, spaces)
        if needed > free:
            raise BadInput(
                f"replay.capacity={config.capacity} needs {needed / 1e9:.2f} GB of {place}, and "
                f"only {free / 1e9:.2f} GB are free; {remedy}."
            )

    def add(
        self, frames: ArrayLike, actions: ArrayLike, rewards: ArrayLike,
        terminated: ArrayLike, truncated: ArrayLike, is_step: ArrayLike,
    ) -> None:  # fmt: skip
        """Enter one vector step.

        frames: [N, C, H, W] uint8; actions: [N, F] integer; rewards: [N] float; the others [N] bool.
        Of a row with is_step False only the frame counts.
        ValueError if the frames' shape or type is another, or if `is_step` doesn't follow.
        """
        frames = torch.as_tensor(frames)
        expected = (self.num_envs, *self.spaces.frame_shape)
        if frames.shape != expected or frames.dtype != torch.uint8:
            raise ValueError(f"frames are {frames.shape} {frames.dtype}; give {expected} uint8.")
        is_step = np.asarray(is_step, bool)
        self.table.add(np.asarray(terminated, bool), np.asarray(truncated, bool), is_step)
        self._write(frames[None], torch.as_tensor(actions)[None], torch.as_tensor(rewards)[None])
        self.steps_added += int(is_step.sum())

    def _write(self, frames: Tensor, actions: Tensor, rewards: Tensor) -> None:
        """Append [n, N, ...] rows to the ring, time-major."""
        columns = {"frames": frames, "actions": actions.long(), "rewards": rewards.float()}
        self.buffer.extend(TensorDict(columns, batch_size=rewards.shape).flatten())
        self._written += len(actions)

    @property
    def num_steps(self) -> int:
        """Steps that can be sampled now."""
        return int(self.table.usable()[1].clip(0).sum())

    @property
    def num_episodes(self) -> int:
        """Episodes that can be sampled now, running ones included."""
        return int((self.table.usable()[1] > 0).sum())

    def sample(
        self, component: str, batch_size: int, length: int, anchor: Anchor = "around",
        count: bool = True,
    ) -> Segment:  # fmt: skip
        """Segment [B, L] where the rows are. An episode is drawn with probability ∝ (1 / (1 + times
        `component` drew it))^alpha, then one of its steps t uniformly, then L slots:

        "around": from t - U{0..L-1}; may overlap both ends of the episode.
        "before": up to t + U{0..L-1}, at most the final step; may overlap only the start.
        The probabilities are those at the batch's start; count=False leaves them as they are.
        """
        return self.gather(self.draw(component, batch_size, length, anchor, count))

    def draw(self, component: str, batch_size: int, length: int, anchor: Anchor = "around", count: bool = True) -> Draw:
        """What `sample` would gather."""
        if anchor not in ("around", "before"):
            raise ValueError(f"anchor={anchor!r} is not known; choose 'around' or 'before'.")
        if self._written < self.table.vector_steps:
            raise RuntimeError("Rows of the loaded state are missing; bring back all (load_rows).")
        if self.num_steps == 0:
            raise RuntimeError("The replay holds no step whose next frame is known; add rows.")
        self.sampler.window = (component, length, anchor, count)
        return Draw(*self.sampler.sample(self.buffer.storage, batch_size * length), length)

    def gather(self, draw: Draw) -> Segment:
        """Segment [B, L] of the rows that were drawn, where they are; the same again as long as none is added."""
        held, rows = self.buffer.storage[:], draw.rows.to(self.device)
        info = {name: flag.to(self.device) for name, flag in draw.info.items()}
        # ReplayBuffer.sample would index with brackets, which takes twelve times as long.
        frames, actions, rewards = (held[name].index_select(0, rows) for name in ("frames", "actions", "rewards"))
        frames *= info["shown"][:, None, None, None]
        return Segment(
            frames=frames,
            actions=actions.masked_fill(~info["mask"][:, None], 0),
            rewards=rewards.masked_fill(~info["mask"], 0),
            terminated=info["terminated"],
            truncated=info["truncated"],
            mask=info["mask"],
            batch_size=[len(rows)],
        ).reshape(-1, draw.length)

    def largest_reward(self) -> float:
        """The largest magnitude of a reward that is held."""
        held = self.buffer.storage[:]["rewards"][: min(self._written, self.table.ring_steps) * self.num_envs]
        return float(held.abs().max()) if len(held) else 0.0

    def drop_newest(self, broken: NDArray) -> None:
        """Take back the newest step of the environments `broken` [N] bool, which failed in it. It was entered as truncated:
        its frame is the episode's last observation."""
        columns = self.table.columns
        columns["stop"][~columns["closed"] & broken[columns["env"]]] -= 1
        self.steps_added -= int(broken.sum())

    def cut_running(self) -> None:
        """End the running episodes as truncated, where environments could not be restored: their
        newest rows become last observations; the next rows begin new episodes."""
        columns = self.table.columns
        columns["terminated"] &= columns["closed"]  # running: it could only be the newest row's
        columns["truncated"] |= ~columns["closed"]
        columns["closed"][:] = True

    def rows(self, first: int, stop: int) -> dict[str, Tensor]:
        """frames, actions, rewards [n, N, ...] of those of the vector steps [first, stop) that are
        held, i.e. that lie in [table.oldest, table.vector_steps). What was added never changes."""
        first, stop = max(first, self.table.oldest), min(stop, self._written)
        steps = torch.arange(first, max(first, stop))[:, None] % self.table.ring_steps
        rows = steps * self.num_envs + torch.arange(self.num_envs)
        return dict(self.buffer.storage.get(rows.to(self.device)).cpu().items())

    def load_rows(self, first: int, rows: dict[str, Tensor]) -> None:
        """After `load_state_dict`: bring back what `rows` gave from vector step `first` on, chunk
        by chunk in order; what is older or already here is skipped. ValueError if a step is not."""
        skip = self._written - first
        if skip < 0:
            raise ValueError(f"Rows begin at vector step {first}; bring {self._written} first.")
        wanted = slice(skip, max(skip, self.table.vector_steps - first))
        if len(rows["actions"][wanted]):
            self._write(*(rows[name][wanted] for name in ("frames", "actions", "rewards")))

    def state_dict(self) -> dict[str, Any]:
        """Numbers, numpy arrays [E] (`episodes`) and nested dictionaries; the rows are apart."""
        return {
            "ring": [self.table.ring_steps, self.num_envs],
            "vector_steps": self.table.vector_steps,
            "steps_added": self.steps_added,
            "episodes": {name: column.copy() for name, column in self.table.columns.items()},
            "rng": self.sampler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state; then `load_rows`. BadInput if the capacity was another, and other errors if it is no such state."""
        ring = [self.table.ring_steps, self.num_envs]
        if list(state["ring"]) != ring:
            raise BadInput(
                f"The saved replay holds {state['ring']} rows (vector steps, environments), this "
                f"one {ring}; resume with the capacity and the environments it was saved with."
            )
        self.table.load(state["vector_steps"], {name: np.array(v) for name, v in state["episodes"].items()})
        self.steps_added = int(state["steps_added"])
        self.sampler.load_state_dict(state["rng"])
        self._written = self.table.oldest
        self.buffer.writer.load_state_dict({"_cursor": self._written % ring[0] * self.num_envs})
