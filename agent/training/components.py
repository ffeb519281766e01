"""The three parts that learn: their view of the replay, their learners, their schedules."""

from __future__ import annotations

from agent.agent import Agent
from agent.config import TrainConfig
from agent.data.sampler import Anchor, SampleSpec
from agent.execution import EAGER, Execution
from agent.training.learner import Learner

PARTS = ("tokenizer", "dynamics", "policy")  # in the order of the loop


def sample_spec(config: TrainConfig, part: str) -> SampleSpec:
    """The sequences of `part`: for the policy the burn-in, at whose end imagination starts."""
    anchor: Anchor = "before" if part == "policy" else "around"
    return SampleSpec(getattr(config, part).batch, config.sequence_steps(part), anchor)


def total_updates(config: TrainConfig, part: str, epoch: int = 0) -> int:
    """Of a run from `epoch` on."""
    return sum(map(getattr(config, part).updates_in, range(epoch, config.epochs)))


def steps_to_collect(config: TrainConfig) -> int:
    """By the whole run, its first random steps among them."""
    epochs = min(config.epochs, config.collect.epochs)
    return config.collect.first_steps + config.collect.steps * (epochs - 1)


def make_learner(
    agent: Agent, config: TrainConfig, part: str, execution: Execution = EAGER
) -> Learner:
    """The learner of `part`."""
    before_step = agent.update_target if part == "policy" else None
    module, loss = getattr(agent, part), getattr(agent, f"{part}_loss")
    return Learner(module, loss, getattr(config, part), before_step, execution)
