"""A run: checked before anything is written, started or resumed, and reported at its end."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import platform
import random
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from agent import checkpoint, files
from agent.agent import Agent, sketch_agent
from agent.checks import check_config, check_space, pick_device
from agent.cli import argument, trusted
from agent.config import TrainConfig
from agent.execution import Execution, be_deterministic, choose_execution
from agent.files import FOLDERS, disk_full, sentence_of
from agent.learner import NonFinite
from agent.logger import make_logger, plot_curves
from agent.parts import PARTS, count_costs, steps_to_collect, total_flop, total_updates
from agent.saved import check_spaces, config_from_state, differences, load_run, spaces_from_state
from agent.stopping import AGAIN, Pause, stoppable
from agent.trainer import Trainer
from envs.errors import BadInput, EnvironmentFailed, Stopped
from envs.preflight import Trial, try_out
from envs.spaces import Spaces
from envs.vector import EnvConfig, closing, make_single

# What a run writes before its first checkpoint.
WRITTEN = ("README.txt", "config.yaml", "metrics.csv", "curves.png", "wandb_id.txt", *FOLDERS)
ALSO_WRITTEN = ("evaluation_*", "non_finite_*.safetensors", ".writing-*")
TRIAL_STEPS = 32  # of the environment, before anything is written
LOCK = ".lock"  # a file in the folder of a run, locked as long as a process trains there
CLAIM_SECONDS = 3  # environments' processes, which have the lock too, may outlive a run that was killed by a moment


def train(config: TrainConfig, overrides: list[str]) -> Path:
    """Start the run of `config`, or go on with `config.resume`, to its end -> its folder.

    Raises BadInput, NonFinite, EnvironmentFailed, Stopped; when a signal stopped it, and it is saved, KeyboardInterrupt or SystemExit(AGAIN).
    """
    saved = None
    if config.resume is not None:
        saved, config = load_run(config.resume, overrides)
        check_places(saved.run)
    check_config(config)
    device = pick_device(config.device)
    spaces = spaces_of(config.env, config.seed)
    if saved is not None:
        check_spaces(spaces_from_state(saved.state), spaces, config.env.name)
    if config.env.evaluation_kwargs and (other := spaces_of(config.env.for_evaluation(), config.seed)) != spaces:
        raise BadInput(
            f"With env.evaluation_kwargs the environment has {other}, and without {spaces}; "
            "both must be the same: take out what changes them."
        )
    sketch = sketch_agent(config.agent, spaces)
    wanted = saved.run if saved else run_folder(config)
    costs = count_costs(sketch, config)
    execution = choose_execution(config.learner.mode, config.precision, device, total_flop(costs, config))
    # What "auto" came to is the run's from now on: it goes on alike elsewhere, or longer.
    config.learner.mode, config.precision = execution.mode, "bf16" if execution.bf16 else "fp32"
    # Under bf16 half of it, or somewhat more.
    activations = max(cost.held for cost in costs.values()) // (2 if execution.bf16 else 1)
    rows = sum(chunk.size for chunk in saved.chunks) if saved else 0
    check_space(config, sketch, activations, spaces, wanted, device, rows)
    trial = try_out(config.env, config.seed, TRIAL_STEPS)

    torch.compiler.reset()  # what an earlier run of a sweep has compiled: Dynamo keeps eight versions, and refuses a ninth
    if config.deterministic:
        be_deterministic()
    random.seed(config.seed)  # this and NumPy's: an environment may draw from them
    np.random.seed(config.seed % 2**32)
    torch.manual_seed(config.seed)
    agent = Agent(config.agent, spaces).eval().to(device)
    missing = [parent for parent in wanted.parents if not parent.exists()]  # which are made with it
    folder = saved.run if saved else make_folder(wanted, unique=config.run is None)
    try:
        with claim(folder):
            run(config, folder, agent, execution, trial, saved)
    finally:
        for parent in missing:
            with contextlib.suppress(OSError):  # it is not empty: the run has left something
                parent.rmdir()
    report(folder, config)
    return folder


def run(
    config: TrainConfig, folder: Path, agent: Agent, execution: Execution, trial: Trial,
    saved: checkpoint.Checkpoint | None,
) -> None:
    """The run itself, in a folder that is its own. Raises NonFinite, EnvironmentFailed, and BadInput if an environment breaks its word."""
    is_new, started = saved is None, False
    try:
        trainer = Trainer(config, folder, agent, execution)
    except (BadInput, EnvironmentFailed):  # of an environment's first reset
        if is_new:
            clear(folder)
        raise
    try:
        with stoppable() as stop, closing(trainer.envs):
            if saved is not None:
                trainer.load(saved)  # verifies all of it; only then is anything written
                if (newest := checkpoint.newest(folder)) != saved.folder:
                    print(f"Going on from {saved.folder}: what the run did after it, up to {newest}, is given up.")
                    give_up(folder, saved.epoch)
                for key, before, now in differences(config_from_state(saved.state), config):
                    print(f"changed: {key} was {before} and is {now} from now on")
            del saved
            parameters = ", ".join(f"{name} {n / 1e6:.2f}M" for name, n in agent.num_parameters().items())
            print(f"{config.experiment} on {config.env.name}: {parameters}\nrun folder: {folder}")
            print("\n".join([f"frames: {trial.frames_text}", f"actions: {trial.actions_text}", *trial.doubts()]))
            print(schedule(config))
            print(f"{agent.device}, {execution.mode}, {config.precision}: ", end="", flush=True)  # compiling may take minutes
            print(trainer.forecast(), flush=True)
            describe(folder, config)
            trainer.logger = make_logger(
                config.logger, folder, dataclasses.asdict(config), trainer.epoch, trainer.replay.steps_added
            )
            started = stop.patient = True
            trainer.run(stop)
    except NonFinite as error:
        raise NonFinite(f"Stopped in epoch {trainer.epoch}: {error}; {last_checkpoint(folder, config)}.") from error
    except EnvironmentFailed as error:
        raise EnvironmentFailed(error.what, f"{error.remedy}; {last_checkpoint(folder, config)}", error.trace) from error
    except BadInput as error:
        if started and checkpoint.newest(folder) is not None:
            raise BadInput(f"{str(error).removesuffix('.')}; {last_checkpoint(folder, config)}.") from error
        if is_new:
            clear(folder)
        raise
    except (KeyboardInterrupt, Pause) as end:
        how = "Saved and stopped" if isinstance(end, Pause) else "Interrupted"
        print(f"{how} in epoch {trainer.epoch}; {last_checkpoint(folder, config)}.", file=sys.stderr)
        raise (KeyboardInterrupt if stop.asked == signal.SIGINT else SystemExit(AGAIN)) from end
    except Exception as error:  # an environment's own, say
        if (full := disk_full(error)) is not None:
            raise Stopped(f"Stopped in epoch {trainer.epoch}: {sentence_of(full)}; free some space: {last_checkpoint(folder, config)}.") from error
        print(f"Stopped in epoch {trainer.epoch}; {last_checkpoint(folder, config)}.", file=sys.stderr)
        raise
    finally:
        with contextlib.suppress(OSError):  # a full disk, which has been told of; or nothing was written, and nothing is left
            trainer.logger.close()
            (folder / "replay").rmdir()


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Nobody else trains in the folder meanwhile; claims of one process may be nested.

    Raises BadInput if another process does.
    """
    lock = FileLock(folder / LOCK, is_singleton=True)
    try:
        lock.acquire(timeout=CLAIM_SECONDS)
    except Timeout as error:
        # Where a file system has no locks, a file stands for one, and outlives a machine that is gone.
        gone = f"; if process {pid} is no more, nor its machine, take {folder / LOCK} away" if (pid := getattr(lock, "pid", None)) else ""
        raise BadInput(
            f"In {folder} another process trains already; let it finish or stop it, or choose another folder{gone}."
        ) from error
    except (OSError, NotImplementedError) as error:  # a folder of that name, say, or a file system that is read only
        what = getattr(error, "strerror", None) or error
        raise BadInput(f"{folder / LOCK} cannot be locked ({what}); take away what lies there, or go on in a copy that can be written to.") from error
    try:
        yield
    finally:
        lock.release()
        if not lock.is_locked and not contents(folder):
            shutil.rmtree(folder)


