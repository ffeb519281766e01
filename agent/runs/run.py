"""A run: made, started or resumed, and reported at its end."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from agent.agent import Agent, sketch_agent
from agent.config import TrainConfig
from agent.execution import Execution, be_deterministic, choose_execution, pick_device
from agent.media.curves import plot_curves
from agent.runs.checks import check_space
from agent.runs.cli import argument
from agent.runs.folder import abandon, claim, describe, last_checkpoint, proposed
from agent.runs.results import WriteResult
from agent.runs.resume import config_from_state, differences, unread_config
from agent.signals import AGAIN, Pause, Stop, stoppable
from agent.storage import checkpoint
from agent.storage.files import disk_full, sentence_of
from agent.training import saving
from agent.training.callbacks import Best, Callback, Films, HealthWarnings, Logging
from agent.training.components import PARTS, steps_to_collect, total_updates
from agent.training.costs import count_costs, forecast, total_flop
from agent.training.learner import NonFinite
from agent.training.logger import make_loggers
from agent.training.trainer import Trainer
from envs.errors import BadInput, EnvironmentFailed, Stopped
from envs.spaces import Spaces
from envs.trial import Trial
from envs.vector import closing


def start(
    config: TrainConfig,
    folder: Path,
    spaces: Spaces,
    trial: Trial,
    saved: checkpoint.Checkpoint | None,
    callbacks: Iterable[Callback],
) -> Path:
    """The run of `agent.runs.train.train`, once what needs no network is checked.

    Args:
        config: of the run.
        folder: new, or that of the run to go on with.
        spaces: of the environment.
        trial: of the environment.
        saved: a checkpoint of the run to go on with.
        callbacks: besides the run's own.
    """
    device = pick_device(config.device)
    sketch = sketch_agent(config.agent, spaces)
    costs = count_costs(sketch, config)
    execution = choose_execution(
        config.learner.mode, config.precision, device, total_flop(costs, config)
    )
    # What "auto" came to is the run's from now on: it goes on alike elsewhere, or longer.
    config.learner.mode, config.precision = execution.mode, "bf16" if execution.bf16 else "fp32"
    # Under bf16 half of it, or somewhat more.
    activations = max(cost.held for cost in costs.values()) // (2 if execution.bf16 else 1)
    rows = sum(chunk.size for chunk in saved.chunks) if saved else 0
    check_space(config, sketch, activations, spaces, folder, device, rows)

    torch.compiler.reset()  # Dynamo keeps eight versions of a function, over the runs of a sweep
    if config.deterministic:
        be_deterministic()
    random.seed(config.seed)  # an environment may draw from this and NumPy's
    np.random.seed(config.seed % 2**32)
    torch.manual_seed(config.seed)
    agent = Agent(config.agent, spaces).eval().to(device)
    own = [WriteResult(), Best(), HealthWarnings()]
    with claim(folder):
        trainer = Trainer(config, folder, agent, execution, own)
        with stoppable() as stop, ending(trainer, stop), closing(trainer.envs):
            if saved is not None:
                go_on(trainer, saved)
            del saved
            announce(trainer, trial, execution)
            describe(folder, config)
            steps = trainer.replay.steps_added
            settings = dataclasses.asdict(config)
            loggers = make_loggers(config.logger, folder, settings, trainer.epoch, steps)
            trainer.callbacks += [Logging(loggers), Films(loggers), *callbacks]
            stop.patient = True
            trainer.run(stop)
        report(folder, config)
    return folder


@contextlib.contextmanager
def ending(trainer: Trainer, stop: Stop) -> Iterator[None]:
    """However the run ends, say what is left of it."""

    def last() -> str:
        return last_checkpoint(trainer.folder, trainer.config)

    try:
        yield
    except NonFinite as error:
        raise NonFinite(f"Stopped in epoch {trainer.epoch}: {error}; {last()}.") from error
    except EnvironmentFailed as error:
        raise EnvironmentFailed(error.what, f"{error.remedy}; {last()}", error.trace) from error
    except BadInput as error:
        if not stop.patient:  # nothing was learned
            raise
        raise BadInput(f"{str(error).removesuffix('.')}; {last()}.") from error
    except (KeyboardInterrupt, Pause) as end:
        how = "Saved and stopped" if isinstance(end, Pause) else "Interrupted"
        print(f"{how} in epoch {trainer.epoch}; {last()}.", file=sys.stderr)
        raise (KeyboardInterrupt if stop.asked == signal.SIGINT else SystemExit(AGAIN)) from end
    except Exception as error:  # an environment's own, say
        if (full := disk_full(error)) is None:
            print(f"Stopped in epoch {trainer.epoch}; {last()}.", file=sys.stderr)
            raise
        what = f"Stopped in epoch {trainer.epoch}: {sentence_of(full)}; free some space: {last()}."
        raise Stopped(what) from error


def go_on(trainer: Trainer, saved: checkpoint.Checkpoint) -> None:
    """Bring the trainer to where the checkpoint stands, and say what changes."""
    saving.load(trainer, saved)
    if (newest := checkpoint.newest(trainer.folder)) != saved.folder:
        print(
            f"Going on from {saved.folder}: what the run did after it, up to {newest}, is given up."
        )
        abandon(trainer.folder, saved.epoch)
    own = config_from_state(saved.state)
    if unread := unread_config(trainer.folder, own, trainer.config):
        print(unread)
    for key, before, now in differences(own, trainer.config):
        print(f"changed: {key} was {before} and is {now} from now on")


def announce(trainer: Trainer, trial: Trial, execution: Execution) -> None:
    """Say what the run is, and how long it will take."""
    config, agent = trainer.config, trainer.agent
    sizes = ", ".join(f"{name} {n / 1e6:.2f}M" for name, n in agent.num_parameters().items())
    print(f"{config.experiment} on {config.env.name}: {sizes}")
    print(f"run folder: {trainer.folder}")
    print(f"frames: {trial.frames_text}")
    print(f"actions: {trial.actions_text}")
    for mistake in trial.mistakes():
        print(mistake)
    ac, num_envs = config.agent.actor_critic, config.collect.num_envs
    updates = ", ".join(f"{part} {total_updates(config, part):,}" for part in PARTS)
    print(
        f"schedule: {config.epochs} epochs, {steps_to_collect(config):,} steps in {num_envs} "
        f"environments; updates: {updates}"
    )
    half_life = f" (halved every {ac.entropy_half_life:,} updates)" if ac.entropy_half_life else ""
    print(
        f"learning: horizon {ac.horizon}, burn-in {ac.burn_in}, γ {ac.discount}, λ {ac.lambda_}, "
        f"entropy {ac.entropy_weight}{half_life}, context {config.agent.dynamics.context}"
    )
    # Compiling may take minutes.
    print(f"{agent.device}, {execution.mode}, {config.precision}: ", end="", flush=True)
    print(forecast(agent, config, trainer.learners, trainer.epoch), flush=True)


def report(folder: Path, config: TrainConfig) -> None:
    """The last words of a run."""
    print(f"checkpoint: {checkpoint.newest(folder)}")
    if "csv" in config.logger:
        print(f"curves:     {plot_curves(folder)}")
    if dreams := list((folder / "films").glob("*_dream.mp4")):
        print(f"dream:      {max(dreams)}")
    command = f"python scripts/evaluate.py {argument('run', folder)}"
    print(f"evaluate:   {proposed(config, command, f'deltadream.evaluate({str(folder)!r})')}")
