"""The commands from Python: `from deltadream import train, evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium

from agent.config import TrainConfig
from agent.config.compose import TRAINING, register
from agent.runs.cli import completed, configuration
from agent.runs.resume import check_trusted
from agent.runs.train import train as train_run
from envs.errors import BadInput
from envs.make import OF_A_CLASS, make_single
from envs.output import safe_output
from envs.settings import check_values
from envs.workers import end_if_imported

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.evaluation.evaluate import Evaluation
    from agent.training.callbacks import Callback


def configure(*overrides: str) -> TrainConfig:
    """The configuration of scripts/train.py with these arguments, "key=value" each.

    Raises:
        BadInput: one cannot be read, or is not known.
    """
    register("train", TRAINING)
    return configuration("train", TrainConfig, completed(list(overrides), TrainConfig))


@safe_output()
def train(
    env: str | Callable[..., gymnasium.Env], *overrides: str, callbacks: Iterable[Callback] = ()
) -> Path:
    """Train an agent, as `scripts/train.py env=gym env.id=… <overrides>` does.

    Args:
        env: an id of Gymnasium, or a class or function that makes an environment, with
            env.kwargs as its arguments. Another process calls `register_env` before it evaluates
            the run or goes on with it.
        overrides: as on the command line, "key=value" each.
        callbacks: that watch the run.

    Returns:
        The run's folder.

    Raises:
        BadInput: something cannot work; nothing was written.
        NonFinite: a loss is not a number.
    """
    id = env if isinstance(env, str) else register_env(env)
    given = completed(["env=gym", f"env.id='{id}'", *overrides], TrainConfig)
    return train_run(configure(*given), given, callbacks)


def register_env(make: Callable[..., gymnasium.Env]) -> str:
    """Make a class or a function known to Gymnasium, as "python/<its name>-v0" -> this id.

    Raises:
        BadInput: it is neither, an environment that is made already, say.
    """
    if not callable(make):
        raise BadInput(f"{make!r} is no environment's id, nor a class or function that makes one.")
    named = getattr(make, "func", make)  # of a partial
    name = getattr(named, "__name__", type(make).__name__)
    id = f"{OF_A_CLASS}{name.strip('<>')}-v0"
    gymnasium.registry.pop(id, None)
    gymnasium.register(id, entry_point=make)
    return id


@safe_output()
def evaluate(
    run: str | Path,
    random: bool = False,
    device: str = "auto",
    env_id: str | None = None,
    **changes: Any,
) -> Evaluation:
    """Play episodes with a run's agent in its own environment. Nothing is written.

    Args:
        run: a run's folder, or a checkpoint's.
        random: play by random actions instead.
        device: auto, cpu, cuda, …
        env_id: the run's environment again, if it lies in a module ("module:Id") that this process
            has not imported.
        changes: of the run's own final evaluation: episodes, num_envs, temperature, seed,
            max_steps, parallel.

    Raises:
        BadInput: there is no agent, its files are not as they were written, or its environment is
            not registered.
    """
    from agent.evaluation.evaluate import evaluate as play  # torch takes seconds to import
    from agent.execution import pick_device
    from agent.runs.load import load_agent

    end_if_imported()
    agent, trained, _ = load_agent(run, pick_device(device))
    id = trained.env.id
    remedy = f"import {id.rpartition(':')[0]} first, or give env_id={id!r}"
    check_trusted(trained.env, env_id is not None, remedy)
    settings = replace(trained.final_evaluation, **changes)
    check_values(settings, "evaluation.")
    return play(agent, trained.env, settings, random=random)


def load(run: str | Path, device: str = "auto") -> Agent:
    """The agent of a run (its newest checkpoint) or of a checkpoint's folder, in evaluation mode.

    Raises BadInput if there is none, or its files are not as they were written.
    """
    from agent.execution import pick_device
    from agent.runs.load import load_agent

    return load_agent(run, pick_device(device))[0]


def make_env(
    env: str | Callable[..., gymnasium.Env], *overrides: str, seed: int = 0
) -> gymnasium.Env:
    """An environment as an agent sees it: frames [size, size, C] uint8, actions as choices.

    Args:
        env: as in `train`.
        overrides: "env.key=value" each, as on the command line.
        seed: of its episodes.

    Raises:
        BadInput: an agent cannot play it.
    """
    id = env if isinstance(env, str) else register_env(env)
    return make_single(configure("env=gym", f"env.id='{id}'", *overrides).env, seed)
