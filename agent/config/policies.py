"""What each kind of policy can be set to."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.config.networks import DROPOUT, ConvConfig, TransformerConfig
from envs.settings import COUNT, setting

VALUES = ("two_hot", "scalar")


@dataclass
class PolicyConfig:
    """What all policies have.

    Attributes:
        kind: Which policy: cnn_lstm, code_lstm or vit.
        value: How the critic codes a value: two_hot (255 buckets of its symlog) or scalar.
    """

    kind: str = ""
    value: str = setting("two_hot", VALUES)


@dataclass
class LstmPolicyConfig(PolicyConfig):
    """A policy with an LSTM.

    Attributes:
        latent: Channels in which the LSTM sees each place of the encoder's map, or each code.
        hidden: Width of the LSTM.
    """

    latent: int = setting(16, COUNT)
    hidden: int = setting(512, COUNT)


@dataclass
class CnnLstmPolicyConfig(LstmPolicyConfig):
    """The policy of Δ-IRIS and IRIS: it sees frames.

    Attributes:
        conv: Of the frame encoder.
    """

    kind: str = "cnn_lstm"
    conv: ConvConfig = field(default_factory=lambda: ConvConfig(base=32))


@dataclass
class CodeLstmPolicyConfig(LstmPolicyConfig):
    """It sees the vectors that the dynamics reads of a frame; not published."""

    kind: str = "code_lstm"
    latent: int = setting(64, COUNT)


@dataclass
class VitPolicyConfig(PolicyConfig, TransformerConfig):
    """The policy of DART: a transformer over a frame's codes and a memory.

    Attributes:
        mlp: Width of each layer's perceptron (not printed in the paper).
        dropout: In learning; none in play, imagination and burn-in.
        positions: Whether codes carry their position (false: an ablation of the paper).
        memory: Whether there is a memory token (false: an ablation of the paper).
    """

    kind: str = "vit"
    value: str = setting("scalar", VALUES)
    layers: int = setting(6, COUNT)
    mlp: int = setting(1024, COUNT)
    dropout: float = setting(0.2, DROPOUT)
    positions: bool = True
    memory: bool = True
