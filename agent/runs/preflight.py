"""What a trial of an environment means for an experiment: a page to read before training."""

from __future__ import annotations

import copy
from contextlib import suppress

import numpy as np

from agent.agent import Agent, sketch_agent
from agent.config import TrainConfig
from agent.data.replay import Replay
from agent.execution import pick_device
from agent.media.pictures import strip, to_rgb
from agent.training.components import PARTS, make_learner, steps_to_collect, total_updates
from agent.training.costs import count_costs, time_update
from agent.training.health import cut_rewards
from agent.training.progress import duration
from envs.errors import BadInput
from envs.spaces import Spaces
from envs.trial import Trial

TIMED = 1e10  # operations of an update that is timed: of the batch, as much as comes to about that

# Presets that show that all works, and what they came to (docs/results/README.md, docs/laptop.md).
SHORT = {
    "tiny": "it learned MiniGrid-Empty-5x5 (0.95; random 0.26), but not MinAtar's Breakout (0.27; "
    "random 0.34), CartPole as it is rendered (9.6; 21.4), CarRacing (1.35; 1.48) or Pong",
    "atari_quick": "it did not learn Pong (−21; random −20.7)",
    "crafter_quick": "it did not learn Crafter (1.6; random 1.5)",
}


def page(config: TrainConfig, trial: Trial) -> dict[str, str]:
    """What it is about -> how it is."""
    collected, lengths, rewards = steps_to_collect(config), trial.lengths, trial.rewards
    episodes = f"{len(lengths)} ended in {len(rewards)} random steps"
    if lengths:
        episodes += (
            f" ({trial.terminated} terminated, {len(lengths) - trial.terminated} truncated), of "
            f"{min(lengths)} to {max(lengths)} steps, {np.mean(lengths):.1f} on average"
        )
    updates = ", ".join(f"{part} {total_updates(config, part):,}" for part in PARTS)
    evaluations = (config.epochs - 1) // config.evaluate_every  # before the one after the last
    evaluated = evaluations * config.evaluation.episodes + config.final_evaluation.episodes
    bytes_needed = Replay.bytes_needed(config.replay, config.collect.num_envs, trial.spaces)
    playing = collected * trial.seconds / len(rewards)
    updating = "the updates are not timed"
    if pick_device(config.device).type == "cpu":
        with suppress(BadInput):  # the networks do not fit, see `problems`
            seconds = seconds_of_updates(config, trial.spaces)
            updating = f"about {duration(seconds)} for updates on this CPU, within a factor of 2"
    return {
        "frames": trial.frames_text,
        "actions": trial.actions_text,
        "episodes": episodes,
        "rewards": f"{rewards.min():.4g} to {rewards.max():.4g}, {(rewards != 0).mean():.0%} of "
        f"them not 0 (agent.dynamics.reward={config.agent.dynamics.reward})",
        "replay": f"{config.replay.capacity:,} steps take {bytes_needed / 1e9:.2f} GB "
        f"(replay.storage={config.replay.storage})",
        "training": f"{collected:,} frames, the first {config.collect.first_steps:,} by random "
        f"actions; updates: {updates}; {evaluated:,} episodes of evaluation",
        "time": f"{updating}; {duration(playing)} for the frames; evaluations and films on top",
    }


def seconds_of_updates(config: TrainConfig, spaces: Spaces) -> float:
    """Time of all updates on the CPU, by a timed one of each part, on a share of a large batch."""
    costs = count_costs(sketch_agent(config.agent, spaces), config)
    agent, seconds = Agent(config.agent, spaces).eval(), 0.0
    for part, cost in costs.items():
        smaller = copy.deepcopy(config)
        schedule = getattr(smaller, part)
        whole = schedule.batch
        schedule.batch = max(1, min(whole, int(whole * TIMED / cost.flop)))
        timed = time_update(agent, smaller, part, make_learner(agent, smaller, part))
        seconds += timed * whole / schedule.batch * total_updates(config, part)
    return seconds


def problems(config: TrainConfig, trial: Trial) -> list[str]:
    """A sentence each, with what to do about it."""
    found = trial.warnings()
    sizes = np.abs(trial.rewards[trial.rewards != 0])
    if len(sizes) and (
        cut := cut_rewards((sizes.min(), sizes.max()), config.agent.dynamics.reward)
    ):
        found.append(cut)
    envs, share = config.collect.num_envs, steps_to_collect(config) // config.collect.num_envs
    if (length := min(trial.lengths, default=trial.limit or 0)) > share:
        found.append(
            f"An episode takes {length:,} steps or more, and each of {envs} environments plays "
            f"{share:,} in the whole run: no end is ever seen. Collect more (collect.steps, "
            "collect.epochs and epochs), in fewer environments (collect.num_envs), or end episodes "
            "sooner (env.kwargs.max_episode_steps)."
        )
    if (name := config.experiment) in SHORT:
        found.append(
            f"experiment={name} is short, to see that all works: {SHORT[name]}; docs/laptop.md, "
            "a game of your own, has a larger preset and what it learned."
        )
    if np.prod(trial.spaces.actions) == 1:
        found.append("There is only one action, so there is nothing to choose; give it a choice.")
    try:
        sketch_agent(config.agent, trial.spaces)
        Replay.check_fits(config.replay, config.collect.num_envs, trial.spaces)
    except BadInput as error:
        found.append(str(error))
    return found


def contact_sheet(trial: Trial, rows: int = 4, columns: int = 6) -> np.ndarray:
    """Frames from the first to the last, as the agent sees them. [h, w, 3] uint8"""
    count = min(len(trial.frames), rows * columns)
    chosen = np.linspace(0, len(trial.frames) - 1, count).round().astype(int)
    split = np.split(chosen, range(columns, count, columns))
    labels = [f"frame {row[0]}" for row in split]
    scale = max(1, round(128 / trial.frames.shape[1]))
    return strip([to_rgb(trial.frames[row]) for row in split], labels, scale)
