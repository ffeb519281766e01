"""The agent of a saved run."""

from __future__ import annotations

from pathlib import Path

import torch

from agent.agent import Agent
from agent.config import TrainConfig
from agent.runs.resume import config_from_state, spaces_from_state
from agent.storage import checkpoint


def load_agent(
    path: str | Path, device: torch.device
) -> tuple[Agent, TrainConfig, checkpoint.Checkpoint]:
    """The agent of a run (its newest checkpoint) or of a checkpoint's folder, in evaluation mode.

    Raises:
        BadInput: there is none, or its files are not as they were written.
    """
    saved = checkpoint.load(Path(path))
    config = config_from_state(saved.state)
    return agent_of(saved, config, device), config, saved


def agent_of(saved: checkpoint.Checkpoint, config: TrainConfig, device: torch.device) -> Agent:
    """The agent of a checkpoint and its run's configuration, in evaluation mode."""
    agent = Agent(config.agent, spaces_from_state(saved.state))
    agent.load_state_dict(saved.tensors["agent"])
    return agent.eval().to(device)
