"""The agent of a saved run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import psutil
import torch

from agent.agent import Agent, sketch_agent
from agent.config import AgentConfig, TrainConfig
from agent.runs.resume import check_trusted, config_from_state, spaces_from_state
from agent.storage import checkpoint
from envs.errors import BadInput
from envs.settings import flatten
from envs.spaces import Spaces


def check_networks(config: AgentConfig, spaces: Spaces, saved: checkpoint.Checkpoint) -> None:
    """Check that a checkpoint's networks fit its configuration, before allocating any.

    So the size of the files bounds the memory taken, not the sizes that they declare.

    Raises:
        BadInput: If they do not.
    """
    tensors = saved.tensors.get("agent", {})
    # Part -> how many modules it has, at most: each layer, block and stage has a tensor or more.
    loops: dict[str, int] = {}
    for key, value in flatten(dataclasses.asdict(config)).items():
        part, _, name = key.rpartition(".")
        count = (
            len(value)
            if isinstance(value, list)
            else value
            if name in ("layers", "blocks", "codebooks")
            else 1
        )
        loops[part] = loops.get(part, 1) * max(1, count)
    if max(loops.values()) > len(tensors):
        part = max(loops, key=loops.__getitem__)
        raise BadInput(
            f"{saved.folder} holds {len(tensors)} tensors, fewer than its agent.{part} has; use "
            "the version that wrote it."
        )
    sketch = sketch_agent(config, spaces)
    expected = {name: (t.shape, t.dtype) for name, t in sketch.state_dict().items()}
    if expected != {name: (t.shape, t.dtype) for name, t in tensors.items()}:
        raise BadInput(
            f"{saved.folder} holds networks of another version; use the one that wrote it."
        )
    needed = sum(t.numel() * t.element_size() for t in (*sketch.parameters(), *sketch.buffers()))
    free = psutil.virtual_memory().available
    if needed > free:
        raise BadInput(
            f"The agent of {saved.folder} needs {needed / 1e9:.2f} GB of memory, and only "
            f"{free / 1e9:.2f} GB are free; free some."
        )


def load_agent(
    path: str | Path, device: torch.device, env_id: str | None = None
) -> tuple[Agent, TrainConfig, checkpoint.Checkpoint]:
    """The agent of a run (its newest checkpoint) or of a checkpoint's folder, in evaluation mode.

    env_id: that the command line names (`check_trusted`)

    Raises BadInput if there is none, or if its files are not as they were written.
    """
    agent, config, saved = load_networks(path, device)
    check_trusted(config.env, env_id)
    return agent, config, saved


def load_networks(
    path: str | Path, device: torch.device
) -> tuple[Agent, TrainConfig, checkpoint.Checkpoint]:
    """As `load_agent`, where no environment is needed: only the networks are read and checked."""
    saved = checkpoint.load(Path(path), only=["agent"])
    config = config_from_state(saved.state)
    spaces = spaces_from_state(saved.state)
    check_networks(config.agent, spaces, saved)
    agent = Agent(config.agent, spaces)
    agent.load_state_dict(saved.tensors["agent"])
    return agent.eval().to(device), config, saved
