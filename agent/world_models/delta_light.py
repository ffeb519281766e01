"""Dynamics over Δ-tokens for little arithmetic; not published (docs/laptop.md).

Tokenizer, dynamics and policy share one look at a frame, the tokenizer's features of it.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from agent.config.world_models import DeltaLightDynamicsConfig
from agent.segment import Segment
from agent.tokenizers.delta_light import DeltaLightTokenizer
from agent.world_models.delta import DeltaDynamics, DeltaWorld
from envs.errors import BadInput
from envs.spaces import Spaces

LEAST_CHANNELS = 4  # they are normalised: fewer would tell frames apart by their signs alone


class PerPlace(nn.Sequential):
    """The same layer for each place of a map. [N, C_in, h, w] -> [N, C_out, h, w]."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        layer = nn.Linear(channels_in, channels_out)
        super().__init__(layer, nn.LayerNorm(channels_out), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class DeltaLightDynamics(DeltaDynamics):
    """Extends `DeltaDynamics`: the I-token is made of the tokenizer's features, which learn nothing
    from it, and added to the action's embedding."""

    config: DeltaLightDynamicsConfig
    i_token_positions = 0

    def add_frame_encoder(self, spaces: Spaces, tokenizer: DeltaLightTokenizer) -> None:
        """What makes the I-token of `frame_features`."""
        latent, width = self.config.latent, self.config.transformer.width
        if latent < LEAST_CHANNELS:
            raise BadInput(
                f"agent.dynamics.latent={latent} was given; give {LEAST_CHANNELS} or more channels "
                "of each place of a frame to the I-token."
            )
        self.frame_encoder = PerPlace(tokenizer.config.frame_latent, latent)
        self.to_i_token = nn.Linear(latent * tokenizer.map_size**2, width)
        self.frame_norm = nn.LayerNorm(width)

    def embed_actions(self, frames: Tensor, actions: Tensor) -> list[Tensor]:
        """As in `DeltaDynamics`, but frame and action share one position: an effect needs both."""
        action = self.action_embedding(actions)
        if self.config.i_token:
            action = self.embed_frames(frames) + action
        return [action.unsqueeze(-2)]


class DeltaLightLatent(NamedTuple):
    """What stands at the newest frame.

    Attributes:
        frames: [B, C, H, W] uint8.
        features: [B, c, h, w], `frame_features` of these.
        pending: as in `DeltaLatent`.
    """

    frames: Tensor
    features: Tensor
    pending: Tensor


class DeltaLightWorld(DeltaWorld):
    """Extends `DeltaWorld`: each frame is encoded once. Its codes are the map of its features."""

    tokenizer: DeltaLightTokenizer
    dynamics: DeltaLightDynamics
    Latent: ClassVar[type] = DeltaLightLatent

    def latent(self, frames: Tensor, pending: Tensor) -> DeltaLightLatent:
        return DeltaLightLatent(frames, self.tokenizer.frame_features(frames), pending)

    def dynamics_frames(self, frames: Tensor) -> Tensor:
        """As in `DeltaWorld`: their features [B, T, c, h, w]."""
        return self.tokenizer.frame_features(frames.flatten(0, -4)).unflatten(0, frames.shape[:-3])

    def dynamics_loss(self, segment: Segment) -> dict[str, Tensor]:
        """As in `World`; from `pushforward_from` on, of what a dream would show of the frames."""
        with torch.no_grad():
            tokens = self.tokenizer.tokens_of(segment)
            if (first := self.dynamics.config.pushforward_from) is None:
                features = self.dynamics_frames(segment.frames)
            else:
                _, features = self.tokenizer.pushforward(segment, tokens, first)
        return self.dynamics.loss(segment, tokens, features)

    def features(self, latent: DeltaLightLatent, frames: Tensor) -> tuple[Tensor, Tensor]:
        return latent.features, latent.features

    @property
    def code_shape(self) -> tuple[int, int]:
        return self.tokenizer.map_size**2, self.tokenizer.config.frame_latent

    def codes(self, latent: DeltaLightLatent) -> Tensor:
        return rearrange(latent.features, "n c h w -> n (h w) c")
