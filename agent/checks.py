"""What is refused at the door: numbers out of range, sizes that do not fit, a machine that is too small."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from torch import nn

from agent.logger import KINDS
from agent.config import TrainConfig
from agent.parts import window
from agent.replay import Replay
from envs.errors import BadInput
from envs.spaces import Spaces
from envs.vector import EnvConfig


class Range(NamedTuple):
    """least and most are accepted themselves; `words` says so."""

    least: float
    most: float
    words: str


ENVIRONMENTS = Range(1, 2**16, "1 or more, at most 65536")
COUNT = Range(1, 2**31 - 1, "1 or more, below 2^31")
SEQUENCE = Range(2, 2**31 - 1, "2 or more, below 2^31")
NUMBER = Range(0, 2**31 - 1, "0 or more, below 2^31")
SEED = Range(0, 2**63 - 1, "0 or more, below 2^63")
WEIGHT = Range(0, math.inf, "0 or more, and finite")
POSITIVE = Range(math.ulp(0.0), math.inf, "more than 0, and finite")
SHARE = Range(0, 1, "a number from 0 to 1")

# Every number of a configuration; a test sees to it that none is missing.
RANGES = {
    "seed": SEED,
    "epochs": COUNT,
    "evaluate_every": COUNT,
    "final_episodes": COUNT,
    "checkpoint_every": COUNT,
    "keep": COUNT,
    "learner.skips": NUMBER,
    "collect.num_envs": ENVIRONMENTS,
    "collect.epsilon": SHARE,
    "collect.first_steps": COUNT,
    "collect.steps": COUNT,
    "collect.epochs": COUNT,
    "env.timeout": POSITIVE,
    "env.max_restarts": COUNT,
    "env.bins": Range(2, 255, "2 to 255"),
    "replay.capacity": Range(1, math.inf, "1 or more"),
    "replay.alpha": WEIGHT,
    "agent.*conv.down": Range(0, 1, "0 or 1 for each stage"),
    "agent.*conv.attention": NUMBER,
    "agent.*conv.*": COUNT,
    "agent.tokenizer.quantizer.commitment": WEIGHT,
    "agent.tokenizer.quantizer.*decay": SHARE,
    "agent.tokenizer.quantizer.revival_updates": NUMBER,
    "agent.tokenizer.quantizer.levels": Range(2, 1000, "2 to 1000 for each dimension"),
    "agent.tokenizer.quantizer.*": COUNT,
    "agent.tokenizer.embedding_std": POSITIVE,
    "agent.tokenizer.decoded_after": NUMBER,
    "agent.tokenizer.l1": WEIGHT,
    "agent.tokenizer.l2": WEIGHT,
    "agent.tokenizer.worst": WEIGHT,
    "agent.tokenizer.*": COUNT,
    "agent.dynamics.*_weight": WEIGHT,
    "agent.dynamics.transformer.dropout": SHARE,
    "agent.dynamics.*": COUNT,
    "agent.policy.dropout": SHARE,
    "agent.policy.*": COUNT,
    "agent.actor_critic.burn_in": COUNT,
    "agent.actor_critic.horizon": COUNT,
    "agent.actor_critic.entropy_weight": WEIGHT,
    "agent.actor_critic.entropy_half_life": COUNT,
    "agent.actor_critic.*": SHARE,
    "*.batch": COUNT,
    "*.steps": SEQUENCE,
    "*.updates": NUMBER,
    "*.first_updates": NUMBER,
    "*.start_epoch": NUMBER,
    "*.learning_rate": WEIGHT, "*.first_learning_rate": WEIGHT,
    "*.weight_decay": WEIGHT,
    "*.max_gradient_norm": POSITIVE,
    "evaluation.seed": SEED,
    "evaluation.temperature": WEIGHT,
    "evaluation.num_envs": ENVIRONMENTS,
    "evaluation.*": COUNT,
}


def range_of(key: str) -> Range | None:
    """The first entry of `RANGES` that fits."""
    return next((accepted for pattern, accepted in RANGES.items() if fnmatchcase(key, pattern)), None)


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries -> dotted key -> value. What goes to an environment's constructor stays one value."""
    flat = {}
    for name, value in config.items():
        inner = isinstance(value, dict) and not name.endswith("kwargs")
        flat |= flatten(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return flat


def check_values(config: Any, prefix: str = "") -> None:
    """Raises BadInput if a number is out of its range or a text is empty.

    prefix: where the keys of `config` stand in `RANGES`
    """
    for key, value in flatten(dataclasses.asdict(config)).items():
        if value == "":
            raise BadInput(f"{key}= was given without a value; give one, or leave it out.")
        accepted = range_of(prefix + key)
        numbers = value if isinstance(value, list) else [value]
        if accepted is None or value is None or isinstance(value, (str, bool)):
            continue
        if not numbers:
            raise BadInput(f"{key}=[] was given; give a list of at least one number.")
        if not all(accepted.least <= n <= accepted.most and math.isfinite(n) for n in numbers):
            raise BadInput(f"{key}={value} was given; give {accepted.words}.")


def check_config(config: TrainConfig) -> None:
    """Raises BadInput if values are out of range or do not fit together."""
    check_values(config)
    kinds = config.logger
    if not isinstance(kinds, list) or not all(kind in KINDS for kind in kinds):
        raise BadInput(f"logger={kinds} was given; choose one of {', '.join(KINDS)}, or several: logger=[csv,wandb].")
    if "wandb" in kinds and importlib.util.find_spec("wandb") is None:
        raise BadInput(
            "logger=wandb was given, and Weights & Biases is not installed; run `pip install -e '.[wandb]'`, "
            "or choose from tensorboard, csv."
        )
    if config.env.timeout != EnvConfig.timeout and not (config.env.parallel or config.evaluation.parallel):
        raise BadInput(
            f"env.timeout={config.env.timeout:g} was given, and nothing can end an environment that hangs in the run's own process; "
            f"give env.parallel=true, or leave it at {EnvConfig.timeout:g}."
        )
    envs = config.collect.num_envs
    if config.collect.first_steps < 2 * envs:
        raise BadInput(
            f"collect.first_steps={config.collect.first_steps} leaves nothing to learn from with "
            f"collect.num_envs={envs}; give {2 * envs} or more."
        )
    context, steps = config.agent.dynamics.context, window(config, "dynamics").steps
    if steps > context:
        raise BadInput(f"dynamics.steps={steps} is more than agent.dynamics.context={context}; give at most the context.")
    burn_in, horizon = config.agent.actor_critic.burn_in, config.agent.actor_critic.horizon
    if steps < min(context, burn_in - 1 + horizon):
        raise BadInput(
            f"dynamics.steps={steps} is less than what imagination takes of the context, agent.actor_critic.burn_in={burn_in} − 1 + horizon={horizon}, "
            "and nothing would have been learned there; give more, or leave it out."
        )
    config.agent.tokenizer.check_steps(config.tokenizer.steps)
    config.agent.dynamics.check_steps(steps)


def pick_device(name: str) -> torch.device:
    """ "auto" or a device's name -> the device. Raises BadInput if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        there = ["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise BadInput(f"device={name} is not on this machine; choose one of {', '.join(there)}.") from error
    return device


def check_writable(key: str, path: Path) -> None:
    """Raises BadInput, before any work, if the file `key`=`path` could not be written."""
    above = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        if path.is_dir() or path.exists() and not os.access(path, os.W_OK):
            raise PermissionError
        with tempfile.TemporaryFile(dir=above):  # what rights do not tell: /proc has no room for files
            pass
    except OSError as error:
        raise BadInput(f"{key}={path} cannot be written; give {key}=<a file in a folder that you may write to>.") from error


def check_space(
    config: TrainConfig, networks: nn.Module, activations: int, spaces: Spaces, folder: Path, device: torch.device,
    saved: int = 0,
) -> None:
    """Raises BadInput if memory or disk are too small for what the run will hold when its replay is full.

    networks:    on any device, meta too
    activations: bytes that an update keeps for its backward pass, at most
    spaces:      of the environment
    device:      that the run uses
    saved:       bytes of replay rows that lie in the run's folder already
    """
    while not folder.exists():
        folder = folder.absolute().parent
    Replay.check_fits(config.replay, config.collect.num_envs, spaces, folder, device)
    weights = sum(p.numel() * p.element_size() for p in networks.parameters())
    rows = Replay.bytes_needed(config.replay, config.collect.num_envs, spaces)
    memmap = config.replay.storage == "memmap"
    elsewhere = memmap or (config.replay.storage == "device" and device.type == "cuda")
    remedy = "lower replay.capacity or the networks' sizes"

    # Weights, gradients and two moments. (A GPU's memory is not counted: its allocator says what it lacks.)
    memory = 4 * weights + (0 if elsewhere else rows)
    activations = activations if device.type == "cpu" else 0
    free = psutil.virtual_memory().available
    if memory > free:
        raise BadInput(
            f"Networks and replay need {memory / 1e9:.2f} GB of memory, and only {free / 1e9:.2f} GB are free; {remedy}."
        )
    if memory + activations > free:
        raise BadInput(
            f"An update needs {activations / 1e9:.2f} GB of memory besides {memory / 1e9:.2f} GB of networks and replay, and "
            f"only {free / 1e9:.2f} GB are free; lower tokenizer.batch, dynamics.batch or policy.batch."
        )
    # Checkpoints hold weights and two moments, one more of them while the next is written, the best
    # besides; they share one copy of the replay's rows. A memory map lies beside them.
    disk = 3 * weights * (config.keep + 2) + max(0, rows - saved) + (rows if memmap else 0)
    free = psutil.disk_usage(str(folder)).free
    if disk > free:
        raise BadInput(
            f"The run needs {disk / 1e9:.2f} GB of disk for its replay, its checkpoints' copy of it and its "
            f"networks, and only {free / 1e9:.2f} GB are free in {folder}; {remedy}, or put the run on another disk with run=<folder>."
        )
