"""What each kind of tokenizer can be set to."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.config.networks import ConvConfig
from agent.config.quantizers import CosineEmaConfig, QuantizerConfig, VqConfig
from envs.errors import BadInput
from envs.settings import COUNT, NATURAL, POSITIVE, WEIGHT, setting


@dataclass
class TokenizerConfig:
    """What all tokenizers have.

    Attributes:
        kind: Which tokenizer: delta, delta_light or frame.
        quantizer: Of the tokens.
        l1: Weight of the mean absolute error.
        l2: Weight of the mean squared error.
    """

    kind: str = ""
    quantizer: QuantizerConfig = field(default_factory=CosineEmaConfig)
    l1: float = setting(0.1, WEIGHT)
    l2: float = setting(1.0, WEIGHT)

    def check_steps(self, steps: int) -> None:
        """Raises BadInput if sequences of this many steps are too short to learn from."""


@dataclass
class DeltaTokenizerConfig(TokenizerConfig):
    """The Δ-autoencoder; the defaults are those of Δ-IRIS on Crafter.

    Attributes:
        conv: Of the Δ-encoder and the decoder.
        frame_conv: Of the previous frame's own encoder; it must reduce as much as `conv`.
        tokens: Δ-tokens a step, K.
        latent: Channels of the Δ-encoder's output.
        frame_latent: Channels in which the decoder sees the previous frame.
        action: Whether encoder and decoder see the action (false: an ablation of the paper).
        action_channels: Maps in which the decoder sees it.
        max_error_weight: Weight of the largest squared error of each image.
    """

    kind: str = "delta"
    conv: ConvConfig = field(default_factory=ConvConfig)
    frame_conv: ConvConfig = field(default_factory=ConvConfig)
    tokens: int = setting(4, COUNT)
    latent: int = setting(64, COUNT)
    frame_latent: int = setting(8, COUNT)
    action: bool = True
    action_channels: int = setting(4, COUNT)
    max_error_weight: float = setting(0.01, WEIGHT)


@dataclass
class DeltaLightTokenizerConfig(DeltaTokenizerConfig):
    """The Δ-autoencoder with what makes it learn in few updates; not published.

    Attributes:
        residual: Whether the decoder's output, zero at first, is added to the previous frame.
        embedding_std: Standard deviation of the initial embeddings of codes and actions.
        change_weighting: How many times more the errors of a rarely changing pixel count, at most.
        pushforward_after: Updates after which the decoder sees its own frames (Brandstetter 2022).
    """

    kind: str = "delta_light"
    residual: bool = False
    embedding_std: float = setting(0.02, POSITIVE)
    change_weighting: float = setting(1.0, COUNT)
    pushforward_after: int | None = setting(None, NATURAL)

    def check_steps(self, steps: int) -> None:
        if self.pushforward_after is not None and steps < 3:
            raise BadInput(
                f"tokenizer.steps={steps} was given, and agent.tokenizer.pushforward_after needs 3 "
                "or more; give them, or agent.tokenizer.pushforward_after=null."
            )


@dataclass
class FrameTokenizerConfig(TokenizerConfig):
    """The per-frame VQ-VAE of IRIS and DART.

    Attributes:
        conv: Of the encoder and the decoder; each place of the encoder's map is one token.
    """

    kind: str = "frame"
    conv: ConvConfig = field(
        default_factory=lambda: ConvConfig(64, [1, 1, 1, 1], [1, 1, 1, 1], blocks=2, attention=2)
    )
    quantizer: QuantizerConfig = field(
        default_factory=lambda: VqConfig(size=512, dim=512, commitment=1.0)
    )
    l1: float = setting(1.0, WEIGHT)
    l2: float = setting(0.0, WEIGHT)
