"""What is refused before a run starts: a file that cannot be written, a machine too small."""

from __future__ import annotations

import os
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
        if path.is_dir() or (path.exists() and not os.access(path, os.W_OK)):
            raise PermissionError
        with tempfile.TemporaryFile(
            dir=above
        ):  # what rights do not tell: /proc has no room for files
            pass
    except OSError as error:
        raise BadInput(
            f"{key}={path} cannot be written; "
            f"give {key}=<a file in a folder that you may write to>."
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
    """Check that memory and disk suffice for the run with a full replay.

    Args:
        networks: On any device, also meta.
        activations: Bytes that an update keeps for its backward pass, at most.
        spaces: Of the environment.
        device: On which the run computes.
        saved: Bytes of replay rows that the run's folder already holds.

    Raises:
        BadInput: If they do not.
    """
    from agent.data.replay import Replay  # here: torch takes seconds

    while not folder.exists():
        folder = folder.absolute().parent
    Replay.check_fits(config.replay, config.collect.num_envs, spaces, folder, device)
    weights = sum(p.numel() * p.element_size() for p in networks.parameters())
    rows = Replay.bytes_needed(config.replay, config.collect.num_envs, spaces)
    memmap = config.replay.storage == "memmap"
    elsewhere = memmap or (config.replay.storage == "device" and device.type == "cuda")
    remedy = "lower replay.capacity or the networks' sizes"

    # Weights, gradients and two moments. A GPU's memory is left to its allocator's error.
    memory = 4 * weights + (0 if elsewhere else rows)
    activations = activations if device.type == "cpu" else 0
    free = psutil.virtual_memory().available
    if memory > free:
        raise BadInput(
            f"Networks and replay need {memory / 1e9:.2f} GB of memory, and only "
            f"{free / 1e9:.2f} GB are free; {remedy}."
        )
    if memory + activations > free:
        raise BadInput(
            f"An update needs {activations / 1e9:.2f} GB of memory besides {memory / 1e9:.2f} GB "
            f"of networks and replay, and only {free / 1e9:.2f} GB are free; lower "
            "tokenizer.batch, dynamics.batch or policy.batch."
        )
    # Checkpoints hold weights and two moments, one more of them while the next is written, the best
    # besides; they share one copy of the replay's rows. A memory map lies beside them.
    disk = 3 * weights * (config.keep + 2) + max(0, rows - saved) + (rows if memmap else 0)
    free = psutil.disk_usage(str(folder)).free
    if disk > free:
        raise BadInput(
            f"The run needs {disk / 1e9:.2f} GB of disk for its replay, its checkpoints' copy of "
            f"it and its networks, and only {free / 1e9:.2f} GB are free in {folder}; {remedy}, "
            "or put the run on another disk with run=<folder>."
        )
