"""A run from its first check to its last word. What needs no network is checked without torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config import TrainConfig
from agent.runs.folder import wanted_folder
from agent.runs.resume import check_spaces, load_run, spaces_from_state
from envs.make import spaces_of
from envs.trial import try_out
from envs.workers import end_if_imported

if TYPE_CHECKING:
    from agent.training.callbacks import Callback

TRIAL_STEPS = 32  # of the environment, before anything is written


def train(config: TrainConfig, overrides: list[str], callbacks: Iterable[Callback] = ()) -> Path:
    """Start the run of a configuration, or go on with `config.resume`, to its end.

    Args:
        config: of the run.
        overrides: of the command line, which a resumed run takes.
        callbacks: that watch the run, besides its own.

    Returns:
        The run's folder.

    Raises:
        BadInput: something cannot work; nothing was written.
        NonFinite: a loss is not finite.
        EnvironmentFailed: the environment fails.
        Stopped: the disk is full.
        KeyboardInterrupt, SystemExit: a signal stopped the run, which is saved.
    """
    end_if_imported()
    saved = None
    if config.resume is not None:
        saved, config = load_run(config.resume, overrides)
    config.check()
    trial = try_out(config.env, config.seed, TRIAL_STEPS)
    spaces = trial.spaces
    if saved is not None:
        check_spaces(spaces_from_state(saved.state), spaces, config.env.name)
    if config.env.evaluation_kwargs:
        evaluated = spaces_of(config.env.for_evaluation(), config.seed)
        check_spaces(spaces, evaluated, f"{config.env.name} with env.evaluation_kwargs")
    wanted = saved.run if saved else wanted_folder(config)
    from agent.runs.run import start  # torch takes seconds to import

    return start(config, wanted, spaces, trial, saved, callbacks)
