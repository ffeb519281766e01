"""Evaluate a saved policy: python scripts/evaluate.py run=<a run's folder, or a checkpoint's> episodes=64."""

import json
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore
from tqdm import tqdm

from agent.cli import command, load_agent, pick_device
from agent.evaluate import EvaluationConfig, evaluate
from envs.errors import BadInput


@dataclass
class EvaluateConfig(EvaluationConfig):
    """run: a run's folder (its newest checkpoint is taken) or a checkpoint's
    device:  "auto", "cpu", "cuda", …
    random:  play by uniformly random actions instead, the base line
    output:  where to write the results as JSON; null: beside the checkpoints
    """

    run: str | None = None
    device: str = "auto"
    random: bool = False
    output: str | None = None


ConfigStore.instance().store(name="evaluate_schema", node=EvaluateConfig)


def main(config: EvaluateConfig, overrides: list[str]) -> None:
    if config.run is None:
        raise BadInput("No run was given; give run=<a run's folder, or a checkpoint's>.")
    for name in ("episodes", "num_envs"):
        if getattr(config, name) < 1:
            raise BadInput(f"{name}={getattr(config, name)} was given; give 1 or more.")
    agent, trained, saved = load_agent(config.run, pick_device(config.device))
    with tqdm(total=config.episodes, unit="episode", leave=False) as bar:
        result = evaluate(agent, trained.env, config, bar.update, config.random)
    policy = "random" if config.random else "agent"
    report = {
        "checkpoint": str(saved.folder),
        "epoch": saved.epoch,
        "environment": trained.env.id,
        "policy": policy,
        "episodes": config.episodes,
        "num_envs": config.num_envs,
        "seed": config.seed,
        **result.summary(),
        "returns": result.returns.tolist(),
    }
    width = max(len(name) for name in report)
    for name, value in report.items():
        if name != "returns":
            print(f"{name:<{width}}  {value:.3f}" if isinstance(value, float) else f"{name:<{width}}  {value}")
    output = Path(config.output or saved.run / f"evaluation_{policy}_epoch_{saved.epoch:06d}_seed_{config.seed}.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{'written to':<{width}}  {output}")


if __name__ == "__main__":
    command("evaluate", main)
