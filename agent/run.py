"""A run: checked before anything is written, started or resumed, and reported at its end."""

from __future__ import annotations

import datetime
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from omegaconf import OmegaConf

from agent import checkpoint
from agent.agent import Agent
from agent.cli import as_dict, config_from_state, pick_device, resumed_config
from agent.learner import NonFinite
from agent.logger import KINDS, make_logger, plot_curves
from agent.replay import Replay
from agent.trainer import TrainConfig, Trainer
from envs.errors import BadInput
from envs.vector import make_single

LEAST = {
    "epochs": 1, "evaluate_every": 1, "checkpoint_every": 1, "keep": 1, "seed": 0,
    "collect.num_envs": 1, "collect.epochs": 1, "collect.steps": 1,
    "tokenizer.batch": 1, "tokenizer.steps": 2, "tokenizer.updates": 0, "tokenizer.first_updates": 0,
    "dynamics.batch": 1, "dynamics.steps": 2, "dynamics.updates": 0, "dynamics.first_updates": 0,
    "policy.batch": 1, "policy.updates": 0, "policy.first_updates": 0,
    "evaluation.episodes": 1, "evaluation.num_envs": 1,
}  # fmt: skip


def check_sizes(config: TrainConfig) -> None:
    """Raises BadInput if numbers are out of range or do not fit together."""
    for key, least in LEAST.items():
        value = OmegaConf.select(OmegaConf.structured(config), key)
        if value < least:
            raise BadInput(f"{key}={value} was given; give {least} or more.")
    if config.collect.first_steps < 2 * config.collect.num_envs:
        raise BadInput(
            f"collect.first_steps={config.collect.first_steps} leaves nothing to learn from with "
            f"collect.num_envs={config.collect.num_envs}; give {2 * config.collect.num_envs} or more."
        )
    steps, context = config.dynamics.steps, config.agent.dynamics.context
    if steps > context:
        raise BadInput(f"dynamics.steps={steps} is more than agent.dynamics.context={context}; give at most the context.")
    if config.agent.actor_critic.burn_in > steps:
        raise BadInput(
            f"agent.actor_critic.burn_in={config.agent.actor_critic.burn_in} is more than the segment that the "
            f"dynamics learns from, dynamics.steps={steps}; give at most that."
        )
    if unknown := set(config.logger) - set(KINDS):
        raise BadInput(f"logger={sorted(unknown)} is not known; choose from {', '.join(KINDS)}.")


def environment_sizes(config: TrainConfig) -> tuple[int, int]:
    """(number of actions, height and width of the frames). Raises BadInput if the agent cannot play it."""
    env = make_single(config.env, config.seed)
    height, width, _ = env.observation_space.shape
    env.close()
    if height != width:
        raise BadInput(f"{config.env.id} shows frames of {height}×{width}; square ones are accepted: resize them.")
    return int(env.action_space.n), height


def make_agent(config: TrainConfig, device: torch.device) -> Agent:
    """A new agent for the configuration's environment, its weights drawn from the seed."""
    num_actions, image_size = environment_sizes(config)
    with torch.device("meta"):  # refuses sizes that do not fit before anything is allocated
        Agent(config.agent, num_actions, image_size)
    torch.manual_seed(config.seed)
    return Agent(config.agent, num_actions, image_size).eval().to(device)


def train(config: TrainConfig, overrides: list[str]) -> None:
    """Start the run of `config`, or go on with `config.resume`, to its end. Raises BadInput, NonFinite."""
    saved = None
    if config.resume is not None:
        saved = checkpoint.load(Path(config.resume))
        config = resumed_config(config_from_state(saved.state), overrides)
    check_sizes(config)
    agent = make_agent(config, pick_device(config.device))
    if saved is not None:
        folder = saved.run
        if saved.epoch >= config.epochs:
            raise BadInput(f"{folder} has all its {saved.epoch} epochs; give epochs={2 * saved.epoch} to train on.")
    else:
        folder = new_folder(config)
    nearest = next(parent for parent in folder.resolve().parents if parent.exists())
    frame_shape = (3, agent.image_size, agent.image_size)
    Replay.check_fits(config.replay, config.collect.num_envs, frame_shape, nearest)

    parameters = ", ".join(f"{name} {n / 1e6:.2f}M" for name, n in agent.num_parameters().items())
    print(f"{config.experiment} on {config.env.id}, {agent.device}: {parameters}\nrun folder: {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    describe(folder, config)
    epoch, step = (saved.epoch, saved.state["replay"]["steps_added"]) if saved else (0, 0)
    logger = make_logger(config.logger, folder, as_dict(config), resume_epoch=epoch, resume_step=step)
    trainer = Trainer(config, folder, agent, logger)
    try:
        if saved is not None:
            trainer.load(saved)
        del saved
        trainer.run()
    except NonFinite as error:
        last = checkpoint.newest(folder)
        kept = f"the last good checkpoint is {last}" if last else "no checkpoint had been written yet"
        raise NonFinite(f"Stopped in epoch {trainer.epoch}: {error}; {kept}.") from error
    finally:
        trainer.close()
    report(folder, config)


def new_folder(config: TrainConfig) -> Path:
    """The folder of a new run. Raises BadInput if it is taken."""
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = Path(config.run) if config.run else Path("runs") / config.experiment / now
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"run={folder} exists already; choose another folder, or go on with resume={folder}.")
    return folder


def describe(folder: Path, config: TrainConfig) -> None:
    """What a person who finds the folder wants to know."""
    OmegaConf.save(OmegaConf.structured(config), folder / "config.yaml")
    packages = ["deltadream", "torch", "numpy", "gymnasium", "crafter", "ale-py", "tensordict", "torchrl"]
    lines = [
        f"A run of deltadream, experiment={config.experiment}, seed={config.seed}.",
        "config.yaml: every setting. metrics.csv, curves.png, tensorboard/: its curves. films/: episodes and",
        "dreams. checkpoints/: networks, optimizers, random states; replay/: the steps that were played.",
        "Go on:    python scripts/train.py resume=<this folder>",
        "Evaluate: python scripts/evaluate.py run=<this folder>",
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in packages),
        "Command: " + " ".join(sys.argv),
        "",
    ]
    (folder / "README.txt").write_text("\n".join(lines))


def report(folder: Path, config: TrainConfig) -> None:
    """The last words of a run."""
    print(f"checkpoint: {checkpoint.newest(folder)}")
    if "csv" in config.logger:
        print(f"curves:     {plot_curves(folder)}")
    print(f"dream:      {max((folder / 'films').glob('*_dream.mp4'))}")
    print(f"evaluate:   python scripts/evaluate.py run={folder}")
