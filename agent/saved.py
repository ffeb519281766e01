"""A saved run: its configuration with the command line's changes, its agent, and what of both may be trusted."""

from __future__ import annotations

import dataclasses
import operator
import reprlib
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from agent import checkpoint
from agent.agent import KINDS, Agent, AgentConfig, sketch_agent
from agent.checks import check_values, flatten
from agent.cli import CONFIGS
from agent.config import TrainConfig, merged
from agent.files import check_inside
from agent.logger import read_metrics
from envs.errors import BadInput
from envs.spaces import Spaces
from envs.vector import EnvConfig

MAY_CHANGE = (
    "epochs", "collect.epochs", "device", "precision", "learner", "env.parallel", "env.on_error", "env.timeout",
    "env.max_restarts", "evaluate_every", "evaluation", "final_episodes",
    "checkpoint_every", "keep", "damaged", "logger",
)  # fmt: skip

GROUPS = ("agent", *(f"agent/{part}" for part in KINDS), "quantizer", "size")

MOST_SETTINGS = 10_000  # of a configuration; ours have some two hundred
MOST_OF_A_SPACE = 2**16  # channels, pixels of a side, choices of an action's factor


def load_run(path: str, overrides: Sequence[str]) -> tuple[checkpoint.Checkpoint, TrainConfig]:
    """A run to go on with: its checkpoint, and its configuration with the command line's changes."""
    if not path:
        raise BadInput("resume= was given without a value; give a run's folder, or a checkpoint's.")

    def config_of(state: dict[str, Any]) -> TrainConfig:
        return resumed_config(config_from_state(state), overrides)

    saved = load_whole(Path(path), lambda state: config_of(state).damaged)
    check_inside(saved.run)
    config = config_of(saved.state)
    check_networks(config.agent, spaces_from_state(saved.state), saved)
    if "csv" in config.logger:
        read_metrics(saved.run / "metrics.csv")  # what is refused later has been written to by then
    check_trusted(config.env, named_environment(overrides))
    if is_finished(saved, config):
        raise BadInput(f"{saved.run} has all its {saved.epoch} epochs; give epochs={2 * saved.epoch}, say, to train on.")
    return saved, config


def is_finished(saved: checkpoint.Checkpoint, config: TrainConfig) -> bool:
    """Whether a run has all the epochs that it shall have, and its last evaluation is not still to come."""
    place = saved.state.get("place")
    return saved.epoch >= config.epochs and not (isinstance(place, dict) and place.get("stage") == "evaluate")


def load_whole(
    path: Path, choice: Callable[[dict[str, Any]], str], only: Collection[str] | None = None
) -> checkpoint.Checkpoint:
    """The checkpoint that `path` means; if it is damaged and so chosen, the newest whole one before it, saying so.

    choice: a checkpoint's state -> "stop" or "previous" (TrainConfig.damaged); then replay rows are verified too
    only:   as `checkpoint.load`

    Raises BadInput: by choice, naming the damaged file and the checkpoint before it, or because none is whole.
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
    raise checkpoint.Damaged(first.path, first.what, "restore it from a copy: no other checkpoint of the run is whole")


def config_from_state(state: dict[str, Any]) -> TrainConfig:
    """The configuration that a checkpoint was saved with. Raises BadInput if it is of another version, or none of ours."""
    try:
        check_plain(state["config"])
        config = OmegaConf.to_object(merged(TrainConfig, state["config"]))
    except (OmegaConfBaseException, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split("\n")[0].split()).rstrip(".")
        raise BadInput(
            f"The checkpoint's configuration is not one of this version ({reason}); use the version that wrote it."
        ) from error
    check_values(config)
    return config  # type: ignore[return-value]


def check_plain(config: Any) -> None:
    """Raises ValueError if a saved configuration holds what stands for something else, or far more than one of ours."""
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
    """The spaces that a checkpoint's agent was made for. Raises BadInput if it is of another version, or none of ours."""
    try:
        saved = state["spaces"]
        spaces = Spaces(saved["channels"], saved["size"], tuple(saved["actions"]))
        numbers = (spaces.channels, spaces.size, *spaces.actions)
        if not spaces.actions or not all(type(n) is int and 1 <= n <= MOST_OF_A_SPACE for n in numbers):
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput("The checkpoint does not say what its agent sees and does; use the version that wrote it.") from error
    return spaces


def steps_of(saved: checkpoint.Checkpoint) -> int:
    """Environment steps that the agent had seen. Raises BadInput if the checkpoint does not say it."""
    try:
        return operator.index(saved.state["replay"]["steps_added"])
    except (KeyError, TypeError) as error:
        raise BadInput(f"{saved.folder} does not say how many steps its agent has seen; use the version that wrote it.") from error


