"""A saved run's configuration with the command line's changes, and what of both may be trusted."""

from __future__ import annotations

import dataclasses
import operator
import reprlib
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from agent.config import TrainConfig
from agent.config.compose import is_group, merged
from agent.runs.cli import argument
from agent.storage import checkpoint
from agent.storage.files import read_config
from agent.storage.metrics import read_metrics
from envs.config import EnvConfig
from envs.errors import BadInput
from envs.settings import check_values, flatten
from envs.spaces import Spaces

MAY_CHANGE = (
    "epochs", "collect.epochs", "device", "precision", "learner",
    "env.parallel", "env.on_error", "env.timeout", "env.max_restarts",
    "evaluate_every", "evaluation", "final_episodes",
    "checkpoint_every", "keep", "damaged", "logger",
)  # fmt: skip

PLACE = ("run", "resume", "sweep")  # settings that say where a run is
MOST_NAMED = 20  # settings in a sentence
MOST_SETTINGS = 10_000  # of a configuration; ours have some two hundred
MOST_OF_A_SPACE = 2**16  # channels, pixels of a side, choices of an action's factor


def load_run(path: str, overrides: Sequence[str]) -> tuple[checkpoint.Checkpoint, TrainConfig]:
    """A run to go on with: its checkpoint, and its configuration with the command line's changes.

    Raises:
        BadInput: there is none, it is damaged, finished, or may not change so.
    """
    saved = load_whole(
        Path(path), lambda state: resumed_config(config_from_state(state), overrides).damaged
    )
    return saved, resumed_config(config_from_state(saved.state), overrides)


def look_at_run(path: str, overrides: Sequence[str]) -> tuple[checkpoint.Checkpoint, TrainConfig]:
    """As `load_run`, without tensors, which take torch to read: for what is refused early."""
    if not path:
        raise BadInput("resume= was given without a value; give a run's folder, or a checkpoint's.")
    try:
        saved = checkpoint.load_exactly(checkpoint.candidates(Path(path))[0], only=())
        config = resumed_config(config_from_state(saved.state), overrides)
        whole = config.damaged == "stop"
    except checkpoint.Damaged:
        whole = False
    if not whole:  # an earlier checkpoint may take its place
        saved, config = load_run(path, overrides)
    if "csv" in config.logger:
        read_metrics(saved.run / "metrics.csv")
    check_trusted(config.env, named_environment(overrides))
    if is_finished(saved, config):
        raise BadInput(
            f"{saved.run} has all its {saved.epoch} epochs; give epochs={2 * saved.epoch}, say, to "
            "train on."
        )
    return saved, config


def is_finished(saved: checkpoint.Checkpoint, config: TrainConfig) -> bool:
    """Whether a run has all its epochs, and its last evaluation too."""
    state = saved.state.get("run_state")
    return saved.epoch >= config.epochs and not (
        isinstance(state, dict) and state.get("stage") == "evaluate"
    )


def load_whole(
    path: Path, choice: Callable[[dict[str, Any]], str], only: Collection[str] | None = None
) -> checkpoint.Checkpoint:
    """The checkpoint at `path`. If it is damaged, optionally the newest whole one before it.

    Args:
        choice: A checkpoint's state -> "stop" or "previous" (TrainConfig.damaged). With "previous"
            replay rows are verified too, and a fallback is printed.
        only: As in `checkpoint.load`.

    Raises:
        BadInput: If the checkpoint is damaged and the choice is "stop", naming the file and the
            checkpoint before it; or if none is whole.
    """
    damaged: list[tuple[checkpoint.Damaged, Path]] = []
    for folder in checkpoint.candidates(path):
        try:
            saved = checkpoint.load_exactly(folder, only)
            chosen = choice(saved.state)
            if chosen == "previous":
                checkpoint.verify_rows(saved)
        except checkpoint.Damaged as error:
            damaged.append((error, folder))
            continue
        if damaged and chosen != "previous":
            raise checkpoint.advised(*damaged[0], " (damaged=previous does so)")
        for error, _ in damaged:
            print(f"{error.path} {error.what}; that checkpoint is passed over.")
        if damaged:
            print(f"The newest whole checkpoint is {saved.folder}.")
        return saved
    first = damaged[0][0]
    raise checkpoint.Damaged(
        first.path, first.what, "restore it from a copy: no other checkpoint of the run is whole"
    )


