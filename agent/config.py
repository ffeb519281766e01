"""Everything about a run, typed. The defaults are the published Crafter configuration."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from agent.agent import KINDS, AgentConfig
from agent.evaluation import EvaluationConfig
from agent.execution import PRECISIONS
from agent.learner import LearnerConfig, OptimizerConfig
from agent.replay import ReplayConfig
from envs.errors import BadInput
from envs.vector import EnvConfig


DAMAGED = ("stop", "previous")


@dataclass
class PartConfig(OptimizerConfig):
    """How one of the three networks is trained.

    batch:         sequences an update
    updates:       an epoch
    first_updates: in the first of its epochs
    first_learning_rate: in the first of its epochs; null: `learning_rate`, as in all others
    start_epoch:   its first epoch, counted from 0
    """

    batch: int = 32
    updates: int = 500
    first_updates: int = 500
    first_learning_rate: float | None = None
    start_epoch: int = 0

    def updates_in(self, epoch: int) -> int:
        if epoch < self.start_epoch:
            return 0
        return self.first_updates if epoch == self.start_epoch else self.updates

    def learning_rate_in(self, epoch: int) -> float:
        first = epoch == self.start_epoch and self.first_learning_rate is not None
        return self.first_learning_rate if first else self.learning_rate


@dataclass
class SequencePartConfig(PartConfig):
    """steps: of each sequence"""

    steps: int = 21


@dataclass
class DynamicsPartConfig(PartConfig):
    """steps: of each sequence; null: as many as the dynamics' context"""

    steps: int | None = None


@dataclass
class CollectConfig:
    """num_envs:   environments that play at once
    epsilon:     share of random actions
    first_steps: environment steps in epoch 0, by random actions
    steps:       in every later epoch, by the policy
    epochs:      that collect; the ones after them only learn
    """

    num_envs: int = 16
    epsilon: float = 0.01
    first_steps: int = 100_000
    steps: int = 10_000
    epochs: int = 991


@dataclass
class TrainConfig:
    """experiment:       its name
    run:              its folder; null: runs/<experiment>/<date and time>
    resume:           the folder of a run to go on with
    sweep:            with --multirun, the folder above <experiment>/<what is varied>, where each run lies
    device:           "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", …
    precision:        "bf16" (autocast), "fp32", or "auto": bf16 where the hardware has it
    evaluate_every:   epochs
    final_episodes:   of the evaluation after the last epoch; null: evaluation.episodes
    checkpoint_every: epochs
    keep:             checkpoints that stay, besides the best
    damaged:          what resuming does if the newest checkpoint is damaged: "stop", or go on from the "previous" whole one
    logger:           one of tensorboard, csv, wandb, or a list of them
    deterministic:    whether two runs of a seed are equal to the bit on the same machine; some operations are slower on a GPU
    """

    experiment: str = "crafter"
    run: str | None = None
    resume: str | None = None
    sweep: str = "runs"
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    epochs: int = 1000
    env: EnvConfig = field(default_factory=EnvConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    replay: ReplayConfig = field(default_factory=lambda: ReplayConfig(capacity=10_100_000, storage="memmap"))
    agent: AgentConfig = field(default_factory=AgentConfig)
    tokenizer: SequencePartConfig = field(default_factory=lambda: SequencePartConfig(first_updates=5000))
    dynamics: DynamicsPartConfig = field(default_factory=lambda: DynamicsPartConfig(first_updates=2500))
    policy: PartConfig = field(default_factory=lambda: PartConfig(batch=86, weight_decay=0.0))
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    evaluate_every: int = 50
    final_episodes: int | None = None
    checkpoint_every: int = 1
    keep: int = 2
    damaged: str = "stop"
    logger: Any = field(default_factory=lambda: ["tensorboard", "csv"])
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise BadInput(f"precision={self.precision} is not known; choose one of {', '.join(PRECISIONS)}.")
        if self.damaged not in DAMAGED:
            raise BadInput(f"damaged={self.damaged} is not known; choose one of {', '.join(DAMAGED)}.")
        if isinstance(self.logger, str):
            self.logger = [self.logger]

    @property
    def final_evaluation(self) -> EvaluationConfig:
        """That of the finished agent."""
        return replace(self.evaluation, episodes=self.final_episodes or self.evaluation.episodes)


def merged(schema: type, values: dict[str, Any]) -> DictConfig:
    """`schema` with these values. An agent's parts are of the classes that their `kind` names.

    Raises BadInput for a kind that there is not, and OmegaConf's errors for keys and types.
    """
    config, given = OmegaConf.structured(schema), OmegaConf.create(values)
    for part, kinds in KINDS.items():
        kind = OmegaConf.select(given, f"agent.{part}.kind")
        if kind is not None and str(kind) not in kinds:
            raise BadInput(f"agent.{part}.kind={kind} is not known; choose agent/{part}={'|'.join(kinds)}.")
        if kind is not None:
            config.agent[part] = OmegaConf.structured(kinds[kind])
    return OmegaConf.merge(config, given)


@cache  # to do it again takes tens of milliseconds
def store(name: str, schema: type) -> None:
    """Make a schema known to Hydra, and to one with an agent what each of its parts may be: agent/tokenizer=frame, …"""
    node = OmegaConf.structured(schema)
    if "agent" in node:
        for part, kinds in KINDS.items():
            node.agent[part] = "???"  # what is chosen comes in its place
            for kind, config in kinds.items():
                ConfigStore.instance().store(group=f"agent/{part}", name=kind, node=config)
    ConfigStore.instance().store(name=f"{name}_schema", node=node)
