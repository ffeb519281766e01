"""What a trial of an environment means for an experiment: a page to read before training."""

from __future__ import annotations

import copy

import numpy as np

from agent.agent import Agent, sketch_agent
from agent.config import TrainConfig
from agent.data.replay import Replay
from agent.execution import pick_device
from agent.media.pictures import strip, to_rgb
from agent.training.components import (
    PARTS,
    count_costs,
    make_learner,
    schedule_of,
    steps_to_collect,
    time_update,
    total_updates,
)
from agent.training.health import cut_rewards
from agent.training.progress import duration
from envs.errors import BadInput
from envs.spaces import Spaces
from envs.trial import Trial

SHEET_ROWS, SHEET_COLUMNS = 4, 6
SHOWN = 128  # pixels, about a frame's side on the sheet
TIMED = 1e10  # operations of an update that is timed: of the batch, as much as comes to about that

# Presets that show that all works, and what they came to (docs/results/README.md, docs/laptop.md).
SHORT = {
    "tiny": "it learned MiniGrid-Empty-5x5 (0.95; random 0.26), but not MinAtar's Breakout (0.27; "
    "random 0.34), CartPole as it is rendered (9.6; 21.4), CarRacing (1.35; 1.48) or Pong",
    "atari_quick": "it did not learn Pong (−21; random −20.7)",
    "crafter_quick": "it did not learn Crafter (1.6; random 1.5)",
}


def page(config: TrainConfig, trial: Trial, spaces: Spaces) -> dict[str, str]:
    """What it is about -> how it is."""
    steps, lengths, rewards = steps_to_collect(config), trial.lengths, trial.rewards
    episodes = f"{len(lengths)} ended in {len(rewards)} random steps"
    if lengths:
        episodes += (
            f" ({trial.terminated} terminated, {len(lengths) - trial.terminated} truncated), of "
            f"{min(lengths)} to {max(lengths)} steps, {np.mean(lengths):.1f} on average"
        )
    if trial.limit:
        episodes += f"; a limit truncates them after {trial.limit}"
    updates = ", ".join(f"{part} {total_updates(config, part):,}" for part in PARTS)
    bytes_needed = Replay.bytes_needed(config.replay, config.collect.num_envs, spaces)
    return {
        "frames": trial.frames_text,
        "actions": trial.actions_text,
        "episodes": episodes,
        "rewards": f"{rewards.min():.4g} to {rewards.max():.4g}, {(rewards != 0).mean():.0%} of "
        f"them not 0 (agent.dynamics.reward={config.agent.dynamics.reward})",
        "speed": f"{len(rewards) / trial.seconds:,.0f} steps a second, in one process and without "
        "the policy",
        "replay": f"{config.replay.capacity:,} steps take {bytes_needed / 1e9:.2f} GB "
        f"(replay.storage={config.replay.storage})",
        "training": f"{steps:,} frames, the first {config.collect.first_steps:,} by random "
        f"actions; updates: {updates}; {episodes_to_evaluate(config):,} episodes of evaluation",
        "time": minutes(config, trial, spaces),
    }


def episodes_to_evaluate(config: TrainConfig) -> int:
    """By all evaluations, the one after the last epoch among them."""
    others = (config.epochs - 1) // config.evaluate_every
    return others * config.evaluation.episodes + config.final_evaluation.episodes


def minutes(config: TrainConfig, trial: Trial, spaces: Spaces) -> str:
    """How long training takes here, about."""
    device = pick_device(config.device)
    if device.type != "cpu":
        return f"not estimated for {device}: scripts/benchmark.py measures it"
    try:
        updates = seconds_of_updates(config, spaces)
    except BadInput as error:
        return f"unknown: {error}"
    length = np.mean(trial.lengths) if trial.lengths else trial.limit or 0
    evaluated = episodes_to_evaluate(config) * min(length, config.evaluation.max_steps)
    playing = (steps_to_collect(config) + evaluated) * trial.seconds / len(trial.rewards)
    remark = "" if length else ", without evaluations, as no episode ended"
    return (
        f"about {duration(updates + playing)} on this CPU: updates {duration(updates)}, the "
        f"environment {duration(playing)}{remark}; within a factor of 2, films and compiling on top"
    )


def seconds_of_updates(config: TrainConfig, spaces: Spaces) -> float:
    """Time of all updates on the CPU, by a timed one of each part, on a share of a large batch.

    Raises:
        BadInput: the networks do not fit.
    """
    costs = count_costs(sketch_agent(config.agent, spaces), config)
    agent, seconds = Agent(config.agent, spaces).eval(), 0.0
    for part, cost in costs.items():
        smaller = copy.deepcopy(config)
        schedule = schedule_of(smaller, part)
        whole = schedule.batch
        schedule.batch = max(1, min(whole, int(whole * TIMED / cost.flop)))
        timed = time_update(agent, smaller, part, make_learner(agent, smaller, part))
        seconds += timed * whole / schedule.batch * total_updates(config, part)
    return seconds


def problems(config: TrainConfig, trial: Trial, spaces: Spaces) -> list[str]:
    """A sentence each, with what to do about it."""
    found = trial.warnings()
    sizes = np.abs(trial.rewards[trial.rewards != 0])
    span = (sizes.min(), sizes.max()) if len(sizes) else (0, 0)
    if cut := cut_rewards(span, config.agent.dynamics.reward):
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
    if np.prod(spaces.actions) == 1:
        found.append("There is only one action, so there is nothing to choose; give it a choice.")
    for check in (
        lambda: sketch_agent(config.agent, spaces),
        lambda: Replay.check_fits(config.replay, config.collect.num_envs, spaces),
    ):
        try:
            check()
        except BadInput as error:
            found.append(str(error))
    return found


def contact_sheet(trial: Trial) -> np.ndarray:
    """Frames from the first to the last, as the agent sees them. [h, w, 3] uint8"""
    count = min(len(trial.frames), SHEET_ROWS * SHEET_COLUMNS)
    chosen = np.linspace(0, len(trial.frames) - 1, count).round().astype(int)
    rows = [chosen[i : i + SHEET_COLUMNS] for i in range(0, count, SHEET_COLUMNS)]
    frames, labels = [to_rgb(trial.frames[row]) for row in rows], [f"frame {r[0]}" for r in rows]
    return strip(frames, labels, max(1, round(SHOWN / trial.frames.shape[1])))
