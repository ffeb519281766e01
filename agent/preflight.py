"""What a trial of an environment means for an experiment: a page to read before training."""

from __future__ import annotations

import numpy as np

from agent.agent import sketch_agent
from agent.config import TrainConfig
from agent.nets.heads import TwoHot
from agent.parts import steps_to_collect
from agent.pictures import strip, to_rgb
from agent.progress import duration
from agent.replay import Replay
from envs.errors import BadInput
from envs.preflight import Trial
from envs.spaces import Spaces

SHEET_ROWS, SHEET_COLUMNS = 4, 6
SHOWN = 128  # pixels, about a frame's side on the sheet


def page(config: TrainConfig, trial: Trial, spaces: Spaces) -> list[tuple[str, str]]:
    """(what, how it is) a line."""
    rate = trial.steps / trial.seconds
    wanted = steps_to_collect(config)
    replay = Replay.bytes_needed(config.replay, config.collect.num_envs, spaces)
    place = {"memory": "memory", "memmap": "disk", "device": "the device's memory"}[config.replay.storage]
    return [
        ("frames", trial.frames_text),
        ("actions", trial.actions_text),
        ("episodes", episodes(trial)),
        ("rewards", rewards(trial, config.agent.dynamics.reward)),
        ("speed", f"{rate:,.0f} steps a second, so {duration(wanted / rate)} for the {wanted:,} steps of experiment={config.experiment}, in one process and without the policy"),
        ("seed", "decides all" if trial.differs_at is None else f"does not decide it: another step {trial.differs_at} the second time"),
        ("replay", f"{config.replay.capacity:,} steps take {replay / 1e9:.2f} GB of {place}"),
    ]  # fmt: skip


def episodes(trial: Trial) -> str:
    if not trial.lengths:
        limit = "" if trial.limit is None else f"; a limit truncates them after {trial.limit}"
        return f"none ended in {trial.steps} random steps{limit}"
    truncated = len(trial.lengths) - trial.terminated
    return (
        f"{len(trial.lengths)} ended in {trial.steps} random steps ({trial.terminated} terminated, {truncated} truncated), "
        f"of {min(trial.lengths)} to {max(trial.lengths)} steps, {np.mean(trial.lengths):.1f} on average"
    )


def rewards(trial: Trial, code: str) -> str:
    """code: agent.dynamics.reward"""
    coded = {
        "two_hot": f"learned as a distribution over {TwoHot.size} values of symlog, so that small and large ones are told apart",
        "sign": "learned as −1, 0 or +1: their sign alone",
    }[code]
    nonzero = (trial.rewards != 0).mean()
    return f"{trial.rewards.min():.4g} to {trial.rewards.max():.4g}, {nonzero:.0%} of them not 0; {coded} (agent.dynamics.reward={code})"


def problems(config: TrainConfig, trial: Trial, spaces: Spaces) -> list[str]:
    """A sentence each, with what to do about it."""
    found = trial.warnings()
    sizes = np.unique(np.abs(trial.rewards[trial.rewards != 0]))
    if config.agent.dynamics.reward == "sign" and len(sizes) and sizes.tolist() != [1.0]:
        found.append(
            f"Rewards of size {sizes[0]:.4g} to {sizes[-1]:.4g} will all count as 1: agent.dynamics.reward=two_hot tells them apart."
        )
    largest = np.expm1(TwoHot.limit)
    if len(sizes) and sizes[-1] > largest:
        found.append(f"Rewards of size {sizes[-1]:.4g} all count as {largest:.2g}, the largest that is told apart: scale them.")
    if np.prod(spaces.actions) == 1:
        found.append("There is only one action: whatever an agent learns, it does the same; give it a choice.")
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
    scale = max(1, round(SHOWN / trial.frames.shape[1]))
    return strip([to_rgb(trial.frames[row]) for row in rows], [f"frame {row[0]}" for row in rows], scale)