def config_from_state(state: dict[str, Any]) -> TrainConfig:
    """The configuration that a checkpoint was saved with.

    Raises:
        BadInput: If it is not one of this version.
    """
    try:
        check_plain(state["config"])
        config = OmegaConf.to_object(merged(TrainConfig, state["config"]))
    except (OmegaConfBaseException, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split("\n")[0].split()).rstrip(".")
        raise BadInput(
            f"The checkpoint's configuration is not one of this version ({reason}); use the "
            "version that wrote it."
        ) from error
    check_values(config)
    return config  # type: ignore[return-value]


def check_plain(config: Any) -> None:
    """Check that a saved configuration holds plain values, and not far too many.

    Raises:
        ValueError: If it does not.
    """
    waiting, seen = [config], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > MOST_SETTINGS:
            raise ValueError(f"it has more than {MOST_SETTINGS:,} settings")
        if isinstance(value, str) and "${" in value:
            raise ValueError(f"it holds {reprlib.repr(value)}, which stands for something else")
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value


def spaces_from_state(state: dict[str, Any]) -> Spaces:
    """The spaces that a checkpoint's agent was made for.

    Raises:
        BadInput: If the checkpoint is not one of this version.
    """
    try:
        saved = state["spaces"]
        spaces = Spaces(saved["channels"], saved["size"], tuple(saved["actions"]))
        numbers = (spaces.channels, spaces.size, *spaces.actions)
        if not spaces.actions or not all(
            type(n) is int and 1 <= n <= MOST_OF_A_SPACE for n in numbers
        ):
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            "The checkpoint does not say what its agent sees and does; use the version that wrote "
            "it."
        ) from error
    return spaces


def steps_of(saved: checkpoint.Checkpoint) -> int:
    """Environment steps that the agent had seen.

    Raises:
        BadInput: If the checkpoint does not say it.
    """
    try:
        return operator.index(saved.state["replay"]["steps_added"])
    except (KeyError, TypeError) as error:
        raise BadInput(
            f"{saved.folder} does not say how many steps its agent has seen; use the version that "
            "wrote it."
        ) from error


def resumed_config(saved: TrainConfig, overrides: Sequence[str]) -> TrainConfig:
    """A run's own configuration with the command line's changes.

    Raises:
        BadInput: If one of them may not change.
    """
    before, after = OmegaConf.structured(saved), OmegaConf.structured(saved)
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key, given = override.key_or_group, override.input_line.lstrip("+")
        if key == "experiment":
            if override.value() != saved.experiment:
                raise BadInput(
                    f"That is a run of experiment={saved.experiment}; resume it without {given}."
                )
            continue
        if key in ("resume", "sweep"):
            continue
        if is_group(key) and isinstance(override.value(), str):
            if (key, override.value()) != ("env", "gym"):  # which names no environment
                raise BadInput(f"{given} was given, and a resumed run keeps its own; leave it out.")
            continue
        if not override.is_delete():
            OmegaConf.update(after, key, override.value(), force_add=True)
        old = OmegaConf.select(before, key)
        changed = override.is_delete() or OmegaConf.select(after, key) != old
        if changed and not may_change(key):
            raise BadInput(
                f"{given} was given, but the run has {key}={old}; a resumed run may change "
                f"{', '.join(MAY_CHANGE)} only."
            )
    return OmegaConf.to_object(after)  # type: ignore[return-value]


