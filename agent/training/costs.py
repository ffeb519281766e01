"""What updates cost: operations, memory and seconds."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor, UntypedStorage
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import Parameter
from torch.utils.flop_counter import FlopCounterMode

from agent.agent import Agent
from agent.config import TrainConfig
from agent.nets.actions import random_actions
from agent.segment import Segment
from agent.training.components import PARTS, make_learner, sample_spec, total_updates
from agent.training.learner import Learner
from agent.training.progress import duration


class Cost(NamedTuple):
    """What an update costs.

    Attributes:
        flop: Floating-point operations.
        held: Bytes kept for the backward pass, eagerly and in float32.
    """

    flop: int
    held: int


def cost_of(function: Callable[[], object]) -> Cost:
    """What a function costs, on any device, meta too."""
    storages: dict[int, UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, Parameter) and not isinstance(tensor._base, Parameter):
            storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor.detach()  # an operation's result, kept as it is, would keep the operation

    counter = FlopCounterMode(display=False)
    with counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        function()
    held = sum(storage.nbytes() for storage in storages.values())
    return Cost(counter.get_total_flops(), held)


def noise(agent: Agent, config: TrainConfig, part: str) -> Segment:
    """A batch of `part` on the agent's device, of noise: an update takes as long on any data."""
    shape = sample_spec(config, part)[:2]
    segment = Segment(
        frames=torch.randint(0, 256, (*shape, *agent.spaces.frame_shape), dtype=torch.uint8),
        actions=random_actions(agent.spaces.actions, shape, torch.get_default_device()),
        rewards=torch.zeros(shape),
        terminated=torch.zeros(shape, dtype=torch.bool),
        truncated=torch.zeros(shape, dtype=torch.bool),
        mask=torch.ones(shape, dtype=torch.bool),
        batch_size=shape,
    )
    return segment.to(agent.device)


def count_costs(sketch: Agent, config: TrainConfig) -> dict[str, Cost]:
    """What an update of each part costs. sketch: the agent on the meta device."""
    costs = {}
    for part in PARTS:
        learner, batch = make_learner(sketch, config, part), noise(sketch, config, part)
        costs[part] = cost_of(lambda learner=learner, batch=batch: learner.update(batch))
    return costs


def total_flop(costs: dict[str, Cost], config: TrainConfig) -> int:
    """Floating-point operations of all the run's updates."""
    return sum(costs[part].flop * total_updates(config, part) for part in PARTS)


def synchronize(device: torch.device) -> None:
    """Wait for what was given to the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_update(agent: Agent, config: TrainConfig, part: str, learner: Learner) -> float:
    """Seconds per update, without the first ones, which compile or capture. Restores all state."""
    states = [{k: v.clone() for k, v in x.state_dict().items()} for x in (agent, learner)]
    with torch.random.fork_rng([agent.device] if agent.device.type == "cuda" else []):
        segment = noise(agent, config, part)
        for _ in range(learner.warm_up):
            learner.update(segment)
        synchronize(agent.device)
        started = perf_counter()
        learner.update(segment)
        synchronize(agent.device)
        seconds = perf_counter() - started
    agent.load_state_dict(states[0])
    learner.load_state_dict(states[1])
    return seconds


def forecast(agent: Agent, config: TrainConfig, learners: dict[str, Learner], epoch: int) -> str:
    """How long the updates from an epoch on will take, from a timed one of each part."""
    seconds = {}
    for part in PARTS:
        if updates := total_updates(config, part, epoch):
            seconds[part] = updates * time_update(agent, config, part, learners[part])
    parts = ", ".join(f"{part} {duration(amount)}" for part, amount in seconds.items())
    total = duration(sum(seconds.values()))
    return f"about {total} of updates ({parts}); playing and evaluating come on top"
