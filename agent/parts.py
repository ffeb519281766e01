"""The three parts that learn: what each sees of the replay, its learner, and what its updates cost."""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from agent.agent import Agent
from agent.config import DynamicsPartConfig, PartConfig, SequencePartConfig, TrainConfig
from agent.cost import Held
from agent.execution import Execution
from agent.learner import Learner
from agent.nets.actions import random_actions
from agent.episodes import Anchor
from agent.segment import Segment

PARTS = ("tokenizer", "dynamics", "policy")  # in the order of the loop


class Window(NamedTuple):
    """What a part's batch is made of: `batch` sequences of `steps`, placed around a random step or before it."""

    batch: int
    steps: int
    anchor: Anchor


def schedule_of(config: TrainConfig, part: str) -> PartConfig:
    """How `part` is trained."""
    return getattr(config, part)


def window(config: TrainConfig, part: str) -> Window:
    """The window of `part`: for the policy the burn-in, at whose end imagination starts."""
    if part == "policy":
        return Window(config.policy.batch, config.agent.actor_critic.burn_in, "before")
    schedule: SequencePartConfig | DynamicsPartConfig = getattr(config, part)
    return Window(schedule.batch, schedule.steps or config.agent.dynamics.context, "around")


def total_updates(config: TrainConfig, part: str, epoch: int = 0) -> int:
    """Of a run from `epoch` on."""
    return sum(map(schedule_of(config, part).updates_in, range(epoch, config.epochs)))


def steps_to_collect(config: TrainConfig) -> int:
    """By the whole run, its first random steps among them."""
    epochs = min(config.epochs, config.collect.epochs)
    return config.collect.first_steps + config.collect.steps * (epochs - 1)


def make_learner(agent: Agent, config: TrainConfig, part: str, execution: Execution = Execution()) -> Learner:  # noqa: B008
    """The learner of `part`."""
    before_step = agent.update_target if part == "policy" else None
    return Learner(
        getattr(agent, part), getattr(agent, f"{part}_loss"), schedule_of(config, part), before_step, execution
    )


def noise(agent: Agent, config: TrainConfig, part: str) -> Segment:
    """A batch of `part` on the agent's device, of noise: the time of an update does not depend on what it sees."""
    batch, steps, _ = window(config, part)
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
    """Seconds of an update, the first ones (which compile, capture) aside; afterwards all is as it was before."""
    before, optimizer = ({k: v.clone() for k, v in x.state_dict().items()} for x in (agent, learner))
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
