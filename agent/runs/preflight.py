"""What a trial of an environment means for an experiment: a page to read before training."""

from __future__ import annotations

import copy

import numpy as np

from agent.agent import Agent, sketch_agent
from agent.config import TrainConfig
from agent.data.replay import Replay
from agent.execution import Execution, choose_execution, pick_device
from agent.media.pictures import strip, to_rgb
from agent.nets.heads import TwoHot
from agent.training.components import (
    PARTS,
    count_costs,
    make_learner,
    schedule_of,
    steps_to_collect,
    time_update,
    total_flop,
    total_updates,
)  # fmt: skip
from agent.training.health import cut_rewards
from agent.training.progress import duration
from envs.errors import BadInput
from envs.preflight import Trial
from envs.spaces import Spaces

SHEET_ROWS, SHEET_COLUMNS = 4, 6
SHOWN = 128  # pixels, about a frame's side on the sheet
TIMED = 1e10  # operations of an update that is timed: of the batch, as much as comes to about that

# What presets have been seen to learn, and not to: mean returns, and those of random actions
# (docs/results/README.md, docs/laptop.md).
LEARNED = {
    "tiny": "MiniGrid-Empty-5x5 (0.95; random 0.26)",
    "catch": "Catch (0.98 to 1.00; random −0.6)",
    "crafter_laptop": "Crafter (3.3 to 4.1; random 1.5) and MinAtar's Breakout (7.8; random 0.37)",
}
PONG = "Pong (−2.2 in 150 steps; random −2.3)"
RENDERED = "rendered frames"
# Of a kind of game, by the module that it or what it extends comes from, or RENDERED; "": of every
# kind. The first that fits counts.
NOT_LEARNED = {
    "tiny": {
        "ale_py": PONG,
        "envs.games.atari": PONG,
        "minatar": "MinAtar's Breakout (0.27; random 0.34)",
        "gymnasium.envs.box2d": "CarRacing (1.35 in 100 steps; random 1.48)",
        RENDERED: "CartPole, whose frames are rendered, too (9.6; random 21.4)",
    },
    "atari_quick": {"": "Pong (−21; random −20.7)"},
    "crafter_quick": {"": "Crafter (1.6; random 1.5)"},
}


def page(config: TrainConfig, trial: Trial, spaces: Spaces) -> list[tuple[str, str]]:
    """(what, how it is) a line."""
    rate = trial.steps / trial.seconds
    wanted = steps_to_collect(config)
    replay = Replay.bytes_needed(config.replay, config.collect.num_envs, spaces)
    place = {"memory": "memory", "memmap": "disk", "device": "the device's memory"}[
        config.replay.storage
    ]
    return [
        ("frames", trial.frames_text),
        ("actions", trial.actions_text),
        ("episodes", episodes(trial)),
        ("rewards", rewards(trial, config.agent.dynamics.reward)),
        ("speed", f"{rate:,.0f} steps a second, so {duration(wanted / rate)} for the {wanted:,} "
                  f"steps of experiment={config.experiment}, in one process and without the "
                  "policy"),
        ("seed", "decides all" if trial.differs_at is None else
                 f"does not decide it: another step {trial.differs_at} the second time"),
        ("replay", f"{config.replay.capacity:,} steps take {replay / 1e9:.2f} GB of {place}"),
        ("training", training(config)),
        ("time", minutes(config, trial, spaces)),
        ("results", results(config)),
    ]  # fmt: skip


def episodes(trial: Trial) -> str:
    if not trial.lengths:
        limit = "" if trial.limit is None else f"; a limit truncates them after {trial.limit}"
        return f"none ended in {trial.steps} random steps{limit}"
    truncated = len(trial.lengths) - trial.terminated
    return (
        f"{len(trial.lengths)} ended in {trial.steps} random steps ({trial.terminated} terminated, "
        f"{truncated} truncated), of {min(trial.lengths)} to {max(trial.lengths)} steps, "
        f"{np.mean(trial.lengths):.1f} on average"
    )


