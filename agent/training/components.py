"""The three parts that learn: their view of the replay, their learners, their updates' costs."""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from agent.agent import Agent
from agent.config import PartConfig, TrainConfig
from agent.data.sampler import Anchor
from agent.execution import EAGER, Execution
from agent.nets.actions import random_actions
from agent.segment import Segment
from agent.training.learner import Learner
from agent.training.memory import Held
from agent.training.progress import duration

PARTS = ("tokenizer", "dynamics", "policy")  # in the order of the loop


class SampleSpec(NamedTuple):
    """What a part's batch is: `batch` sequences of `steps`, around or before a random step."""

    batch: int
    steps: int
    anchor: Anchor


def schedule_of(config: TrainConfig, part: str) -> PartConfig:
    """How `part` is trained."""
    return getattr(config, part)


def sample_spec(config: TrainConfig, part: str) -> SampleSpec:
    """The sequences of `part`: for the policy the burn-in, at whose end imagination starts."""
    anchor: Anchor = "before" if part == "policy" else "around"
    return SampleSpec(schedule_of(config, part).batch, config.sequence_steps(part), anchor)


def total_updates(config: TrainConfig, part: str, epoch: int = 0) -> int:
    """Of a run from `epoch` on."""
    return sum(map(schedule_of(config, part).updates_in, range(epoch, config.epochs)))


def steps_to_collect(config: TrainConfig) -> int:
    """By the whole run, its first random steps among them."""
    epochs = min(config.epochs, config.collect.epochs)
    return config.collect.first_steps + config.collect.steps * (epochs - 1)


def make_learner(
    agent: Agent, config: TrainConfig, part: str, execution: Execution = EAGER
) -> Learner:
    """The learner of `part`."""
    before_step = agent.update_target if part == "policy" else None
    return Learner(
        getattr(agent, part),
        getattr(agent, f"{part}_loss"),
        schedule_of(config, part),
        before_step,
        execution,
    )


def noise(agent: Agent, config: TrainConfig, part: str) -> Segment:
    """A batch of `part` on the agent's device, of noise: an update takes as long on any data."""
    batch, steps, _ = sample_spec(config, part)
    shape = (batch, steps)
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


class Cost(NamedTuple):
    """flop: floating-point operations of an update
    held:  bytes that it keeps for its backward pass, eagerly and in float32
    """

    flop: int
    held: int


def count_costs(sketch: Agent, config: TrainConfig) -> dict[str, Cost]:
    """What an update of each part costs. sketch: the agent on the meta device."""
    costs = {}
    for part in PARTS:
        learner = make_learner(sketch, config, part)
        with FlopCounterMode(display=False) as counter, Held() as held:
            learner.update(noise(sketch, config, part))
        costs[part] = Cost(counter.get_total_flops(), held.bytes)
    return costs


def total_flop(costs: dict[str, Cost], config: TrainConfig) -> int:
    """Floating-point operations of all the run's updates."""
    return sum(costs[part].flop * total_updates(config, part) for part in PARTS)


def time_update(agent: Agent, config: TrainConfig, part: str, learner: Learner) -> float:
    """Seconds per update, without the first ones, which compile or capture. Restores all state."""
    before, optimizer = (
        {k: v.clone() for k, v in x.state_dict().items()} for x in (agent, learner)
    )
    devices = [agent.device] if agent.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        segment = noise(agent, config, part)
        for _ in range(learner.warm_up):
            learner.update(segment)
        synchronize(agent.device)
        started = perf_counter()
        learner.update(segment)
        synchronize(agent.device)
        seconds = perf_counter() - started
    agent.load_state_dict(before)
    learner.load_state_dict(optimizer)
    return seconds


def synchronize(device: torch.device) -> None:
    """Wait for what was given to the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forecast(agent: Agent, config: TrainConfig, learners: dict[str, Learner], epoch: int) -> str:
    """How long the updates from an epoch on will take, from a timed one of each part."""
    seconds = {}
    for part in PARTS:
        if updates := total_updates(config, part, epoch):
            seconds[part] = updates * time_update(agent, config, part, learners[part])
    parts = ", ".join(f"{part} {duration(amount)}" for part, amount in seconds.items())
    total = duration(sum(seconds.values()))
    return f"about {total} of updates ({parts}); playing and evaluating come on top"
