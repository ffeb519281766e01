"""What an agent is made of, and how it learns in imagination."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.config.policies import (
    CnnLstmPolicyConfig,
    CodeLstmPolicyConfig,
    PolicyConfig,
    VitPolicyConfig,
)
from agent.config.quantizers import CosineEmaConfig, FsqConfig, VqConfig, VqEmaConfig
from agent.config.tokenizers import (
    DeltaLightTokenizerConfig,
    DeltaTokenizerConfig,
    FrameTokenizerConfig,
    TokenizerConfig,
)
from agent.config.world_models import (
    DeltaDynamicsConfig,
    DeltaLightDynamicsConfig,
    DynamicsConfig,
    FrameDynamicsConfig,
)
from envs.errors import BadInput
from envs.settings import COUNT, SHARE, WEIGHT, setting

# Part of an agent -> kind -> its configuration.
KINDS: dict[str, dict[str, type]] = {
    part: {config.kind: config for config in configs}
    for part, configs in {
        "tokenizer": (DeltaTokenizerConfig, DeltaLightTokenizerConfig, FrameTokenizerConfig),
        "tokenizer.quantizer": (CosineEmaConfig, VqConfig, VqEmaConfig, FsqConfig),
        "dynamics": (DeltaDynamicsConfig, DeltaLightDynamicsConfig, FrameDynamicsConfig),
        "policy": (CnnLstmPolicyConfig, CodeLstmPolicyConfig, VitPolicyConfig),
    }.items()
}


@dataclass
class ActorCriticConfig:
    """How actor and critic learn; the defaults are those of Δ-IRIS on Crafter.

    Attributes:
        burn_in: Past frames that policy and world see, the start of imagination among them.
        horizon: Imagined steps.
        discount: γ.
        lambda_: λ of the λ-returns.
        entropy_weight: Of the entropy bonus.
        entropy_half_life: Updates in which that weight halves; null, as published: it stays.
        target_decay: Of the target network's moving average.
        center: Center advantages, and divide by their deviation above 1. Not published.
    """

    burn_in: int = setting(5, COUNT)
    horizon: int = setting(15, COUNT)
    discount: float = setting(0.997, SHARE)
    lambda_: float = setting(0.95, SHARE)
    entropy_weight: float = setting(0.001, WEIGHT)
    entropy_half_life: int | None = setting(None, COUNT)
    target_decay: float = setting(0.995, SHARE)
    center: bool = False


@dataclass
class AgentConfig:
    """The parts of an agent; the defaults are those of Δ-IRIS.

    Attributes:
        tokenizer: Frames to tokens and back.
        dynamics: Predicts tokens, reward and end.
        policy: Actor and critic.
        actor_critic: How they learn.
    """

    tokenizer: TokenizerConfig = field(default_factory=DeltaTokenizerConfig)
    dynamics: DynamicsConfig = field(default_factory=DeltaDynamicsConfig)
    policy: PolicyConfig = field(default_factory=CnnLstmPolicyConfig)
    actor_critic: ActorCriticConfig = field(default_factory=ActorCriticConfig)

    def check(self) -> None:
        """Raises BadInput if the parts do not fit together."""
        if (self.tokenizer.kind == "frame") != (self.dynamics.kind == "frame"):
            raise BadInput(
                f"agent/tokenizer={self.tokenizer.kind} and agent/dynamics={self.dynamics.kind} "
                "were given; choose the same for both."
            )
        burn_in, horizon = self.actor_critic.burn_in, self.actor_critic.horizon
        needed = self.dynamics.steps_needed(burn_in, horizon)
        if needed > self.dynamics.context:
            raise BadInput(
                f"burn_in={burn_in} and horizon={horizon} need a context of {needed} steps and "
                f"agent.dynamics.context is {self.dynamics.context}; lengthen it or shorten them."
            )
