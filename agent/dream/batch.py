"""Imagined episodes to act in from outside, as one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.vector.utils import batch_space
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
from agent.runs.load import load_agent
from agent.world_models.per_row import PerRowWorld
from envs.errors import BadInput


class Dreams:
    """N imagined episodes as one batch on the agent's device; what they show arrives on the CPU."""

    def __init__(
        self, agent: Agent, starts: StartStates, number: int, execution: Execution = EAGER
    ) -> None:
        self.agent, self.starts, self.number, self.execution = agent, starts, number, execution
        size, channels, factors = agent.spaces.size, agent.spaces.channels, agent.spaces.actions
        self.observation_space = Box(0, 255, (size, size, channels), np.uint8)
        self.action_space = Discrete(factors[0]) if len(factors) == 1 else MultiDiscrete(factors)
        self.world = PerRowWorld(agent.world, agent.spaces)
        with autocast(execution, agent.device):
            self.state = self.world.empty(number)
        self._run = captured(compiled(self._advance, execution), execution, agent.device)

    def begin(
        self,
        rows: Sequence[int],
        generators: Sequence[np.random.Generator],
        options: Mapping[str, Any] | None = None,
    ) -> np.ndarray:
        """Begin new episodes in M of the N rows, each drawn from its own generator.

        Args:
            rows: [M].
            generators: [M].
            options: One start for all, as for `given_starts` but without their first axis.

        Returns:
            Their first pictures, [M, H, W, C] uint8.
        """
        starts, device = self.starts, self.agent.device
        if options:
            given = {name: np.asarray(x)[None] for name, x in options.items() if x is not None}
            starts = given_starts(given, self.agent.spaces)
        segment = starts.segment([int(g.integers(len(starts))) for g in generators]).to(device)
        keys = torch.tensor([int(g.integers(2**63 - 1)) for g in generators], device=device)
        with autocast(self.execution, device):
            where = torch.tensor(rows, device=device)
            frames = self.world.start(self.state, where, segment, keys)
        return frames.permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A step of all N by actions [N, F], or [N] where F = 1.

        Returns:
            Pictures [N, H, W, C] uint8, rewards [N] float32, ends [N] bool.

        Raises:
            BadInput: An action is outside its space, which would stop a GPU.
        """
        given = np.asarray(actions)
        if given not in batch_space(self.action_space, self.number):
            raise BadInput(
                f"The actions {given.tolist()} were given; give {self.number} of "
                f"{self.action_space}."
            )
        by_factor = torch.from_numpy(given.astype(np.int64).reshape(self.number, -1))
        pictures, rewards, ends = self._run(by_factor.to(self.agent.device))
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
    agent, config, saved = load_agent(run, where)
    bf16 = config.precision == "bf16" and has_bf16(where)
    execution = choose_execution(mode, "bf16" if bf16 else "fp32", where, flop=0.0, key="mode")
    if isinstance(starts, str):
        pool = starts_of_run(saved, starts, agent.config.actor_critic.burn_in)
    else:
        pool = given_starts(starts, agent.spaces)
    return Dreams(agent, pool, number, execution)
