"""A tokenizer and a dynamics learn with one quantizer, and are measured on held-out frames."""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from agent.agent import Agent
from agent.config import TrainConfig
from agent.data.replay import Replay
from agent.execution import choose_execution, pick_device
from agent.nets.conv import pixels
from agent.training import stages
from agent.training.components import sample_spec
from agent.training.state import RunState
from agent.training.trainer import Trainer
from envs.spaces import Spaces

OTHER_WORLDS = 1_000_000  # added to the seed of held-out frames


def learn_and_measure(config: TrainConfig, spaces: Spaces, held_out: int) -> dict[str, float]:
    """Play at random, let the tokenizer learn, then the dynamics, and `measure` in other worlds.

    The seed decides frames, batches and first weights, but for what a quantizer adds. held_out:
    environment steps to measure on.
    """
    device = pick_device(config.device)
    torch.compiler.reset()
    torch.manual_seed(config.seed)
    agent = Agent(config.agent, spaces).eval().to(device)
    execution = choose_execution(config.learner.mode, config.precision, device, flop=0.0)
    collect = replace(config.collect, first_steps=held_out)
    others = replace(config, seed=config.seed + OTHER_WORLDS, collect=collect)
    with tempfile.TemporaryDirectory() as folder:
        for number, played in enumerate((config, others)):
            torch.manual_seed(config.seed)
            trainer = Trainer(played, Path(folder) / str(number), agent, execution)
            try:
                stages.collect(trainer)
            finally:
                trainer.envs.close()
            for part in ("tokenizer", "dynamics") if played is config else ():
                trainer.state = RunState(part)
                stages.learn(trainer, part)
        return measure(agent, trainer.replay, config)


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
    for _ in range(math.ceil(replay.steps_added / (spec.batch * spec.steps)) * 2):  # they overlap
        segment = replay.sample("test", spec, count=False).to(agent.device)
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
