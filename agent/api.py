"""The command line's own steps from Python: `from agent import train, evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from agent import evaluation, run
from agent.checks import check_values, pick_device
from agent.cli import CONFIGS, completed, explain, typed
from agent.config import TrainConfig, store
from agent.saved import load_agent
from envs.errors import BadInput


def configure(*overrides: str) -> TrainConfig:
    """The configuration of scripts/train.py with these arguments, "key=value" each. Raises BadInput."""
    store("train", TrainConfig)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIGS), version_base=None):
            return typed(compose("train", completed(list(overrides), TrainConfig)), TrainConfig)
    except BadInput:
        raise
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise BadInput(explain(error, TrainConfig)) from error


def train(env: str | Callable[..., gymnasium.Env], *overrides: str) -> Path:
    """Train an agent and return the run's folder, as `scripts/train.py env=gym env.id=… <overrides>` does.

    env: an id of Gymnasium, or what makes an environment: a class or a function. That is registered as
        "python/<its name>-v0", under which a later process has to register it too before it evaluates the run.
        Its arguments are env.kwargs; render_mode="rgb_array" is one of them where frames have to be rendered.

    Raises BadInput if something cannot work, before anything is written, and NonFinite if a loss is not a number.
    """
    overrides = ("env=gym", f"env.id='{env if isinstance(env, str) else register(env)}'", *overrides)
    return run.train(configure(*overrides), list(overrides))


def register(make: Callable[..., gymnasium.Env]) -> str:
    """Make a class or a function known to Gymnasium, in place of an older one of this name. Returns the id.

    Raises BadInput if it is neither, an environment that is made already, say.
    """
    if not callable(make):
        raise BadInput(f"{make!r} was given as the environment; give an id, or a class or function that makes one.")
    name = getattr(make, "__name__", None) or getattr(getattr(make, "func", None), "__name__", type(make).__name__)  # partial has a func
    id = f"python/{name.strip('<>')}-v0"
    gymnasium.registry.pop(id, None)
    gymnasium.register(id, entry_point=make)
    return id


def evaluate(
    path: str | Path, random: bool = False, device: str = "auto", env_id: str | None = None, **changes: Any
) -> evaluation.Evaluation:
    """Play episodes with a run's agent, or by random actions, in its own environment. Nothing is written.

    path: a run's folder, or a checkpoint's
    env_id: the run's environment again, if it lies in a module ("module:Id"), which is imported only where it is named
    changes: of the run's own final evaluation: episodes, num_envs, temperature, seed, max_steps, parallel

    Raises BadInput if there is no agent, its files are not as they were written, or its environment is not registered.
    """
    agent, trained, _ = load_agent(path, pick_device(device), env_id)
    settings = replace(trained.final_evaluation, **changes)
    check_values(settings, prefix="evaluation.")
    return evaluation.evaluate(agent, trained.env, settings, random=random)
