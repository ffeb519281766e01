"""Dynamics over Δ-tokens, and the world that they and the Δ-autoencoder make (Δ-IRIS, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from agent.nets.actions import ActionEmbedding
from agent.nets.conv import ConvConfig, Encoder, pixels
from agent.nets.heads import Select, gumbel_max
from agent.nets.initialization import initialize_like_gpt
from agent.nets.repeated import repeated
from agent.nets.transformer import Cache, CausalTransformer, OwnPlaces, Places
from agent.segment import Segment
from agent.tokenizers.delta import DeltaTokenizer
from agent.world_models.tokens import DynamicsOutput, Imagined, TokenDynamics, TokenDynamicsConfig, TokenWorld
from envs.errors import BadInput
from envs.spaces import Spaces


@dataclass
class DeltaDynamicsConfig(TokenDynamicsConfig):
    """conv: of the frame encoder that makes the I-token"""

    kind: str = "delta"
    conv: ConvConfig = field(default_factory=lambda: ConvConfig(base=32))

    def steps_needed(self, burn_in: int, horizon: int) -> int:
        """All: nothing is forgotten, as published."""
        return burn_in - 1 + horizon


class DeltaDynamics(TokenDynamics):
    """A causal transformer over [I-token, action, Δ1 … ΔK] a step.

    Δ1 is predicted at the action, Δ2 at Δ1, and so on; reward and end at the action.
    """

    def __init__(self, config: DeltaDynamicsConfig, spaces: Spaces, codebook_size: int, tokens: int) -> None:
        super().__init__(config)
        self.tokens = tokens
        self.positions_per_step = 2 + tokens
        width = config.transformer.width
        conv = config.conv.fitted(spaces.size)
        cells = conv.output_size(spaces.size) ** 2
        if width < cells:
            raise BadInput(
                f"the world model's width {width} is less than the {cells} cells of its frame encoder's output; "
                "raise width, or change the encoder's down or patch."
            )
        self.frame_encoder = Encoder(conv, channels=spaces.channels, latent=width // cells)
        self.unused = width % cells  # of the I-token; stays zero (as published there is nothing left)
        self.frame_norm = nn.LayerNorm(width)
        self.action_embedding = ActionEmbedding(spaces.actions, width)
        self.token_embedding = nn.Embedding(codebook_size, width)
        self.transformer = CausalTransformer(config.transformer, config.context * self.positions_per_step)
        self.add_heads(codebook_size)
        self.apply(initialize_like_gpt)

    def embed_frames(self, frames: Tensor) -> Tensor:
        """The I-token: frames [..., C, H, W] uint8, or their `pixels` -> [..., width]."""
        z = self.frame_encoder(pixels(frames).flatten(0, -4))
        z = rearrange(z, "n c h w -> n (h w c)")
        z = F.pad(z, (0, self.unused)) if self.unused else z
        return self.frame_norm(z).unflatten(0, frames.shape[:-3])

    def embed(self, frames: Tensor, actions: Tensor, tokens: Tensor) -> Tensor:
        """What the transformer reads of T steps.

        frames: [B, T, C, H, W] uint8; actions: [B, T, F]; tokens: [B, T, K] -> [B, T (2 + K), width]
        """
        blocks = [self.embed_frames(frames).unsqueeze(2), self.action_embedding(actions).unsqueeze(2)]
        return torch.cat([*blocks, self.token_embedding(tokens)], dim=2).flatten(1, 2)

    def forward(self, frames: Tensor, actions: Tensor, tokens: Tensor) -> DynamicsOutput:
        """frames: [B, T, C, H, W] uint8; actions: [B, T, F]; tokens: [B, S, K] with S = T or T − 1.

        With S = T − 1 the last step's Δ-tokens are unknown, and the sequence stops at its action.
        """
        steps, known = actions.shape[1], tokens.shape[1]
        inputs = self.embed(frames, actions, F.pad(tokens, (0, 0, 0, steps - known)))
        unknown = self.tokens * (steps - known)
        y = self.transformer(inputs[:, : steps * self.positions_per_step - unknown])
        at_actions = y[:, 1 :: self.positions_per_step]
        predicting = y[:, : known * self.positions_per_step].unflatten(1, (known, self.positions_per_step))[:, :, 1:-1]
        return DynamicsOutput(self.token_head(predicting), self.reward_head(at_actions), self.end_head(at_actions))

    def loss(self, segment: Segment, tokens: Tensor) -> dict[str, Tensor]:
        return self.prediction_loss(self(segment.frames, segment.actions, tokens), segment, tokens)


class WorldState(NamedTuple):
    """Where an imagined episode stands.

    frames:   [B, C, H, W] uint8, the newest observation
    pending:  [B, 1, width] the input that the transformer has not read yet, the newest Δ-token;
              [B, 0, width] where there is no past
    cache:    the transformer's keys and values, written in place by `step`: of two states that came
              from the same one, only the newer may go on
    position: how much of the cache is filled; the same for the whole batch, hence a plain integer
    """

    frames: Tensor
    pending: Tensor
    cache: Cache
    position: int


class DeltaWorld(TokenWorld[DeltaTokenizer, DeltaDynamics, WorldState]):
    """The Δ-autoencoder and its dynamics. Their code of a frame is its I-token alone."""

    def start(self, segment: Segment) -> WorldState:
        batch, steps = segment.mask.shape
        self.check_past(steps)
        transformer = self.dynamics.transformer
        cache, position = transformer.empty_cache(batch), 0
        pending = transformer.positions.weight.new_zeros(batch, 0, transformer.config.width)
        if steps > 1:
            tokens = self.tokenizer.tokens_of(segment)
            blocks = self.dynamics.embed(segment.frames[:, :-1], segment.actions[:, :-1], tokens)
            past, pending = blocks[:, :-1], blocks[:, -1:].contiguous()
            position = past.shape[1]
            transformer(past, cache, transformer.places(0, position))
        return WorldState(segment.frames[:, -1].contiguous(), pending, cache, position)

    def step(self, state: WorldState, actions: Tensor, select: Select = gumbel_max) -> tuple[Imagined, WorldState]:
        """As in `TokenWorld`; of a full context the newest I-token stays."""
        transformer, pending, position = self.dynamics.transformer, state.pending, state.position
        read = pending.shape[1] + self.dynamics.positions_per_step - 1  # the last Δ-token stays pending
        if position + read >= transformer.positions.num_embeddings:
            read, pending, position = read - pending.shape[1], pending[:, :0], 0
        places = transformer.places(position, read)
        frames, tokens, outlook, pending = self._imagine_again(state.frames, actions, pending, state.cache, places, select)
        return Imagined(tokens, outlook), WorldState(frames, pending, state.cache, position + read)

    def imagine(
        self, frames: Tensor, actions: Tensor, pending: Tensor, cache: Cache, places: Places | OwnPlaces, select: Select
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The step itself. places: of pending, I-token, action, Δ1 … Δ(K-1) -> frames, tokens, outlook, pending: the next
        step's frames and pending input, and what is `Imagined`.
        """
        dynamics, frames = self.dynamics, pixels(frames)  # once for all that look at them
        i_token = dynamics.embed_frames(frames).unsqueeze(1)
        inputs = torch.cat([pending, i_token, dynamics.action_embedding(actions).unsqueeze(1)], dim=1)
        tokens: list[Tensor] = []
        for at in places.split([inputs.shape[1]] + [1] * (dynamics.tokens - 1)):
            y = dynamics.transformer(inputs, cache, at)
            outlook = outlook if tokens else y
            tokens.append(select(dynamics.token_head(y)))
            inputs = dynamics.token_embedding(tokens[-1]).unsqueeze(1)
        chosen = torch.stack(tokens, dim=1)
        return self.tokenizer.decode(frames, actions, chosen), chosen, outlook, inputs

    _imagine_again = repeated(imagine)  # every shape is the same at every step: one compiled body serves a whole rollout

    def frames(self, state: WorldState) -> Tensor:
        return state.frames

    def frames_of(self, frames: Tensor) -> Tensor:
        return frames

    @property
    def code_shape(self) -> tuple[int, int]:
        return 1, self.dynamics.config.transformer.width

    def codes(self, state: WorldState) -> Tensor:
        return self.codes_of(state.frames)

    def codes_of(self, frames: Tensor) -> Tensor:
        return self.dynamics.embed_frames(frames).unsqueeze(-2)
