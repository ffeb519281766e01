"""A saved run's configuration, and what the command line may change of it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from agent.config import TrainConfig
from agent.config.compose import is_group, merged
from agent.runs.cli import argument
from agent.storage import checkpoint
from agent.storage.files import read_config
from agent.storage.metrics import read_metrics
from envs.config import EnvConfig
from envs.errors import BadInput
from envs.settings import flatten
from envs.spaces import Spaces

MAY_CHANGE = (
    "epochs", "collect.epochs", "device", "precision", "learner",
    "env.parallel", "env.on_error", "env.timeout", "env.max_restarts",
    "evaluate_every", "evaluation", "final_episodes",
    "checkpoint_every", "keep", "damaged", "logger",
)  # fmt: skip
PLACE = ("run", "resume", "sweep")  # settings that say where a run is


def load_run(path: str, overrides: Sequence[str]) -> tuple[checkpoint.Checkpoint, TrainConfig]:
    """A run to go on with: its checkpoint, and its configuration with the command line's changes.

    Raises:
        BadInput: there is none, it is damaged, finished, or may not change so.
    """
    if not path:
        raise BadInput("resume= was given without a value; give a run's folder, or a checkpoint's.")

    def look(saved: checkpoint.Checkpoint) -> TrainConfig:
        config = resumed_config(config_from_state(saved.state), overrides)
        check_trusted(config.env, names_environment(overrides))
        saved.verify()
        if is_finished(saved, config):
            raise BadInput(
                f"{saved.run} has all its {saved.epoch} epochs; give epochs={2 * saved.epoch}, "
                "say, to train on."
            )
        return config

    saved, config = load_whole(Path(path), look)
    if "csv" in config.logger:
        read_metrics(saved.run / "metrics.csv")
    return saved, config


def load_whole(
    path: Path, look: Callable[[checkpoint.Checkpoint], TrainConfig]
) -> tuple[checkpoint.Checkpoint, TrainConfig]:
    """The checkpoint at `path`, or with damaged=previous the newest before it that is whole.

    Args:
        path: as in `checkpoint.load`.
        look: a checkpoint -> its run's configuration; raises Damaged if it is.

    Raises:
        BadInput: it is damaged and another may not take its place, or none is whole.
    """
    damaged: list[str] = []
    for folder in checkpoint.candidates(path):
        try:
            saved = checkpoint.load(folder)
            config = look(saved)
        except checkpoint.Damaged as error:
            damaged.append(str(error).removesuffix("."))
            continue
        if damaged and config.damaged != "previous":
            raise BadInput(f"{damaged[0]}: {folder} is whole (damaged=previous goes on from it).")
        for sentence in damaged:
            print(f"{sentence}: passed over.")
        if damaged:
            print(f"The newest whole checkpoint is {folder}.")
        return saved, config
    raise BadInput(f"{damaged[0]}: none before it is whole.")


def is_finished(saved: checkpoint.Checkpoint, config: TrainConfig) -> bool:
    """Whether a run has all its epochs, and its last evaluation too."""
    return saved.epoch >= config.epochs and saved.state["run_state"]["stage"] != "evaluate"


def config_from_state(state: dict[str, Any]) -> TrainConfig:
    """The configuration that a checkpoint was saved with.

    Raises:
        BadInput: it is not one of this version.
    """
    try:
        return OmegaConf.to_object(merged(TrainConfig, state["config"]))  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise BadInput(
            f"The checkpoint's configuration is not one of this version ({reason}); use the "
            "version that wrote it."
        ) from error


def spaces_from_state(state: dict[str, Any]) -> Spaces:
    """The spaces that a checkpoint's agent was made for."""
    saved = state["spaces"]
    return Spaces(saved["channels"], saved["size"], tuple(saved["actions"]))


