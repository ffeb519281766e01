"""What it costs to choose continuous actions from bins: python scripts/measure_bins.py [episodes=5] [output=bins.json].

A controller that sees CarRacing's insides (it follows the middle of the track at a set speed) drives the same tracks
with its continuous actions and with each dimension rounded to the nearest of n values, as `envs.actions` makes them.
What rounding loses is what a perfect policy over bins would lose against a perfect continuous head, at least to this driver.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import gymnasium
import numpy as np

from agent.checks import check_writable
from agent.cli import command
from agent.progress import progress
from envs.actions import ChooseActions
from envs.errors import BadInput

AHEAD = 6  # points of the track, about 20 metres, to steer at
CRUISE, SLOWEST = 75.0, 35.0  # metres a second, straight on and in the sharpest turn


@dataclass
class MeasureBinsConfig:
    """episodes: tracks, seeds 0, 1, …
    bins: to compare with continuous actions
    output: where to write the results as JSON; null: only printed
    """

    episodes: int = 5
    bins: list[int] = field(default_factory=lambda: [2, 3, 5, 7, 11])
    output: str | None = None


def main(config: MeasureBinsConfig, overrides: list[str]) -> None:
    if config.episodes < 1 or not config.bins or min(config.bins) < 2:
        raise BadInput(f"episodes={config.episodes} and bins={config.bins} were given; give 1 or more, and bins of 2 or more.")
    if config.output:
        check_writable("output", Path(config.output))
    kinds = [None, *config.bins]
    returns: dict[str, list[float]] = {name_of(bins): [] for bins in kinds}
    with progress("drive", config.episodes * len(kinds), "episode") as bar:
        for seed in range(config.episodes):
            for bins in kinds:
                returns[name_of(bins)].append(drive(seed, bins))
                bar.update()
    continuous = np.array(returns[name_of(None)])
    for name, values in returns.items():
        lost = continuous - np.array(values)
        error = lost.std(ddof=1) / np.sqrt(len(lost)) if len(lost) > 1 else float("nan")
        print(f"{name:<12} return {np.mean(values):7.1f}   less than continuous {lost.mean():7.1f} ± {error:.1f} (standard error)")
    if config.output:
        Path(config.output).write_text(json.dumps({"environment": "CarRacing-v3", "returns": returns}, indent=1) + "\n")


def name_of(bins: int | None) -> str:
    return "continuous" if bins is None else f"{bins} bins"


def drive(seed: int, bins: int | None) -> float:
    """The return of an episode on track `seed`."""
    raw = gymnasium.make("CarRacing-v3", disable_env_checker=True)
    env = raw if bins is None else ChooseActions(raw, bins)
    env.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        action = steer(raw.unwrapped)
        _, reward, terminated, truncated, _ = env.step(action if bins is None else nearest(env, action))
        total, over = total + float(reward), terminated or truncated
    env.close()
    return total


def nearest(env: ChooseActions, action: np.ndarray) -> np.ndarray:
    """The choice that is closest to a continuous action, in each dimension."""
    space, sizes = env.env.action_space, env.action_space.nvec
    share = (action - space.low) / (space.high - space.low)
    return np.rint(share * (sizes - 1)).astype(np.int64)


def steer(game) -> np.ndarray:
    """Steering, gas and brake, [3] float32, from where the car and the track are."""
    hull, track = game.car.hull, np.array([(x, y) for _, _, x, y in game.track])
    position, velocity = np.array(hull.position), np.array(hull.linearVelocity)
    here = np.linalg.norm(track - position, axis=1).argmin()
    heading = hull.angle + np.pi / 2

    def bearing(ahead: int) -> float:
        """To a point of the track, from where the car points; positive to the right."""
        x, y = track[(here + ahead) % len(track)] - position
        return (heading - np.arctan2(y, x) + np.pi) % (2 * np.pi) - np.pi

    turn = min(1.0, abs(bearing(2 * AHEAD)) / 0.8)
    wanted = CRUISE + (SLOWEST - CRUISE) * turn
    gas = np.clip(0.1 * (wanted - np.linalg.norm(velocity)), -0.6, 0.6)
    return np.array([np.clip(2.0 * bearing(AHEAD), -1, 1), max(gas, 0), max(-gas, 0)], np.float32)


if __name__ == "__main__":
    command("measure_bins", MeasureBinsConfig, main)
