"""Everything about a run, typed. The defaults are the published Crafter configuration."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, replace
from typing import Any

from agent.config.agent import AgentConfig
from envs.config import EnvConfig
from envs.errors import BadInput
from envs.settings import (
    COUNT,
    ENVIRONMENTS,
    NATURAL,
    POSITIVE,
    SEED,
    SHARE,
    WEIGHT,
    Range,
    check_choice,
    check_values,
    setting,
)

MODES = ("auto", "eager", "compiled", "captured")
LOGGERS = ("tensorboard", "csv", "wandb")
SEQUENCE = Range(2, 2**31 - 1, "2 or more, below 2^31")


@dataclass
class OptimizerConfig:
    """AdamW.

    Attributes:
        learning_rate: Step size.
        weight_decay: Of the weights of linear layers only.
        max_gradient_norm: To which the gradient of all parameters together is clipped.
    """

    learning_rate: float = setting(1e-4, WEIGHT)
    weight_decay: float = setting(0.01, WEIGHT)
    max_gradient_norm: float = setting(10.0, POSITIVE)


@dataclass
class PartConfig(OptimizerConfig):
    """How one of the three networks is trained.

    Attributes:
        batch: Sequences an update.
        updates: An epoch.
        first_updates: In the first of its epochs.
        first_learning_rate: In the first of its epochs; null: `learning_rate`.
        start_epoch: Its first epoch, counted from 0.
    """

    batch: int = setting(32, COUNT)
    updates: int = setting(500, NATURAL)
    first_updates: int = setting(500, NATURAL)
    first_learning_rate: float | None = setting(None, WEIGHT)
    start_epoch: int = setting(0, NATURAL)

    def updates_in(self, epoch: int) -> int:
        """Updates in an epoch."""
        if epoch < self.start_epoch:
            return 0
        return self.first_updates if epoch == self.start_epoch else self.updates

    def learning_rate_in(self, epoch: int) -> float:
        """Learning rate in an epoch."""
        if epoch == self.start_epoch and self.first_learning_rate is not None:
            return self.first_learning_rate
        return self.learning_rate


@dataclass
class SequencePartConfig(PartConfig):
    """How a network that learns from sequences is trained.

    Attributes:
        steps: Of each sequence; null: as many as the dynamics' context.
    """

    steps: int | None = setting(21, SEQUENCE)


@dataclass
class LearnerConfig:
    """How updates run.

    Attributes:
        mode: eager, compiled, captured (as one CUDA graph), or auto: what suits device and run.
    """

    mode: str = setting("auto", MODES)


@dataclass
class CollectConfig:
    """How the environment is played.

    Attributes:
        num_envs: Environments that play at once.
        epsilon: Share of random actions.
        first_steps: Environment steps in epoch 0, by random actions.
        steps: Environment steps in every later epoch, by the policy.
        epochs: That collect; later ones only learn.
    """

    num_envs: int = setting(16, ENVIRONMENTS)
    epsilon: float = setting(0.01, SHARE)
    first_steps: int = setting(100_000, COUNT)
    steps: int = setting(10_000, COUNT)
    epochs: int = setting(991, COUNT)


@dataclass
class ReplayConfig:
    """What is kept of what was played.

    Attributes:
        capacity: Rows (environment steps) held, over all environments.
        storage: memory, memmap (on disk) or device (in the memory of the device that learns).
        alpha: Exponent of the draw (1 / (1 + times drawn))^alpha; 5 for Crafter, 1 for Atari.
    """

    capacity: int = setting(10_100_000, Range(1, 2**63 - 1, "1 or more"))
    storage: str = setting("memory", ("memory", "memmap", "device"))
    alpha: float = setting(5.0, WEIGHT)


@dataclass
class EvaluationConfig:
    """How a policy is measured.

    Attributes:
        episodes: How many.
        num_envs: Played at once; which episodes they are depends on it.
        temperature: By which logits are divided before an action is sampled; 0: the likeliest.
        seed: Of the environments and of the sampled actions.
        parallel: A process for each environment; null: as `env.parallel`.
        max_steps: Of an episode, which is cut there (the longest game of Atari's protocol).
    """

    episodes: int = setting(64, COUNT)
    num_envs: int = setting(16, ENVIRONMENTS)
    temperature: float = setting(1.0, WEIGHT)
    seed: int = setting(1000, SEED)
    parallel: bool | None = None
    max_steps: int = setting(27_000, COUNT)


@dataclass
class TrainConfig:
    """A run.

    Attributes:
        experiment: Its name.
        run: Its folder; null: runs/<experiment>/<date and time>.
        resume: The folder of a run to go on with.
        sweep: With --multirun, the folder above <experiment>/<what is varied> of each run.
        seed: Of everything random.
        device: auto (CUDA where there is one), cpu, cuda, cuda:1, …
        precision: bf16 (autocast), fp32, or auto: bf16 where the hardware has it.
        learner: How updates run.
        epochs: Of the whole run.
        env: The environment.
        collect: How it is played.
        replay: What is kept.
        agent: The networks.
        tokenizer: How the tokenizer is trained.
        dynamics: How the dynamics is trained.
        policy: How the policy is trained.
        evaluation: How the policy is measured.
        evaluate_every: Epochs.
        final_episodes: Of the evaluation after the last epoch; null: evaluation.episodes.
        checkpoint_every: Epochs.
        keep: Checkpoints that stay, besides the best.
        damaged: Where the newest checkpoint is damaged, stop or resume from the previous whole one.
        logger: One of tensorboard, csv, wandb, or a list of them.
        deterministic: Whether two runs of a seed are equal to the bit; slower on a GPU.
    """

    experiment: str = "crafter"
    run: str | None = None
    resume: str | None = None
    sweep: str = "runs"
    seed: int = setting(0, SEED)
    device: str = "auto"
    precision: str = setting("auto", ("auto", "bf16", "fp32"))
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    epochs: int = setting(1000, COUNT)
    env: EnvConfig = field(default_factory=EnvConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    replay: ReplayConfig = field(default_factory=lambda: ReplayConfig(storage="memmap"))
    agent: AgentConfig = field(default_factory=AgentConfig)
    tokenizer: SequencePartConfig = field(
        default_factory=lambda: SequencePartConfig(first_updates=5000)
    )
    dynamics: SequencePartConfig = field(
        default_factory=lambda: SequencePartConfig(first_updates=2500, steps=None)
    )
    policy: PartConfig = field(default_factory=lambda: PartConfig(batch=86, weight_decay=0.0))
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    evaluate_every: int = setting(50, COUNT)
    final_episodes: int | None = setting(None, COUNT)
    checkpoint_every: int = setting(1, COUNT)
    keep: int = setting(2, COUNT)
    damaged: str = setting("stop", ("stop", "previous"))
    logger: Any = field(default_factory=lambda: ["tensorboard", "csv"])
    deterministic: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.logger, str):
            self.logger = [self.logger]

    @property
    def final_evaluation(self) -> EvaluationConfig:
        """That of the finished agent."""
        return replace(self.evaluation, episodes=self.final_episodes or self.evaluation.episodes)

    def sequence_steps(self, part: str) -> int:
        """Steps of the sequences that a part learns from; the policy's are the burn-in."""
        if part == "policy":
            return self.agent.actor_critic.burn_in
        own: SequencePartConfig = getattr(self, part)
        return own.steps or self.agent.dynamics.context

    def check(self) -> None:
        """Raises BadInput if a value is out of its range, or two do not fit together."""
        check_values(self)
        self.agent.check()
        for logger in self.logger or [None]:
            check_choice("logger", logger, LOGGERS)
        if "wandb" in self.logger and importlib.util.find_spec("wandb") is None:
            raise BadInput("logger=wandb needs Weights & Biases; run pip install -e '.[wandb]'.")
        if self.env.timeout != EnvConfig.timeout and not (
            self.env.parallel or self.evaluation.parallel
        ):
            raise BadInput(
                f"env.timeout={self.env.timeout:g} works in a process of its own only; give "
                "env.parallel=true, or leave it out."
            )
        envs = self.collect.num_envs
        if self.collect.first_steps < 2 * envs:
            raise BadInput(
                f"collect.first_steps={self.collect.first_steps} leaves nothing to learn from with "
                f"collect.num_envs={envs}; give {2 * envs} or more."
            )
        context, steps = self.agent.dynamics.context, self.sequence_steps("dynamics")
        burn_in, horizon = self.agent.actor_critic.burn_in, self.agent.actor_critic.horizon
        if not min(context, burn_in - 1 + horizon) <= steps <= context:
            raise BadInput(
                f"dynamics.steps={steps} has to be at most agent.dynamics.context={context}, and "
                f"at least what imagination takes of it, agent.actor_critic.burn_in={burn_in} − 1 "
                f"+ horizon={horizon}; change it, or leave it out."
            )
        self.agent.tokenizer.check_steps(self.sequence_steps("tokenizer"))
        self.agent.dynamics.check_steps(steps)