def contents(folder: Path) -> list[Path]:
    """What lies in a folder besides its lock."""
    return [path for path in folder.iterdir() if path.name != LOCK]


def clear(folder: Path) -> None:
    """Takes away what a run wrote that learned nothing."""
    for leftover in [*(folder / name for name in WRITTEN), *(path for pattern in ALSO_WRITTEN for path in folder.glob(pattern))]:
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def give_up(folder: Path, epoch: int) -> None:
    """Takes away evaluations and films of later epochs, which are not of the run that goes on from there."""
    for path in [*folder.glob("evaluation_*"), *(folder / "films").glob("*")]:
        found = re.search(r"epoch_(\d+)", path.name)
        if found and int(found[1]) > epoch and not path.is_dir():
            path.unlink()


def check_places(folder: Path) -> None:
    """Raises BadInput if something else lies where a run that goes on will write."""
    for path in (folder / name for name in WRITTEN):
        if path.exists() and path.is_dir() != (path.name in FOLDERS):
            kind = "folder" if path.name in FOLDERS else "file"
            raise BadInput(f"{path} is no {kind}; take it away, or put back what was there.")


def spaces_of(env_config: EnvConfig, seed: int) -> Spaces:
    """What the agent sees and does there. Raises BadInput if it cannot play it."""
    env = make_single(env_config, seed)
    env.close()
    return Spaces.of(env)


