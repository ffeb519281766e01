"""Evaluate a saved policy: python scripts/evaluate.py run=<a run's folder, or a checkpoint's> episodes=64."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.checks import check_values, pick_device
from agent.cli import command
from agent.evaluate import EvaluationConfig, evaluate
from agent.progress import progress
from agent.run import load_agent
from envs.errors import BadInput


@dataclass
class EvaluateConfig(EvaluationConfig):
    """run: a run's folder (its newest checkpoint is taken) or a checkpoint's
    device:  "auto", "cpu", "cuda", …
    random:  play by uniformly random actions instead, the base line
    output:  where to write the results as JSON; null: into the run's folder
    env_id:  of the run's environment, if that is "module:name": it has this module imported
    """

    run: str | None = None
    device: str = "auto"
    random: bool = False
    output: str | None = None
    env_id: str | None = None


def main(config: EvaluateConfig, overrides: list[str]) -> None:
    if not config.run:
        raise BadInput("No run was given; give run=<a run's folder, or a checkpoint's>.")
    check_values(config, prefix="evaluation.")
    agent, trained, saved = load_agent(config.run, pick_device(config.device), config.env_id)
    policy = "random" if config.random else "agent"
    output = Path(config.output or saved.run / f"evaluation_{policy}_epoch_{saved.epoch:06d}_seed_{config.seed}.json")
    check_writable(output)

    with progress("evaluate", config.episodes, "episode") as bar:
        result = evaluate(agent, trained.env, config, bar.update, config.random)
    summary = result.summary()
    about = {
        "checkpoint": str(saved.folder),
        "epoch": saved.epoch,
        "environment": trained.env.id,
        "environment_arguments": trained.env.kwargs,
        "policy": policy,
        "episodes": config.episodes,
        "num_envs": config.num_envs,
        "seed": config.seed,
    }
    print_table(about, summary)
    report = {**about, **summary, "returns": result.returns.tolist(), "lengths": result.lengths.tolist()}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(without_nan(report), indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise BadInput(f"output={output} cannot be written ({error.strerror}); give another output=<file>.") from error
    print(f"written to {output}")


def check_writable(output: Path) -> None:
    """Raises BadInput before an evaluation whose results could not be written."""
    above = next(parent for parent in output.absolute().parents if parent.exists())
    if output.is_dir() or not above.is_dir() or not os.access(output if output.exists() else above, os.W_OK):
        raise BadInput(f"output={output} cannot be written; give output=<a file in a folder that you may write to>.")


def print_table(about: dict[str, Any], summary: dict[str, float]) -> None:
    """One line an entry; the achievements' rates as a block of their own."""
    scores = {name: value for name, value in summary.items() if "/" not in name}
    rates = {name.partition("/")[2]: value for name, value in summary.items() if "/" in name}
    width = max(map(len, (*about, *scores, *rates)))
    for name, value in about.items():
        print(f"{name:<{width}}  {value}")
    print()
    for name, value in scores.items():
        print(f"{name:<{width}}  {value:10.3f}")
    if rates:
        print(f"\n{'success rate':<{width}}   percent")
    for name, value in rates.items():
        print(f"{name:<{width}}  {value:8.1f}")


def without_nan(value: Any) -> Any:
    """JSON knows neither infinity nor NaN: they become null."""
    if isinstance(value, dict):
        return {name: without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    command("evaluate", EvaluateConfig, main)
