"""Many runs by one command: where each lies, and which of them are still to be done."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import quote

from agent.config import TrainConfig
from agent.config.compose import is_group
from agent.runs.cli import as_given
from agent.runs.resume import config_from_state, differences, is_finished, load_whole, may_change
from agent.runs.train import train
from agent.storage import checkpoint
from envs.errors import BadInput
from envs.scores import RANDOM_AND_HUMAN

# What says where and how a run is computed, and not what comes out of it.
NOT_IN_THE_NAME = (
    "experiment", "sweep", "device", "logger", "keep", "damaged", "checkpoint_every",
    "env.parallel", "evaluation.parallel",
)  # fmt: skip
LONGEST = 200  # characters of a folder's name


def expand(arguments: list[str]) -> list[str]:
    """env.game=all stands for the 26 games of Atari 100k, and makes the command a sweep."""
    if "env.game=all" not in arguments:
        return arguments
    games = f"env.game={','.join(RANDOM_AND_HUMAN)}"
    return ["--multirun", *(games if given == "env.game=all" else given for given in arguments)]


def train_in_sweep(config: TrainConfig, overrides: list[str]) -> None:
    """One run of a sweep: started, gone on with where it stopped, or left alone if it is finished.

    Raises:
        BadInput: the run cannot work, or its folder holds another.
        NonFinite: a loss is not finite.
    """
    if config.run or config.resume:
        raise BadInput(
            "run= and resume= name one folder, and a sweep has many; give sweep=<the folder above>."
        )
    folder = Path(config.sweep) / config.experiment / name_of(overrides)
    if checkpoint.newest(folder) is None:  # nothing was learned, if the run was started at all
        config.run = str(folder)
        train(config, overrides)
        return

    def look(saved: checkpoint.Checkpoint) -> TrainConfig:
        if config.damaged == "previous":  # before a run is called finished
            saved.verify()
        return config

    saved, _ = load_whole(folder, look)
    for key, before, after in differences(config_from_state(saved.state), config):
        if not may_change(key):
            raise BadInput(
                f"{folder} holds a run with {key}={before}, and the experiment now has {after}; "
                "give sweep=<another folder>, or change it back."
            )
    if is_finished(saved, config):
        print(f"{folder} has all its {saved.epoch} epochs: left as it is.")
        return
    config.resume = str(folder)
    # Files of configs/ were compared above, value by value. What the experiment says and the
    # command line does not: how far to go, and a module that the user named there.
    own = [o for o in overrides if not is_group(o.lstrip("+").partition("=")[0])]
    own += [f"epochs={config.epochs}", f"env.id={config.env.id}", f"damaged={config.damaged}"]
    train(config, own)


def name_of(overrides: list[str]) -> str:
    """A folder's name from what is varied, as in "env.game-Pong+seed-0"; unique for each run.

    It needs no quotes, neither in a shell nor in a value of Hydra's.
    """
    # Game and seed first: what a long name loses is its end.
    first = ("env.game", "seed")
    ordered = sorted(as_given(overrides), key=lambda o: (o.partition("=")[0] not in first, o))
    parts = [
        f"{quote(key, safe='')}-{quote(value, safe=':')}"
        for key, _, value in (given.partition("=") for given in ordered)
        if key not in NOT_IN_THE_NAME
    ]
    name = "+".join(parts) or "default"
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
