"""The command line: typed configuration by Hydra, refusals in one sentence, and what a command starts from."""

from __future__ import annotations

import dataclasses
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from agent import checkpoint
from agent.agent import Agent
from agent.learner import NonFinite
from agent.trainer import TrainConfig
from envs.errors import BadInput

CONFIGS = Path(__file__).parent.parent / "configs"
MAY_CHANGE = ("resume", "epochs", "device", "evaluate_every", "evaluation", "checkpoint_every", "keep", "logger")

ConfigStore.instance().store(name="train_schema", node=TrainConfig)


def command(config_name: str, main: Callable[[Any, list[str]], None]) -> None:
    """Run `main(config, overrides)` with the command line's configuration, an instance of its dataclass.

    Exit code 2 and one sentence for bad input, 1 for a run that had to stop, 130 for Ctrl-C.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that errors arrive here instead of in Hydra's own report

    @hydra.main(version_base=None, config_path=str(CONFIGS), config_name=config_name)
    def hydra_main(config: DictConfig) -> None:
        main(OmegaConf.to_object(config), list(HydraConfig.get().overrides.task))

    try:
        hydra_main()
    except BadInput as error:
        sys.exit(refuse(str(error)))
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(refuse(explain(error, config_name)))
    except NonFinite as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def refuse(sentence: str) -> int:
    """Say why, and return the exit code of bad input."""
    print(" ".join(sentence.split()), file=sys.stderr)
    return 2


def explain(error: Exception, config_name: str) -> str:
    """Hydra's and OmegaConf's errors as one sentence that names the key and what is accepted."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, given = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={given} does not exist; choose one of {', '.join(error.options or [])}."
    cause: BaseException = error
    while not isinstance(cause, OmegaConfBaseException) and cause.__cause__ is not None:
        cause = cause.__cause__
    key = getattr(cause, "full_key", None)
    message = str(cause).splitlines()[0].rstrip(".")
    if key and ("not in" in message or "Could not override" in str(error)) and "converted" not in message:
        near = difflib.get_close_matches(key, all_keys(config_name), n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see configs/ for the keys that there are."
        return f"{key} is not a key of the configuration; {hint}"
    if key:
        return f"{key}: {message[0].lower()}{message[1:]}; give a value of that type."
    return f"{message}; see configs/ for what is accepted."


def all_keys(config_name: str) -> list[str]:
    """Every dotted key of a configuration, for suggestions."""

    def walk(node: Any, prefix: str) -> list[str]:
        if not isinstance(node, dict):
            return [prefix]
        inner = [key for name, value in node.items() for key in walk(value, f"{prefix}.{name}" if prefix else name)]
        return [prefix, *inner] if prefix else inner

    schemas = ConfigStore.instance().repo
    node = schemas.get(f"{config_name}_schema.yaml")
    return walk(OmegaConf.to_container(node.node), "") if node else []


def pick_device(name: str) -> torch.device:
    """ "auto" or a device's name -> the device. Raises BadInput if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        there = ["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise BadInput(f"device={name} is not on this machine; choose one of {', '.join(there)}.") from error
    return device


def config_from_state(state: dict[str, Any]) -> TrainConfig:
    """The configuration that a checkpoint was saved with. Raises BadInput if it is of another version."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(TrainConfig), state["config"])
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except (OmegaConfBaseException, KeyError) as error:
        raise BadInput(
            f"The checkpoint's configuration is not one of this version ({str(error).splitlines()[0]}); "
            "use the version that wrote it."
        ) from error


def resumed_config(saved: TrainConfig, overrides: Sequence[str]) -> TrainConfig:
    """A run's own configuration with the command line's changes. Raises BadInput if one may not change."""
    groups = [o for o in overrides if o.partition("=")[0] == "experiment"]
    if groups and groups[0].partition("=")[2] != saved.experiment:
        raise BadInput(f"That is a run of experiment={saved.experiment}; resume it without {groups[0]}.")
    changes = [o.lstrip("+") for o in overrides if o not in groups]
    before = OmegaConf.structured(saved)
    after = OmegaConf.merge(before, OmegaConf.from_dotlist(changes))
    for change in changes:
        key = change.partition("=")[0]
        if OmegaConf.select(before, key) != OmegaConf.select(after, key) and key.split(".")[0] not in MAY_CHANGE:
            raise BadInput(
                f"{change} was given, but the run has {key}={OmegaConf.select(before, key)}; "
                f"a resumed run may change {', '.join(MAY_CHANGE[1:])} only."
            )
    return OmegaConf.to_object(after)  # type: ignore[return-value]


def load_agent(path: str | Path, device: torch.device) -> tuple[Agent, TrainConfig, checkpoint.Checkpoint]:
    """The agent of a run (its newest checkpoint) or of a checkpoint's folder, in evaluation mode.

    Raises BadInput if there is none, or if its files are not as they were written.
    """
    saved = checkpoint.load(Path(path), only=["agent"])
    config = config_from_state(saved.state)
    agent = Agent(config.agent, saved.state["num_actions"], saved.state["image_size"])
    try:
        agent.load_state_dict(saved.tensors["agent"])
    except RuntimeError as error:
        raise BadInput(f"{saved.folder} holds networks of another version; use the one that wrote it.") from error
    return agent.eval().to(device), config, saved


def as_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain dictionaries and lists."""
    return dataclasses.asdict(config)
