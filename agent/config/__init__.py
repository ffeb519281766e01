"""What can be set: dataclasses, their ranges, and how a configuration is put together.

Nothing here imports torch, so that a wrong value is refused at once.
"""

from agent.config.agent import KINDS, ActorCriticConfig, AgentConfig
from agent.config.training import (
    CollectConfig,
    EvaluationConfig,
    LearnerConfig,
    OptimizerConfig,
    PartConfig,
    ReplayConfig,
    SequencePartConfig,
    TrainConfig,
)

__all__ = [
    "KINDS",
    "ActorCriticConfig",
    "AgentConfig",
    "CollectConfig",
    "EvaluationConfig",
    "LearnerConfig",
    "OptimizerConfig",
    "PartConfig",
    "ReplayConfig",
    "SequencePartConfig",
    "TrainConfig",
]