def check_networks(config: AgentConfig, spaces: Spaces, saved: checkpoint.Checkpoint) -> None:
    """Raises BadInput if a checkpoint's networks are not those of its configuration, before memory is taken for them.

    So the files that are there bound what is made, and not the sizes that they declare.
    """
    tensors = saved.tensors.get("agent", {})
    loops: dict[str, int] = {}  # part -> how often Python goes round for it: each layer, block and stage has a tensor or more
    for key, value in flatten(dataclasses.asdict(config)).items():
        part, _, name = key.rpartition(".")
        count = len(value) if isinstance(value, list) else value if name in ("layers", "blocks", "codebooks") else 1
        loops[part] = loops.get(part, 1) * max(1, count)
    if max(loops.values()) > len(tensors):
        part = max(loops, key=loops.__getitem__)
        raise BadInput(f"{saved.folder} holds {len(tensors)} tensors, fewer than its agent.{part} has; use the version that wrote it.")
    sketch = sketch_agent(config, spaces)
    expected = {name: (t.shape, t.dtype) for name, t in sketch.state_dict().items()}
    if expected != {name: (t.shape, t.dtype) for name, t in tensors.items()}:
        raise BadInput(f"{saved.folder} holds networks of another version; use the one that wrote it.")
    needed = sum(t.numel() * t.element_size() for t in (*sketch.parameters(), *sketch.buffers()))
    free = psutil.virtual_memory().available
    if needed > free:
        raise BadInput(f"The agent of {saved.folder} needs {needed / 1e9:.2f} GB of memory, and only {free / 1e9:.2f} GB are free; free some.")


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
        if key in GROUPS and isinstance(override.value(), str):
            check_parts(saved, key, override.value(), given)
            continue
        if key == "env" and isinstance(override.value(), str):
            check_group(saved.env, override.value(), given)
            continue
        if not override.is_delete():
            OmegaConf.update(after, key, override.value(), force_add=True)
        old = OmegaConf.select(before, key)
        changed = override.is_delete() or OmegaConf.select(after, key) != old
        if changed and not may_change(key):
            raise BadInput(
                f"{given} was given, but the run has {key}={old}; a resumed run may change {', '.join(MAY_CHANGE)} only."
            )
    return OmegaConf.to_object(after)  # type: ignore[return-value]


def differences(saved: TrainConfig, now: TrainConfig) -> Iterator[tuple[str, Any, Any]]:
    """(key, its value in a saved run's configuration, its value now) of all that changed but the run's place."""
    before, after = (flatten(dataclasses.asdict(config)) for config in (saved, now))
    for key in before:
        if before[key] != after.get(key) and key not in ("run", "resume", "sweep"):
            yield key, before[key], after.get(key)


def may_change(key: str) -> bool:
    """Whether a resumed run may have another value there."""
    return any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE)


def check_parts(saved: TrainConfig, group: str, name: str, given: str) -> None:
    """Raises BadInput if a run that is to go on is not of the parts that a file of configs/ or a kind stands for."""
    if group == "size":
        raise BadInput(f"{given} was given, and a run's sizes are its own; leave it out.")
    if group == "quantizer":
        chosen = yaml.safe_load((CONFIGS / "quantizer" / f"{name}.yaml").read_text())
        own = dataclasses.asdict(saved.agent.tokenizer.quantizer)
    else:
        own = {part: getattr(saved.agent, part).kind for part in KINDS}
        parts = yaml.safe_load((CONFIGS / "agent" / f"{name}.yaml").read_text())["defaults"] if group == "agent" else [{group.partition("/")[2]: name}]
        chosen = {part: kind for entry in parts if isinstance(entry, dict) for part, kind in entry.items()}
    for key, value in chosen.items():
        if own[key] != value:
            raise BadInput(f"{given} was given, whose {key} is {value}, but the run's is {own[key]}; leave it out.")


def check_group(env_config: EnvConfig, name: str, given: str) -> None:
    """Raises BadInput if a run that is to go on lies in another environment than that of configs/env/<name>.yaml.

    env=gym fits all: it names none."""
    own: dict[str, Any] = dataclasses.asdict(env_config)
    chosen: dict[str, Any] = {"defaults": [name]}
    while "defaults" in chosen:  # and the file from which it starts, whose values it may change
        start = yaml.safe_load((CONFIGS / "env" / f"{chosen.pop('defaults')[0]}.yaml").read_text())
        chosen = OmegaConf.to_container(OmegaConf.merge(start, chosen))
    for key, value in chosen.items():  # the id, which tells most, comes first
        fits = value.items() <= own[key].items() if isinstance(value, dict) else value in (None, "", own[key])
        if not fits:
            raise BadInput(f"{given} was given, but the run has env.{key}={own[key]}; leave it out.")


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
    spaces = spaces_from_state(saved.state)
    check_networks(config.agent, spaces, saved)
    agent = Agent(config.agent, spaces)
    agent.load_state_dict(saved.tensors["agent"])
    return agent.eval().to(device), config, saved
