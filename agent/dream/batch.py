"""Imagined episodes to act in from outside, as one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent.agent import Agent
from agent.dream.starts import StartStates, given_starts, starts_of_run
from agent.execution import (
    EAGER,
    Execution,
    autocast,
    captured,
    choose_execution,
    compiled,
    has_bf16,
    pick_device,
)
from agent.runs.load import load_networks
from agent.segment import Segment
from agent.world_models.per_row import PerRowWorld


class Dreams:
    """N imagined episodes as one batch on the agent's device; what they show arrives on the CPU."""

    def __init__(
        self, agent: Agent, starts: StartStates, number: int, execution: Execution = EAGER
    ) -> None:
        self.agent, self.starts, self.number, self.execution = agent, starts, number, execution
        self.world = PerRowWorld(agent.world, agent.spaces)
        with autocast(execution, agent.device):
            self.state = self.world.empty(number)
        self._run = captured(compiled(self._advance, execution), execution, agent.device)

    def begin(self, rows: Sequence[int], starts: Segment, keys: Sequence[int]) -> np.ndarray:
        """Begin new episodes in M of the N rows.

        Args:
            rows: [M].
            starts: Real frames [M, T], of `StartStates.segment`.
            keys: [M] from 0 to 2^63 − 1; what an episode draws follows from its own.

        Returns:
            Their first pictures, [M, H, W, C] uint8.
        """
        device = self.agent.device
        where, drawn = torch.tensor(rows, device=device), torch.tensor(keys, device=device)
        with autocast(self.execution, device):
            frames = self.world.start(self.state, where, starts.to(device), drawn)
        return frames.permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A step of all N by actions [N, F].

        Returns:
            Pictures [N, H, W, C] uint8, rewards [N] float32, ends [N] bool.
        """
        pictures, rewards, ends = self._run(torch.as_tensor(actions).to(self.agent.device))
        return pictures.cpu().numpy(), rewards.cpu().numpy(), ends.cpu().numpy()

    def _advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with autocast(self.execution, self.agent.device):
            outcome = self.world.step(self.state, actions)
        pictures = outcome.frames.permute(0, 2, 3, 1).contiguous()
        return pictures, outcome.rewards, outcome.ends


def dreams_of(
    run: str | Path,
    number: int,
    starts: str | Mapping[str, Any] = "anywhere",
    mode: str = "auto",
    device: str = "auto",
) -> Dreams:
    """Dreams of a run's world, in the precision of the run if the device has it.

    Args:
        run: A run's folder (its newest checkpoint) or a checkpoint's.
        number: Of episodes at a time.
        starts: "anywhere" in the run's replay, at an episode's "first" frame, or what
            `given_starts` takes.
        mode: As a learner's; "auto": captured on CUDA, eager on a CPU.
        device: auto, cpu, cuda, …
    """
    where = pick_device(device)
    agent, config, saved = load_networks(run, where)
    bf16 = config.precision == "bf16" and has_bf16(where)
    execution = choose_execution(mode, "bf16" if bf16 else "fp32", where, flop=0.0, key="mode")
    if isinstance(starts, str):
        pool = starts_of_run(saved, starts, agent.config.actor_critic.burn_in)
    else:
        pool = given_starts(starts, agent.spaces)
    return Dreams(agent, pool, number, execution)
