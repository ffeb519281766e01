"""Run folders as the commands leave them, without having trained: what a report reads, no more."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from envs.scores import CRAFTER_ACHIEVEMENTS, crafter_score

ATARI, CRAFTER, CATCH = "deltadream/Atari-v0", "deltadream/Crafter-v1", "deltadream/Catch-v0"
PROTOCOL = {"frame_skip": 4, "noops": 1, "sticky_actions": 0.0}


def write_run(
    folder: Path,
    game: str | None = "Boxing",
    seed: int = 0,
    experiment: str = "atari",
    env_id: str = ATARI,
    curve: dict[int, float] | None = None,
    minutes: float = 0.0,
    **settings: Any,
) -> Path:
    """Write a run of 600 epochs.

    Args:
        curve: Environment steps -> return, whose interval is 1 to either side.
        minutes: From one point of the curve to the next; 0: the log tells none.
        settings: More of config.yaml.

    Returns:
        Its folder.
    """
    folder.mkdir(parents=True)
    config = {"experiment": experiment, "run": str(folder), "seed": seed, "epochs": 600}
    config |= {"env": {"id": env_id, "game": game, "kwargs": {}}, **settings}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    points = curve or {50_000: 1.0, 100_000: 2.0}
    log = pd.DataFrame({"step": points.keys(), "evaluate/return_mean": points.values()})
    log.insert(0, "epoch", 600 * (log.index + 1) // len(points))
    log["evaluate/return_95_low"] = log["evaluate/return_mean"] - 1
    log["evaluate/return_95_high"] = log["evaluate/return_mean"] + 1
    if minutes:
        log["minutes"] = minutes * (log.index + 1)
    log.to_csv(folder / "metrics.csv", index=False)
    return folder


def write_evaluation(
    run: Path, returns: list[float], policy: str = "agent", **changes: Any
) -> Path:
    """Write an evaluation of the run; `changes` are of its entries, by their names."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    content = {
        "experiment": config["experiment"], "game": config["env"]["game"],
        "run_seed": config["seed"], "epoch": 600, "epochs": 600, "steps": 100_000,
        "environment": config["env"]["id"], "protocol": PROTOCOL,
        "training_protocol": PROTOCOL | {"noops": 30}, "policy": policy, "episodes": len(returns),
        "num_envs": 16, "seed": 1000, "temperature": 1.0, "return_mean": float(np.mean(returns)),
        "returns": returns, "lengths": [9] * len(returns),
    } | changes  # fmt: skip
    name = f"evaluation_{policy}_epoch_{content['epoch']:06d}_seed_{content['seed']}"
    path = run / f"{name}_episodes_{len(returns)}.json"
    path.write_text(json.dumps(content))
    return path


def crafter_rates(percent: float) -> dict[str, float]:
    """The entries of Crafter: all achievements alike, but the first of them never."""
    rates = dict.fromkeys(CRAFTER_ACHIEVEMENTS, percent) | {CRAFTER_ACHIEVEMENTS[0]: 0.0}
    named = {f"success_rate/{name}": rate for name, rate in rates.items()}
    return {"crafter_score": crafter_score(rates), **named}


def write_atari(folder: Path, scores: dict[str, list[float]]) -> None:
    """Write an evaluated run for each game and seed; each episode's return is the seed's score."""
    for game, seeds in scores.items():
        for seed, score in enumerate(seeds):
            run = write_run(folder / game / f"seed_{seed}", game, seed)
            write_evaluation(run, [score] * 100)
