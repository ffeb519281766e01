"""A saved run: its configuration with the command line's changes, its agent, and what of both may be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from agent import checkpoint
from agent.agent import Agent
from agent.cli import CONFIGS
from agent.config import TrainConfig, merged
from envs.errors import BadInput
from envs.spaces import Spaces
from envs.vector import EnvConfig

MAY_CHANGE = (
    "epochs", "collect.epochs", "device", "precision", "learner", "env.parallel", "env.on_error", "env.timeout",
    "env.max_restarts", "evaluate_every", "evaluation", "final_episodes",
    "checkpoint_every", "keep", "logger",
)  # fmt: skip


def load_run(path: str, overrides: Sequence[str]) -> tuple[checkpoint.Checkpoint, TrainConfig]:
    """A run to go on with: its checkpoint, and its configuration with the command line's changes."""
    if not path:
        raise BadInput("resume= was given without a value; give a run's folder, or a checkpoint's.")
    saved = checkpoint.load(Path(path))
    config = resumed_config(config_from_state(saved.state), overrides)
    check_trusted(config.env, named_environment(overrides))
    if saved.epoch >= config.epochs:
        raise BadInput(f"{saved.run} has all its {saved.epoch} epochs; give epochs={2 * saved.epoch}, say, to train on.")
    return saved, config


def config_from_state(state: dict[str, Any]) -> TrainConfig:
    """The configuration that a checkpoint was saved with. Raises BadInput if it is of another version."""
    try:
        return OmegaConf.to_object(merged(TrainConfig, state["config"]))  # type: ignore[return-value]
    except (OmegaConfBaseException, KeyError) as error:
        raise BadInput(
            f"The checkpoint's configuration is not one of this version ({str(error).splitlines()[0]}); "
            "use the version that wrote it."
        ) from error


def spaces_from_state(state: dict[str, Any]) -> Spaces:
    """The spaces that a checkpoint's agent was made for. Raises BadInput if it is of another version."""
    try:
        saved = state["spaces"]
        return Spaces(saved["channels"], saved["size"], tuple(saved["actions"]))
    except (KeyError, TypeError) as error:
        raise BadInput("The checkpoint does not say what its agent sees and does; use the version that wrote it.") from error


def resumed_config(saved: TrainConfig, overrides: Sequence[str]) -> TrainConfig:
    """A run's own configuration with the command line's changes. Raises BadInput if one may not change."""
    before, after = OmegaConf.structured(saved), OmegaConf.structured(saved)
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key, given = override.key_or_group, override.input_line.lstrip("+")
        if key == "experiment":
            if override.value() != saved.experiment:
                raise BadInput(f"That is a run of experiment={saved.experiment}; resume it without {given}.")
            continue
        if key in ("resume", "sweep"):
            continue
        if key == "env" and isinstance(override.value(), str):
            check_group(saved.env, override.value(), given)
            continue
        if not override.is_delete():
            OmegaConf.update(after, key, override.value(), force_add=True)
        old = OmegaConf.select(before, key)
        changed = override.is_delete() or OmegaConf.select(after, key) != old
        if changed and not any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE):
            raise BadInput(
                f"{given} was given, but the run has {key}={old}; a resumed run may change {', '.join(MAY_CHANGE)} only."
            )
    return OmegaConf.to_object(after)  # type: ignore[return-value]


def check_group(env_config: EnvConfig, name: str, given: str) -> None:
    """Raises BadInput if a run that is to go on lies in another environment than that of configs/env/<name>.yaml.

    env=gym fits all: it names none."""
    chosen = OmegaConf.to_container(OmegaConf.load(CONFIGS / "env" / f"{name}.yaml")).get("id", env_config.id)
    if chosen not in (env_config.id, ""):
        raise BadInput(f"{given} was given, but the run has env.id={env_config.id}; leave it out.")


def named_environment(overrides: Sequence[str]) -> str | None:
    """The env.id of the command line, if it gives one."""
    given = [o.partition("=")[2] for o in overrides if o.startswith("env.id=")]
    return given[-1] if given else None


def changed_environment(trained: EnvConfig, composed: EnvConfig, overrides: Sequence[str]) -> EnvConfig:
    """A run's environment with the command line's changes; with env=<name>, that of the command line alone.

    composed: what the command line comes to by itself
    """
    changes = [o for o in OverridesParser.create().parse_overrides(list(overrides)) if o.key_or_group.split(".")[0] == "env"]
    if any(change.key_or_group == "env" and isinstance(change.value(), str) for change in changes):
        return composed
    changed = OmegaConf.structured(trained)
    for change in changes:
        if change.key_or_group == "env":
            changed = OmegaConf.merge(changed, change.value())
        else:
            OmegaConf.update(changed, change.key_or_group.removeprefix("env."), change.value(), force_add=True)
    return OmegaConf.to_object(changed)  # type: ignore[return-value]


def check_trusted(env_config: EnvConfig, given: str | None) -> None:
    """Raises BadInput if a saved run would have a module imported, and the command line does not name an environment.

    given: env.id, or None

    Loading runs no code that a file asks for; Gymnasium imports what stands before the colon.
    """
    if ":" in env_config.id and given is None:
        raise BadInput(
            f"The run's environment {env_config.id} lies in a module that has to be imported; if you trust it, "
            f"add env.id={env_config.id} to the command."
        )


def check_spaces(trained: Spaces, there: Spaces, name: str) -> None:
    """Raises BadInput if an agent that was trained in some spaces cannot play in others, those of the environment `name`."""
    if there != trained:
        raise BadInput(
            f"The run's agent knows {trained}, and {name} has {there}; give the environment that it was trained in, "
            "or one like it."
        )


def load_agent(
    path: str | Path, device: torch.device, env_id: str | None = None
) -> tuple[Agent, TrainConfig, checkpoint.Checkpoint]:
    """The agent of a run (its newest checkpoint) or of a checkpoint's folder, in evaluation mode.

    env_id: that the command line names (`check_trusted`)

    Raises BadInput if there is none, or if its files are not as they were written.
    """
    agent, config, saved = load_networks(path, device)
    check_trusted(config.env, env_id)
    return agent, config, saved


def load_networks(
    path: str | Path, device: torch.device
) -> tuple[Agent, TrainConfig, checkpoint.Checkpoint]:
    """As `load_agent`, for what needs no environment: nothing but the networks is trusted or asked for."""
    saved = checkpoint.load(Path(path), only=["agent"])
    config = config_from_state(saved.state)
    agent = Agent(config.agent, spaces_from_state(saved.state))
    try:
        agent.load_state_dict(saved.tensors["agent"])
    except RuntimeError as error:
        raise BadInput(f"{saved.folder} holds networks of another version; use the one that wrote it.") from error
    return agent.eval().to(device), config, saved