def resumed_config(saved: TrainConfig, overrides: Sequence[str]) -> TrainConfig:
    """A run's own configuration with the command line's changes.

    Raises:
        BadInput: one of them may not change.
    """
    before, after = OmegaConf.structured(saved), OmegaConf.structured(saved)
    for override in parsed(overrides):
        key, value = override.key_or_group, override.value()
        given = str(override.input_line).lstrip("+")
        # env=gym names no environment.
        if key in ("resume", "sweep") or given in (f"experiment={saved.experiment}", "env=gym"):
            continue
        if is_group(key) and isinstance(value, str):
            raise BadInput(f"{given} was given, and a resumed run keeps its own; leave it out.")
        OmegaConf.update(after, key, value, force_add=True)
        old = OmegaConf.select(before, key)
        if not may_change(key) and OmegaConf.select(after, key) != old:
            raise BadInput(
                f"{given} was given, but the run has {key}={old}; a resumed run may change "
                f"{', '.join(MAY_CHANGE)} only."
            )
    return OmegaConf.to_object(after)  # type: ignore[return-value]


def parsed(overrides: Sequence[str]) -> list[Override]:
    """The command line's "key=value"s by Hydra's grammar."""
    return OverridesParser.create().parse_overrides(list(overrides))


def may_change(key: str) -> bool:
    """Whether a resumed run may have another value there."""
    return any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE)


def differences(saved: TrainConfig, now: TrainConfig) -> Iterator[tuple[str, Any, Any]]:
    """All changed settings but the run's place: (key, value in `saved`, value in `now`)."""
    before, after = (flatten(dataclasses.asdict(config)) for config in (saved, now))
    for key in before:
        if before[key] != after.get(key) and key not in PLACE:
            yield key, before[key], after.get(key)


def unread_config(folder: Path, saved: TrainConfig, now: TrainConfig) -> str | None:
    """A sentence about what was edited in a run's config.yaml, which is not read.

    Args:
        folder: of the run.
        saved: the checkpoint's configuration.
        now: the same with the command line's changes.
    """
    before, after = (flatten(dataclasses.asdict(config)) for config in (saved, now))
    try:
        there = flatten(read_config(folder))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, YAMLError):
        edited = ["it is not readable"]
    else:
        edited = sorted(
            f"{key}={there.get(key)}"
            for key in there.keys() | before.keys()
            if key not in PLACE and there.get(key) not in (before.get(key), after.get(key))
        )
    if not edited:
        return None
    edited[8:] = [f"{len(edited) - 8} more"] * (len(edited) > 8)
    return (
        f"{folder / 'config.yaml'} was edited ({', '.join(edited)}), and is not read: the "
        "checkpoint's values count, and it is written anew."
    )


def names_environment(overrides: Sequence[str]) -> bool:
    """Whether the command line gives env.id."""
    return any(given.startswith("env.id=") for given in overrides)


def changed_environment(
    trained: EnvConfig, composed: EnvConfig, overrides: Sequence[str]
) -> EnvConfig:
    """A run's environment with the command line's changes; with env=<name>, only the latter's.

    Args:
        trained: of the run.
        composed: that the command line gives by itself.
        overrides: of the command line.

    Raises:
        BadInput: the run's lies in a module that nobody named.
    """
    changed = OmegaConf.create({"env": trained})
    for override in parsed(overrides):
        key, value = override.key_or_group, override.value()
        if key == "env" and isinstance(value, str):
            return composed
        if key.split(".")[0] == "env":
            OmegaConf.update(changed, key, value, force_add=True)
    check_trusted(trained, names_environment(overrides))
    return OmegaConf.to_object(changed)["env"]  # type: ignore[call-overload, index, return-value]


def check_trusted(env: EnvConfig, named: bool, remedy: str | None = None) -> None:
    """Check that a saved run imports no module that nobody named.

    Loading runs no code that a file asks for; Gymnasium imports what stands before the colon.

    Args:
        env: of the run.
        named: whether the caller gives its id.
        remedy: what to do if the module is trusted; None: at the command line.

    Raises:
        BadInput: it would.
    """
    module, _, name = env.id.rpartition(":")
    is_there = module in sys.modules and name in gymnasium.registry  # nothing is left to import
    if module and not named and not is_there:
        remedy = remedy or f"add {argument('env.id', env.id)} to the command"
        raise BadInput(
            f"The run's environment {env.id} lies in a module that has to be imported; if "
            f"you trust it, {remedy}."
        )


def check_spaces(trained: Spaces, there: Spaces, name: str) -> None:
    """Check that an agent trained in some spaces can play in those of the environment `name`.

    Raises:
        BadInput: it cannot.
    """
    if there != trained:
        raise BadInput(
            f"The run's agent knows {trained}, and {name} has {there}; give the environment that "
            "it was trained in, or one like it."
        )
