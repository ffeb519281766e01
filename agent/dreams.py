"""Imagined episodes to act in from outside: a run's world, where its episodes start, and how it is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent import starts as starting
from agent.agent import Agent
from agent.checks import pick_device
from agent.execution import Execution, autocast, captured, choose_execution, compiled, has_bf16
from agent.saved import load_networks
from agent.segment import Segment
from agent.starts import Starts
from agent.world_models.staggered import StaggeredWorld
from envs.errors import BadInput


class Dreams:
    """N imagined episodes as one batch on the agent's device; pictures, rewards and ends arrive on the CPU."""

    def __init__(self, agent: Agent, starts: Starts, number: int, execution: Execution = Execution()) -> None:  # noqa: B008
        self.agent, self.starts, self.number, self.execution = agent, starts, number, execution
        self.world = StaggeredWorld(agent.world, agent.spaces)
        with autocast(execution, agent.device):
            self.state = self.world.empty(number)
        self._run = captured(compiled(self._advance, execution), execution, agent.device)

    def begin(self, rows: Sequence[int], starts: Segment, keys: Sequence[int]) -> np.ndarray:
        """New episodes in some of the N, from real frames [M, T] (`Starts.segment`) -> their first pictures, [M, H, W, C].

        keys: from 0 to 2^63 − 1; what an episode draws follows from its own
        """
        device = self.agent.device
        where = torch.tensor(rows, device=device)
        with autocast(self.execution, device):
            frames = self.world.start(self.state, where, starts.to(device), torch.tensor(keys, device=device))
        return to_pictures(frames).cpu().numpy()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A step of all N. actions: [N, F] -> pictures [N, H, W, C] uint8, rewards [N] float32, ends [N] bool."""
        pictures, rewards, ends = self._run(torch.as_tensor(actions, dtype=torch.int64).to(self.agent.device))
        return pictures.cpu().numpy(), rewards.cpu().numpy(), ends.cpu().numpy()

    def _advance(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with autocast(self.execution, self.agent.device):
            outcome = self.world.step(self.state, actions)
        return to_pictures(outcome.frames), outcome.rewards, outcome.ends


def to_pictures(frames: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, H, W, C]."""
    return frames.permute(0, 2, 3, 1).contiguous()


def dreams_of(
    run: str | Path, number: int, starts: str | Mapping[str, Any] = "anywhere", mode: str = "auto", device: str = "auto"
) -> Dreams:
    """Dreams of a run's world.

    run:    a run's folder (its newest checkpoint) or a checkpoint's
    starts: "anywhere" in the run's replay, at an episode's "first" frame, or what `given_starts` is told
    mode:   as a learner's; "auto": captured on CUDA, eager on a CPU
    device: "auto", "cpu", "cuda", …

    It computes in the precision of the run, if the device has it. Raises BadInput if anything of this is not to be had.
    """
    where = pick_device(device)
    agent, config, saved = load_networks(run, where)
    bf16 = config.precision == "bf16" and has_bf16(where)
    execution = choose_execution(mode, "bf16" if bf16 else "fp32", where, flop=0.0, key="mode")
    if isinstance(starts, str):
        pool = starting.of_run(saved, starts, agent.config.actor_critic.burn_in)
    else:
        pool = given_starts(agent, starts)
    return Dreams(agent, pool, number, execution)


def given_starts(agent: Agent, told: Mapping[str, Any]) -> Starts:
    """Starts in an agent's world, of `frames`, and `actions` if there are several (`agent.starts.given`).

    Raises BadInput if something else is told, or if they are not such.
    """
    if not isinstance(told, Mapping) or "frames" not in told or not set(told) <= {"frames", "actions"}:
        what = sorted(told) if isinstance(told, Mapping) else told
        raise BadInput(f"A dream was told to start from {what}; give frames, and actions if there are several.")
    actions = None if told.get("actions") is None else np.asarray(told["actions"])
    return starting.given(np.asarray(told["frames"]), actions, agent.spaces)
