"""What each kind of dynamics can be set to."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.config.networks import ConvConfig, TransformerConfig
from envs.errors import BadInput
from envs.settings import COUNT, WEIGHT, setting

REWARDS = ("two_hot", "sign")


@dataclass
class DynamicsConfig:
    """What all dynamics have.

    Attributes:
        kind: Which dynamics: delta, delta_light or frame.
        transformer: Its sizes.
        context: Steps that the transformer sees.
        reward: How a reward is coded: two_hot (255 buckets of its symlog) or sign (3 classes).
        tokens_weight: Of the tokens' cross-entropy in the loss.
        reward_weight: Of the reward's.
        end_weight: Of the end's.
    """

    kind: str = ""
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    context: int = setting(21, COUNT)
    reward: str = setting("two_hot", REWARDS)
    tokens_weight: float = setting(1.0, WEIGHT)
    reward_weight: float = setting(1.0, WEIGHT)
    end_weight: float = setting(1.0, WEIGHT)

    def steps_needed(self, burn_in: int, horizon: int) -> int:
        """Steps of the context that an imagination after `burn_in` frames takes."""
        return burn_in - 1 + horizon

    def check_steps(self, steps: int) -> None:
        """Raises BadInput if sequences of this many steps are too short to learn from."""


@dataclass
class DeltaDynamicsConfig(DynamicsConfig):
    """Dynamics over Δ-tokens; the defaults are those of Δ-IRIS on Crafter.

    Attributes:
        i_token: Whether the transformer sees each frame as an I-token (false: an ablation).
        conv: Of the frame encoder that makes the I-token.
    """

    kind: str = "delta"
    i_token: bool = True
    conv: ConvConfig = field(default_factory=lambda: ConvConfig(base=32))


@dataclass
class DeltaLightDynamicsConfig(DeltaDynamicsConfig):
    """Dynamics over Δ-tokens for little arithmetic; not published.

    The I-token is made of the tokenizer's features of the frame, which learn nothing from it, and
    added to the action's embedding: a position less a step.

    Attributes:
        latent: Channels of each place of the features that the I-token is made of; at least 4.
        pushforward_from: First frame, from 0, that is decoded from the one before; null: none.
    """

    kind: str = "delta_light"
    latent: int = setting(16, COUNT)
    pushforward_from: int | None = setting(None, COUNT)

    def check_steps(self, steps: int) -> None:
        if self.pushforward_from is not None and self.pushforward_from >= steps:
            raise BadInput(
                f"agent.dynamics.pushforward_from={self.pushforward_from} (with agent=delta_light, "
                f"agent.actor_critic.burn_in) has to be below dynamics.steps={steps}; give less, "
                "or agent.dynamics.pushforward_from=null."
            )


@dataclass
class FrameDynamicsConfig(DynamicsConfig):
    """Dynamics over the tokens of whole frames, of IRIS and DART; `context` is in frames."""

    kind: str = "frame"
    transformer: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(layers=10, heads=4, width=256, dropout=0.1)
    )
    context: int = setting(20, COUNT)
    reward: str = setting("sign", REWARDS)

    def steps_needed(self, burn_in: int, horizon: int) -> int:
        return burn_in  # what is older is forgotten as the context moves on
