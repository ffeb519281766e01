"""An evaluation as a file: who played what, by which protocol, and how it went."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from agent.config import EvaluationConfig, TrainConfig
from agent.evaluation.evaluate import Evaluation
from agent.storage import checkpoint, files
from agent.training.callbacks import Callback
from agent.training.trainer import Trainer
from envs.errors import BadInput


def result_path(
    run: Path, policy: str, epoch: int, evaluation: EvaluationConfig, paused: bool = False
) -> Path:
    """The default file for the result of an evaluation.

    Args:
        policy: "agent" or "random".
        paused: Whether the checkpoint was written within the epoch after `epoch`.
    """
    name = (
        f"evaluation_{policy}_epoch_{epoch:06d}{'_paused' * paused}"
        f"_seed_{evaluation.seed}_episodes_{evaluation.episodes}"
    )
    if evaluation.temperature != 1:
        name += f"_temperature_{evaluation.temperature}"
    return run / f"{name}.json"


def describe_evaluation(
    config: TrainConfig,
    evaluation: EvaluationConfig,
    policy: str,
    checkpoint: Path,
    epoch: int,
    steps: int,
) -> dict[str, Any]:
    """All that has to be known to play the same evaluation again.

    config: of the training; steps: of the environment, that the agent had seen
    """
    return {
        "experiment": config.experiment,
        "agent": {
            part: getattr(config.agent, part).kind for part in ("tokenizer", "dynamics", "policy")
        },
        "environment": config.env.id,
        "game": config.env.game,
        "protocol": config.env.for_evaluation().kwargs,
        "training_protocol": config.env.kwargs,
        "checkpoint": str(checkpoint),
        "epoch": epoch,
        "epochs": config.epochs,
        "steps": steps,
        "run_seed": config.seed,
        "policy": policy,
        "episodes": evaluation.episodes,
        "num_envs": evaluation.num_envs,
        "temperature": evaluation.temperature,
        "seed": evaluation.seed,
        "max_steps": evaluation.max_steps,
    }


def write_result(path: Path, about: dict[str, Any], result: Evaluation) -> None:
    """Write a result as JSON.

    Raises:
        BadInput: If the file cannot be written.
        OSError: If the disk is full.
    """
    content = {
        **about,
        **result.summary(),
        "returns": result.returns.tolist(),
        "lengths": result.lengths.tolist(),
    }
    content |= {"cut": result.cut, "restarts": len(result.failures)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(
            path, (json.dumps(without_nan(content), indent=1, allow_nan=False) + "\n").encode()
        )
    except OSError as error:
        if files.disk_full(error):
            raise
        raise BadInput(
            f"output={path} cannot be written ({error.strerror}); give another output=<file>."
        ) from error


def without_nan(value: Any) -> Any:
    """JSON knows neither infinity nor NaN: they become null."""
    if isinstance(value, dict):
        return {name: without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class WriteResult(Callback):
    """Writes the last evaluation into the run's folder."""

    def on_stage_end(self, trainer: Trainer, stage: str, metrics: dict[str, float]) -> None:
        """As in `Callback`."""
        if stage != "evaluate" or not trainer.is_last or trainer.evaluation is None:
            return
        settings, epoch = trainer.config.final_evaluation, trainer.epoch
        folder = checkpoint.folder_of(trainer.folder, epoch)
        steps = trainer.replay.steps_added
        about = describe_evaluation(trainer.config, settings, "agent", folder, epoch, steps)
        path = result_path(trainer.folder, "agent", epoch, settings)
        write_result(path, about, trainer.evaluation)
