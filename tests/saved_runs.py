"""Run folders as the commands leave them, without having trained: what a report reads, and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from agent.logger import make_logger
from envs.scores import CRAFTER_ACHIEVEMENTS, crafter_score

ATARI, CRAFTER, CATCH = "deltadream/Atari-v0", "deltadream/Crafter-v1", "deltadream/Catch-v0"
PROTOCOL = {"frame_skip": 4, "noops": 1, "max_frames": 108_000, "end_on_life_loss": False, "sticky_actions": 0.0}


def write_run(
    folder: Path,
    game: str | None = "Boxing",
    seed: int = 0,
    experiment: str = "atari",
    env_id: str = ATARI,
    epochs: int = 600,
    curve: dict[int, float] | None = None,
    minutes: float = 0.0,
    **settings: Any,
) -> Path:
    """A run of `epochs` epochs, of which `curve` (environment steps -> return) tells, each point after so many more minutes;
    a return's interval is 1 to either side. Returns its folder."""
    folder.mkdir(parents=True)
    config = {
        "experiment": experiment, "run": str(folder), "seed": seed, "epochs": epochs,
        "env": {"id": env_id, "game": game, "kwargs": {}, "evaluation_kwargs": {}}, **settings,
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    points = curve or {50_000: 1.0, 100_000: 2.0}
    logger = make_logger(["csv"], folder, {})
    for i, (step, value) in enumerate(points.items(), start=1):
        bounds = {"evaluate/return_95_low": value - 1, "evaluate/return_95_high": value + 1}
        time = {"minutes": i * minutes} if minutes else {}
        logger.log({"collect/return_mean": 0.5, "evaluate/return_mean": value, **bounds, **time}, step, epochs * i // len(points))
    logger.close()
    return folder


def write_evaluation(run: Path, returns: list[float], policy: str = "agent", **changes: Any) -> Path:
    """An evaluation of the run; `changes` are of its entries, by their names."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    content = {
        "experiment": config["experiment"], "game": config["env"]["game"], "run_seed": config["seed"],
        "checkpoint": str(run / "checkpoints"), "epoch": config["epochs"], "epochs": config["epochs"], "steps": 100_000,
        "environment": config["env"]["id"], "protocol": PROTOCOL, "training_protocol": PROTOCOL | {"noops": 30},
        "policy": policy, "episodes": len(returns), "num_envs": 16, "seed": 1000, "temperature": 1.0,
        "return_mean": float(np.mean(returns)), "return_median": float(np.median(returns)),
        "return_standard_error": None, "length_mean": 9.0, "returns": returns, "lengths": [9] * len(returns),
    } | changes  # fmt: skip
    path = run / f"evaluation_{policy}_epoch_{content['epoch']:06d}_seed_{content['seed']}_{len(returns)}.json"
    path.write_text(json.dumps(content))
    return path


def crafter_rates(percent: float) -> dict[str, float]:
    """All 22 achievements alike, which is their score too; the first of them never."""
    rates = dict.fromkeys(CRAFTER_ACHIEVEMENTS, percent)
    rates[CRAFTER_ACHIEVEMENTS[0]] = 0.0
    return {"crafter_score": crafter_score(rates), **{f"success_rate/{name}": rate for name, rate in rates.items()}}


def write_atari(folder: Path, scores: dict[str, list[float]], episodes: int = 100) -> None:
    """A finished and evaluated run for each game and seed; each episode's return is the seed's score."""
    for game, seeds in scores.items():
        for seed, score in enumerate(seeds):
            run = write_run(folder / game / f"seed_{seed}", game, seed, curve={50_000: score / 2, 100_000: score})
            write_evaluation(run, [score] * episodes)