def rewards(trial: Trial, code: str) -> str:
    """code: agent.dynamics.reward"""
    coded = {
        "two_hot": f"learned as a distribution over {TwoHot.size} values of symlog, so that small "
        "and large ones are told apart",
        "sign": "learned as −1, 0 or +1: their sign alone",
    }[code]
    nonzero = (trial.rewards != 0).mean()
    alike = (
        ", all alike: only how long an episode lasts can be learned" if trial.is_constant else ""
    )
    return (
        f"{trial.rewards.min():.4g} to {trial.rewards.max():.4g}, {nonzero:.0%} of them not "
        f"0{alike}; {coded} (agent.dynamics.reward={code})"
    )


def results(config: TrainConfig) -> str:
    """What is known of the preset."""
    learned = LEARNED.get(config.experiment, "no game that is known of")
    return (
        f"experiment={config.experiment} has learned {learned}; docs/results/README.md has all "
        "that was tried"
    )


def training(config: TrainConfig) -> str:
    """What the run will do."""
    updates = ", ".join(f"{part} {total_updates(config, part):,}" for part in PARTS)
    return (
        f"{config.epochs:,} epoch{'s' * (config.epochs != 1)}: {steps_to_collect(config):,} "
        "frames, the first "
        f"{config.collect.first_steps:,} by random actions; updates: {updates}; "
        f"{episodes_to_evaluate(config):,} episodes of evaluation"
    )


def episodes_to_evaluate(config: TrainConfig) -> int:
    """By all evaluations, the one after the last epoch among them."""
    others = (config.epochs - 1) // config.evaluate_every
    return others * config.evaluation.episodes + config.final_evaluation.episodes


def minutes(config: TrainConfig, trial: Trial, spaces: Spaces) -> str:
    """How long that takes here, about."""
    device = pick_device(config.device)
    if device.type != "cpu":
        return f"not estimated for {device}: scripts/benchmark.py measures it"
    try:
        updates, compiles = seconds_of_updates(config, spaces)
    except BadInput as error:
        return f"unknown: {error}"
    evaluated, remark = 0.0, ""
    length = np.mean(trial.lengths) if trial.lengths else trial.limit
    if length is None:
        remark = ", evaluations not included, as no episode ended"
    else:
        evaluated = episodes_to_evaluate(config) * min(length, config.evaluation.max_steps)
    playing = (steps_to_collect(config) + evaluated) * trial.seconds / trial.steps
    compiling = ", and compiling 2 to 7 minutes the first time" if compiles else ""
    return (
        f"about {duration(updates + playing)} on this CPU: updates {duration(updates)}, "
        f"the environment {duration(playing)}{remark}. An estimate from timed updates of each "
        "part, within a factor of 2 while the machine is as busy as now; starting and films take "
        f"some more{compiling}"
    )


def seconds_of_updates(config: TrainConfig, spaces: Spaces) -> tuple[float, bool]:
    """Time that all updates take on the CPU, eagerly, and whether the run would compile them.

    Some updates of each part are timed, with a share of its batch where it is large.

    Raises:
        BadInput: If the networks do not fit.
    """
    costs = count_costs(sketch_agent(config.agent, spaces), config)
    flop, cpu = total_flop(costs, config), pick_device("cpu")
    execution = choose_execution(config.learner.mode, config.precision, cpu, flop)
    agent, seconds = Agent(config.agent, spaces).eval(), 0.0
    for part, cost in costs.items():
        smaller = copy.deepcopy(config)
        schedule = schedule_of(smaller, part)
        whole = schedule.batch
        schedule.batch = max(1, min(whole, int(whole * TIMED / cost.flop)))
        learner = make_learner(agent, smaller, part, Execution("eager", execution.bf16))
        times = 3 if cost.flop < TIMED * whole else 1  # one of a large network takes seconds
        timed = sum(time_update(agent, smaller, part, learner) for _ in range(times)) / times
        seconds += timed * whole / schedule.batch * total_updates(config, part)
    return seconds, execution.mode == "compiled"