def differences(saved: TrainConfig, now: TrainConfig) -> Iterator[tuple[str, Any, Any]]:
    """All changed settings but the run's place: (key, value in `saved`, value in `now`)."""
    before, after = (flatten(dataclasses.asdict(config)) for config in (saved, now))
    for key in before:
        if before[key] != after.get(key) and key not in PLACE:
            yield key, before[key], after.get(key)


def unread_config(folder: Path, saved: TrainConfig, now: TrainConfig) -> str | None:
    """How the config.yaml of a resumed run's folder differs, in a sentence. It is not read.

    Args:
        saved: The checkpoint's configuration.
        now: The same with the command line's changes.
    """
    path = folder / "config.yaml"
    try:
        there = flatten(read_config(folder))
    except (ValueError, TypeError, AttributeError, yaml.YAMLError, RecursionError) as error:
        what = " ".join(str(error).split()).rstrip(".")
        return (
            f"{path} cannot be read ({what}); it is written anew, and the checkpoint's values "
            "count."
        )
    before, after = (flatten(dataclasses.asdict(config)) for config in (saved, now))
    keys = [key for key in before if key not in PLACE]
    found = [
        *(f"{key}={reprlib.repr(there[key])} ({after[key]} counts)" for key in keys
          if key in there and there[key] not in (before[key], after[key])),
        *(f"{key} (no key of this version)" for key in there if key not in before),
        *(f"{key} (missing; {after[key]} counts)" for key in keys if key not in there),
    ]  # fmt: skip
    if not found:
        return None
    more = f", and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return (
        f"{path} is not read but written anew, and differs from the checkpoint, whose values "
        "count where "
        f"the command line gives no other: {', '.join(found[:MOST_NAMED])}{more}."
    )


def may_change(key: str) -> bool:
    """Whether a resumed run may have another value there."""
    return any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE)


def named_environment(overrides: Sequence[str]) -> str | None:
    """The env.id of the command line, if it gives one."""
    given = [o.partition("=")[2] for o in overrides if o.startswith("env.id=")]
    return given[-1] if given else None


def changed_environment(
    trained: EnvConfig, composed: EnvConfig, overrides: Sequence[str]
) -> EnvConfig:
    """A run's environment with the command line's changes; with env=<name>, only the latter's.

    Args:
        composed: The environment that the command line gives by itself.
    """
    changes = [
        o
        for o in OverridesParser.create().parse_overrides(list(overrides))
        if o.key_or_group.split(".")[0] == "env"
    ]
    if any(change.key_or_group == "env" and isinstance(change.value(), str) for change in changes):
        return composed
    changed = OmegaConf.structured(trained)
    for change in changes:
        if change.key_or_group == "env":
            changed = OmegaConf.merge(changed, change.value())
        else:
            OmegaConf.update(
                changed, change.key_or_group.removeprefix("env."), change.value(), force_add=True
            )
    return OmegaConf.to_object(changed)  # type: ignore[return-value]


def check_trusted(env_config: EnvConfig, given: str | None, remedy: str | None = None) -> None:
    """Check that a saved run imports no module that nobody named.

    Loading runs no code that a file asks for; Gymnasium imports what stands before the colon.

    Args:
        env_config: of the run.
        given: env.id, if the caller names it.
        remedy: what to do if the module is trusted; None: at the command line.

    Raises:
        BadInput: it would.
    """
    module, _, name = env_config.id.rpartition(":")
    is_there = module in sys.modules and name in gymnasium.registry  # nothing is left to import
    if module and given is None and not is_there:
        remedy = remedy or f"add {argument('env.id', env_config.id)} to the command"
        raise BadInput(
            f"The run's environment {env_config.id} lies in a module that has to be imported; if "
            f"you trust it, {remedy}."
        )


def check_spaces(trained: Spaces, there: Spaces, name: str) -> None:
    """Check that an agent trained in some spaces can play in those of the environment `name`.

    Raises:
        BadInput: If it cannot.
    """
    if there != trained:
        raise BadInput(
            f"The run's agent knows {trained}, and {name} has {there}; give the environment that "
            "it was trained in, or one like it."
        )
