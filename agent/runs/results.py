"""An evaluation as a file: who played what, by which protocol, and how it went."""

from __future__ import annotations

import dataclasses
import json
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
    """The default file for the result of an evaluation of a run's policy: "agent" or "random"."""
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
    """All that has to be known to play the same evaluation again, of an agent after `steps`."""
    parts = ("tokenizer", "dynamics", "policy")
    settings = dataclasses.asdict(evaluation)
    del settings["parallel"]
    return {
        "experiment": config.experiment,
        "agent": {part: getattr(config.agent, part).kind for part in parts},
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
        **settings,
    }


def write_result(path: Path, about: dict[str, Any], result: Evaluation) -> None:
    """Write a result as JSON; NaN and infinity, which JSON lacks, as null.

    Raises:
        BadInput: the file cannot be written.
        OSError: the disk is full.
    """
    content = {
        **about,
        **result.summary(),
        "returns": result.returns.tolist(),
        "lengths": result.lengths.tolist(),
        "cut": result.cut,
        "restarts": len(result.failures),
    }
    finite = json.loads(json.dumps(content), parse_constant=lambda _: None)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, (json.dumps(finite, indent=1) + "\n").encode())
    except OSError as error:
        if files.disk_full(error):
            raise
        raise BadInput(
            f"output={path} cannot be written ({error.strerror}); give another output=<file>."
        ) from error


class WriteResult(Callback):
    """Writes the last evaluation into the run's folder."""

    def on_stage_end(self, trainer: Trainer, stage: str, metrics: dict[str, float]) -> None:
        """As in `Callback`."""
        if stage != "evaluate" or not trainer.is_last or trainer.evaluation is None:
            return
        config, epoch, steps = trainer.config, trainer.epoch, trainer.replay.steps_added
        settings, folder = config.final_evaluation, checkpoint.folder_of(trainer.folder, epoch)
        about = describe_evaluation(config, settings, "agent", folder, epoch, steps)
        write_result(
            result_path(trainer.folder, "agent", epoch, settings), about, trainer.evaluation
        )