def run_folder(config: TrainConfig) -> Path:
    """Where a new run shall lie. Raises BadInput if something else lies there."""
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = Path(config.run) if config.run else Path("runs") / config.experiment / now
    if config.run and folder.exists() and (not folder.is_dir() or contents(folder)):
        resume = f", or go on with {argument('resume', folder)}" if checkpoint.newest(folder) is not None else ""
        raise BadInput(f"run={folder} exists already; choose another folder{resume}.")
    return folder


def make_folder(wanted: Path, unique: bool) -> Path:
    """Makes the folder; if it must be `unique` and another run was quicker, the next of <wanted>-2, <wanted>-3, …"""
    names = itertools.chain([wanted.name], (f"{wanted.name}-{i}" for i in itertools.count(2)))
    for folder in map(wanted.with_name, names):
        try:
            folder.mkdir(parents=True, exist_ok=not unique)
            return folder
        except FileExistsError as error:
            if not unique or not folder.is_dir():
                message = f"{folder} cannot be made: something else lies there; choose another run=<folder>."
                raise BadInput(message) from error
        except OSError as error:
            raise BadInput(f"{folder} cannot be made ({error.strerror}); choose another run=<folder>.") from error
    raise AssertionError


def describe(folder: Path, config: TrainConfig) -> None:
    """What a person who finds the folder wants to know."""
    files.write(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.structured(config)).encode())
    packages = ["deltadream", "torch", "numpy", "gymnasium", "crafter", "ale-py", "tensordict", "torchrl"]
    lines = [
        f"A run of deltadream, experiment={config.experiment}, seed={config.seed}.",
        "config.yaml: every setting. metrics.csv, curves.png, tensorboard/: its curves. films/: episodes and",
        "dreams. evaluation_….json: episodes of the finished agent, return by return, and their protocol.",
        "checkpoints/: networks, optimizers, random states; replay/: the steps that were played.",
        " ".join(["Go on:    python scripts/train.py resume=<this folder>", *trusted(config.env.id)]),
        " ".join(["Evaluate: python scripts/evaluate.py run=<this folder>", *trusted(config.env.id)]),
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in packages),
        "Command: " + shlex.join(sys.argv),
        "",
    ]
    files.write(folder / "README.txt", "\n".join(lines).encode())


def schedule(config: TrainConfig) -> str:
    """What the run will do, in two lines."""
    ac = config.agent.actor_critic
    entropy = f"{ac.entropy_weight}" + (f" (halved every {ac.entropy_half_life:,} updates)" if ac.entropy_half_life else "")
    updates = ", ".join(f"{part} {total_updates(config, part):,}" for part in PARTS)
    return (
        f"schedule: {config.epochs} epoch{'s' * (config.epochs != 1)}, {steps_to_collect(config):,} steps of {config.collect.num_envs} environments; updates: {updates}\n"
        f"learning: horizon {ac.horizon}, burn-in {ac.burn_in}, γ {ac.discount}, λ {ac.lambda_}, entropy {entropy}, "
        f"context {config.agent.dynamics.context}"
    )


def last_checkpoint(folder: Path, config: TrainConfig) -> str:
    """What is left of a run that stopped."""
    last = checkpoint.newest(folder)
    if last is None:
        return "no checkpoint had been written"
    return f"the last good checkpoint is {last} (go on with {' '.join([argument('resume', folder), *trusted(config.env.id)])})"


def report(folder: Path, config: TrainConfig) -> None:
    """The last words of a run."""
    print(f"checkpoint: {checkpoint.newest(folder)}")
    if "csv" in config.logger:
        print(f"curves:     {plot_curves(folder)}")
    print(f"dream:      {max((folder / 'films').glob('*_dream.mp4'))}")
    if config.env.id.startswith("python/"):  # another process does not know it
        print(f"evaluate:   agent.evaluate({str(folder)!r})")
    else:
        print(f"evaluate:   {' '.join(['python scripts/evaluate.py', argument('run', folder), *trusted(config.env.id)])}")
