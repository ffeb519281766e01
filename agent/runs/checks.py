"""What is refused before a run starts: a file that cannot be written, a machine too small."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from agent.config import TrainConfig
from envs.errors import BadInput
from envs.spaces import Spaces

if TYPE_CHECKING:
    import torch
    from torch import nn


def check_writable(key: str, path: Path) -> None:
    """Raises BadInput, before any work, if the file `key`=`path` could not be written."""
    above = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        if path.exists():
            path.open("ab").close()
        tempfile.TemporaryFile(dir=above).close()
    except OSError as error:
        raise BadInput(
            f"{key}={path} cannot be written ({error.strerror}); give a file in a folder that you "
            "may write to."
        ) from error


def check_space(
    config: TrainConfig,
    networks: nn.Module,
    activations: int,
    spaces: Spaces,
    folder: Path,
    device: torch.device,
    saved: int = 0,
) -> None:
    """Raises BadInput if memory or disk do not suffice for the run with a full replay.

    Args:
        config: of the run.
        networks: on any device, also meta.
        activations: bytes that an update keeps for its backward pass, at most.
        spaces: of the environment.
        folder: of the run.
        device: on which the run computes.
        saved: bytes of replay rows that the run's folder already holds.
    """
    from agent.data.replay import Replay  # here: torch takes seconds

    while not folder.exists():
        folder = folder.absolute().parent
    Replay.check_fits(config.replay, config.collect.num_envs, spaces, folder, device)
    weights = sum(p.numel() * p.element_size() for p in networks.parameters())
    rows = Replay.bytes_needed(config.replay, config.collect.num_envs, spaces)
    memmap = config.replay.storage == "memmap"
    in_memory = config.replay.storage == "memory" or (not memmap and device.type == "cpu")
    # Weights, gradients and two moments. A GPU's memory is left to its allocator's error.
    memory = 4 * weights + in_memory * rows + (device.type == "cpu") * activations
    # Checkpoints hold weights and two moments, one more of them while the next is written, the best
    # besides; they share one copy of the replay's rows. A memory map lies beside them.
    disk = 3 * weights * (config.keep + 2) + max(0, rows - saved) + memmap * rows
    free_memory, free_disk = psutil.virtual_memory().available, psutil.disk_usage(str(folder)).free
    if memory > free_memory:
        raise BadInput(
            f"The run needs {memory / 1e9:.2f} GB of memory for networks, replay and one update, "
            f"and {free_memory / 1e9:.2f} GB are free; lower replay.capacity, the networks' sizes "
            "or {tokenizer,dynamics,policy}.batch."
        )
    if disk > free_disk:
        raise BadInput(
            f"The run needs {disk / 1e9:.2f} GB of disk for its replay, its checkpoints' copy of "
            f"it and its networks, and {free_disk / 1e9:.2f} GB are free in {folder}; lower "
            "replay.capacity, or put the run on another disk with run=<folder>."
        )
