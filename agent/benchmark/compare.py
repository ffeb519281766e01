"""A tokenizer and a dynamics learn with one quantizer, and are measured on held-out frames.

For each seed all quantizers have the same frames, batches and first weights, but for what a
quantizer adds.
"""

from __future__ import annotations

import math
from statistics import median

import numpy as np
import torch

from agent.agent import Agent
from agent.benchmark.timing import timed
from agent.config import TrainConfig
from agent.data.collect import Collector
from agent.data.replay import Replay
from agent.execution import choose_execution, pick_device
from agent.nets.conv import pixels
from agent.segment import Segment
from agent.training.components import make_learner, sample_spec, schedule_of
from agent.training.learner import Averages
from agent.training.progress import progress
from envs.spaces import Spaces
from envs.vector import make_vector

READ_EVERY = 50  # updates between two looks at whether the losses are finite
TIMED_SECONDS = 0.5  # at least, for an update and for the quantizer alone


def play(config: TrainConfig, spaces: Spaces, seed: list[int], steps: int) -> Replay:
    """Random play. seed: numbers that together decide the frames."""
    number = config.collect.num_envs
    seeds = np.random.SeedSequence(seed).generate_state(number + 1).tolist()
    torch.manual_seed(seeds[0])
    replay = Replay(config.replay, number, spaces, seeds[0], device=pick_device(config.device))
    envs = make_vector(config.env, seeds[1:])
    try:
        with progress("collect", steps, "step") as bar:
            collector = Collector(envs, Agent(config.agent, spaces), replay, 1.0)
            collector.collect(steps, random=True, progress=bar.update)
    finally:
        envs.close()
    return replay


def learn_and_measure(
    config: TrainConfig, spaces: Spaces, replay: Replay, held_out: Replay, seed: int, name: str
) -> dict[str, float]:
    """The tokenizer learns, then the dynamics.

    Args:
        config: with the quantizer.
        spaces: of the environment.
        replay: to learn from.
        held_out: to measure on.
        seed: of the weights and of what is sampled.
        name: of the quantizer, for the bar.

    Returns:
        What `measure` says, and milliseconds of the tokenizer's update and of its quantizer.
    """
    torch.manual_seed(seed)
    device = pick_device(config.device)
    agent = Agent(config.agent, spaces).eval().to(device)
    execution = choose_execution(config.learner.mode, config.precision, device, flop=0.0)
    torch.compiler.reset()
    learned = []
    for part in ("tokenizer", "dynamics"):
        schedule, averages = schedule_of(config, part), Averages()
        learner = make_learner(agent, config, part, execution)
        learner.set_learning_rate(schedule.learning_rate_in(schedule.start_epoch))
        spec, updates = sample_spec(config, part), schedule.first_updates
        with progress(f"{name} {part}", updates, "update") as bar:
            for i in range(updates):
                segment = replay.sample(part, *spec, count=False).to(device)
                averages.add(learner.update(segment))
                bar.update()
                if i % READ_EVERY == 0 or i + 1 == updates:
                    averages.read()
        learned.append((learner, segment))
    result = measure(agent, held_out, config)
    (learner, segment), _ = learned
    result["update_ms"] = 1e3 * median(timed(lambda: learner.update(segment), TIMED_SECONDS))
    result["quantizer_ms"] = quantizer_ms(agent, segment)
    return result


@torch.no_grad()
def measure(agent: Agent, replay: Replay, config: TrainConfig) -> dict[str, float]:
    """Measure tokenizer and dynamics on real transitions.

    Returns:
        The squared error of decoded next frames, with pixels in 0..1, and its ratio to that of
        copying the frame before; entropy and number of the codes in use; the dynamics'
        cross-entropy a token.
    """
    tokenizer, spec = agent.tokenizer, sample_spec(config, "dynamics")
    counts = torch.zeros(agent.config.tokenizer.quantizer.num_codes, device=agent.device)
    decoded_error = copied_error = cross_entropy = 0.0
    transitions = 0
    draws = math.ceil(replay.steps_added / (spec.batch * spec.steps)) * 2  # they overlap
    for _ in range(draws):
        segment = replay.sample("test", *spec, count=False).to(agent.device)
        real = segment.mask[:, :-1].flatten()
        before, after = segment.frames[:, :-1], segment.frames[:, 1:]
        frames, following, decoded = (
            pixels(f.flatten(0, 1)[real])
            for f in (before, after, tokenizer.reconstruction(segment))
        )
        # Those that led to the frames after the first.
        tokens = tokenizer.tokens_of(segment)[:, 1 - segment.frames.shape[1] :]
        counts += torch.bincount(tokens.flatten(0, 1)[real].flatten(), minlength=len(counts))
        decoded_error += (decoded - following).square().mean(dim=(1, 2, 3)).sum().item()
        copied_error += (frames - following).square().mean(dim=(1, 2, 3)).sum().item()
        loss = agent.dynamics_loss(segment)["tokens"] / agent.config.dynamics.tokens_weight
        cross_entropy += loss.item() * len(frames)
        transitions += len(frames)
    share = counts / counts.sum()
    return {
        "squared_error": decoded_error / transitions,
        "error": decoded_error / copied_error,
        "use_bits": -torch.special.xlogy(share, share).sum().item() / math.log(2),
        "codes_alive": int((counts > 0).sum()),
        "cross_entropy_bits": cross_entropy / transitions / math.log(2),
    }


def quantizer_ms(agent: Agent, segment: Segment) -> float:
    """Of the quantizer alone, forwards and backwards, for as many vectors as a segment has."""
    quantizer, (batch, steps) = agent.tokenizer.quantizer.train(), segment.mask.shape
    vectors, dim = batch * (steps - 1) * agent.tokenizer.tokens, quantizer.config.vector_dim
    z = torch.randn(vectors, dim, device=agent.device, requires_grad=True)

    def run() -> None:
        output = quantizer(z)
        (output.vectors.sum() + output.commitment).backward()

    return 1e3 * median(timed(run, TIMED_SECONDS))