def problems(config: TrainConfig, trial: Trial, spaces: Spaces) -> list[str]:
    """A sentence each, with what to do about it."""
    found = trial.warnings()
    sizes = np.abs(trial.rewards[trial.rewards != 0])
    span = (sizes.min(), sizes.max()) if len(sizes) else (0, 0)
    if cut := cut_rewards(span, config.agent.dynamics.reward):
        found.append(cut)
    if trial.is_constant and not trial.terminated:
        found.append(
            f"Each of {trial.steps} random steps had the reward {trial.rewards[0]:.4g}, and none "
            "terminated an episode: nothing told a good action from a bad one, and an agent that "
            "never meets anything else learns nothing; try more steps (trial=1000), or reward "
            "what comes before."
        )
    found += [*too_long(config, trial), *not_learned(config, trial)]
    if np.prod(spaces.actions) == 1:
        found.append(
            "There is only one action: whatever an agent learns, it does the same; give it a "
            "choice."
        )
    for check in (
        lambda: sketch_agent(config.agent, spaces),
        lambda: Replay.check_fits(config.replay, config.collect.num_envs, spaces),
    ):
        try:
            check()
        except BadInput as error:
            found.append(str(error))
    return found


def too_long(config: TrainConfig, trial: Trial) -> list[str]:
    """What the schedule does not hold of an episode."""
    found, envs = [], config.collect.num_envs
    length = min(trial.lengths) if trial.lengths else trial.limit
    if length is None:
        return []
    remark = " or more" if trial.lengths else ", unless it ends before its limit"
    takes = f"An episode takes {length:,} steps{remark}"
    share, first = steps_to_collect(config) // envs, config.collect.first_steps // envs
    if length > share:
        found.append(
            f"{takes}, and each of {envs} environments plays {share:,} in the whole run: no end "
            "is ever seen. Collect more (collect.steps, collect.epochs and epochs), in fewer "
            "environments (collect.num_envs), or end episodes sooner "
            f"(env.kwargs.max_episode_steps={max(1, first)})."
        )
    elif length > first:
        found.append(
            f"{takes}, and each of {envs} environments plays {first:,} before the first updates, "
            f"which see no end; collect.first_steps={length * envs} plays whole episodes."
        )
    longest = max(trial.lengths) if trial.lengths else length
    if longest > config.evaluation.max_steps:
        found.append(
            f"Evaluations cut episodes after evaluation.max_steps={config.evaluation.max_steps}, "
            f"and here they take up to {longest:,} steps: give evaluation.max_steps={longest}."
        )
    return found


def not_learned(config: TrainConfig, trial: Trial) -> list[str]:
    """What is known of the preset and this kind of game."""
    kinds = (*trial.modules, RENDERED if trial.rendered else "")
    for kind, seen in NOT_LEARNED.get(config.experiment, {}).items():
        if any(own.startswith(kind) for own in kinds):
            return [
                f"experiment={config.experiment} is known not to learn this kind of game: it was "
                f"tried on {seen}; docs/laptop.md, a game of your own, has a larger preset and "
                "what it learned."
            ]
    return []


def contact_sheet(trial: Trial) -> np.ndarray:
    """Frames from the first to the last, as the agent sees them. [h, w, 3] uint8"""
    count = min(len(trial.frames), SHEET_ROWS * SHEET_COLUMNS)
    chosen = np.linspace(0, len(trial.frames) - 1, count).round().astype(int)
    rows = [chosen[i : i + SHEET_COLUMNS] for i in range(0, count, SHEET_COLUMNS)]
    scale = max(1, round(SHOWN / trial.frames.shape[1]))
    return strip(
        [to_rgb(trial.frames[row]) for row in rows], [f"frame {row[0]}" for row in rows], scale
    )
