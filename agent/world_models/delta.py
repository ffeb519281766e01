"""Dynamics over Δ-tokens, and the world it makes with the Δ-autoencoder (Δ-IRIS, section 2.2)."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from agent.config.world_models import DeltaDynamicsConfig
from agent.nets.actions import ActionEmbedding
from agent.nets.compiled_once import compiled_once
from agent.nets.conv import Encoder, pixels
from agent.nets.heads import Select, gumbel_max
from agent.nets.transformer import Cache, Positions
from agent.segment import Segment
from agent.tokenizers.delta import DeltaTokenizer
from agent.world_models.base import Dynamics, DynamicsOutput, Imagined, World, WorldState, at
from envs.errors import BadInput
from envs.spaces import Spaces


class DeltaDynamics(Dynamics):
    """A causal transformer over [I-token, action, Δ1 … ΔK] a step.

    Δ1 is predicted at the action, Δ2 at Δ1, and so on; reward and end at the action.

    Raises:
        BadInput: If sizes do not fit together.
    """

    i_token_positions: ClassVar[int] = 1  # before the action's

    def __init__(
        self, config: DeltaDynamicsConfig, spaces: Spaces, tokenizer: DeltaTokenizer
    ) -> None:
        super().__init__(config)
        codebook_size, self.tokens = tokenizer.quantizer.config.num_codes, tokenizer.tokens
        self.action_position = self.i_token_positions * config.i_token  # in a step
        if config.i_token:
            self.add_frame_encoder(spaces, tokenizer)
        self.action_embedding = ActionEmbedding(spaces.actions, config.transformer.width)
        self.token_embedding = nn.Embedding(codebook_size, config.transformer.width)
        self.add_transformer(self.action_position + 1 + self.tokens, codebook_size)

    def add_frame_encoder(self, spaces: Spaces, tokenizer: DeltaTokenizer) -> None:
        """What makes the I-token: a CNN whose output fills it; what does not divide stays zero."""
        width = self.config.transformer.width
        conv = self.config.conv.fitted(spaces.size, "agent.dynamics.conv")
        cells = conv.output_size(spaces.size) ** 2
        if width < cells:
            raise BadInput(
                f"the world model's width {width} is less than the {cells} cells of its frame "
                "encoder's output; raise width, or change the encoder's down or patch."
            )
        self.frame_encoder = Encoder(conv, spaces.channels, width // cells)
        self.to_i_token = nn.ZeroPad1d((0, width % cells)) if width % cells else nn.Identity()
        self.frame_norm = nn.LayerNorm(width)

    def embed_frames(self, frames: Tensor) -> Tensor:
        """The I-token of frames [..., C, H, W], uint8 or their `pixels` -> [..., width]."""
        z = self.frame_encoder(pixels(frames).flatten(0, -4))
        z = self.to_i_token(rearrange(z, "n c h w -> n (h w c)"))
        return self.frame_norm(z).unflatten(0, frames.shape[:-3])

    def embed_actions(self, frames: Tensor, actions: Tensor) -> list[Tensor]:
        """What stands before a step's Δ-tokens, I-token and action, [..., 1, width] each.

        frames: [..., C, H, W], as in `embed_frames`; actions: [..., F].
        """
        i_token = [self.embed_frames(frames).unsqueeze(-2)] if self.config.i_token else []
        return [*i_token, self.action_embedding(actions).unsqueeze(-2)]

    def embed(self, frames: Tensor, actions: Tensor, tokens: Tensor) -> Tensor:
        """What the transformer reads of T steps, [B, T × positions a step, width].

        frames: [B, T, C, H, W], as in `embed_frames`; actions: [B, T, F]; tokens: [B, T, K].
        """
        before = self.embed_actions(frames, actions)
        return torch.cat([*before, self.token_embedding(tokens)], dim=2).flatten(1, 2)

    def forward(self, frames: Tensor, actions: Tensor, tokens: Tensor) -> DynamicsOutput:
        """Predict what each step leads to.

        Args:
            frames: [B, T, C, H, W], as in `embed_frames`.
            actions: [B, T, F].
            tokens: [B, S, K] with S = T, or T − 1: then the sequence stops at the last action.
        """
        per_step, steps, known = self.positions_per_step, actions.shape[1], tokens.shape[1]
        inputs = self.embed(frames, actions, F.pad(tokens, (0, 0, 0, steps - known)))
        y = self.transformer(inputs[:, : steps * per_step - (steps - known) * self.tokens])
        at_actions = y[:, self.action_position :: per_step]
        blocks = y[:, : known * per_step].unflatten(1, (known, per_step))
        return DynamicsOutput(
            self.token_head(blocks[:, :, self.action_position : -1]),
            self.reward_head(at_actions),
            self.end_head(at_actions),
        )

    def loss(
        self, segment: Segment, tokens: Tensor, frames: Tensor | None = None
    ) -> dict[str, Tensor]:
        """As in `Dynamics`; frames: [B, T, ...] as in `embed_frames`, if not the segment's own."""
        frames = segment.frames if frames is None else frames
        return self.prediction_loss(self(frames, segment.actions, tokens), segment, tokens)


class DeltaLatent(NamedTuple):
    """What stands at the newest frame.

    Attributes:
        frames: [B, C, H, W] uint8.
        pending: [B, 1, width] the newest Δ-token, which the transformer has not read yet; anything
            where there is no past.
    """

    frames: Tensor
    pending: Tensor


class DeltaWorld(World[DeltaLatent]):
    """The Δ-autoencoder and its dynamics. Their code of a frame is its I-token."""

    tokenizer: DeltaTokenizer
    dynamics: DeltaDynamics
    Latent: ClassVar[type] = DeltaLatent

    def latent(self, frames: Tensor, pending: Tensor) -> DeltaLatent:
        """What stands at frames [B, C, H, W] uint8."""
        return DeltaLatent(frames, pending)

    def look(self, frames: Tensor) -> DeltaLatent:
        weight = self.dynamics.transformer.positions.weight
        return self.latent(frames, weight.new_zeros(len(frames), 1, weight.shape[1]))

    def observe(self, frames: Tensor) -> Tensor:
        return frames if self.reads == "frames" else super().observe(frames)

    def dynamics_frames(self, frames: Tensor) -> Tensor:
        """What the dynamics reads of frames [B, T, C, H, W] uint8."""
        return frames

    def encode_history(self, segment: Segment, last: int | Tensor) -> tuple[Tensor, DeltaLatent]:
        steps = segment.mask.shape[1]
        self.check_past(steps)
        frames = at(segment.frames, last)
        if steps == 1:
            latent = self.look(frames)
            return latent.pending[:, :0], latent
        seen = self.dynamics_frames(segment.frames[:, :-1])
        tokens = self.tokenizer.tokens_of(segment)
        blocks = self.dynamics.embed(seen, segment.actions[:, :-1], tokens)
        pending = at(blocks, last * self.dynamics.positions_per_step - 1).unsqueeze(1)
        return blocks[:, :-1], self.latent(frames, pending)

    def step(
        self, state: WorldState[DeltaLatent], actions: Tensor, select: Select = gumbel_max
    ) -> tuple[Imagined, WorldState[DeltaLatent]]:
        """As in `World`; of a full context the newest I-token stays."""
        transformer, per_step = self.dynamics.transformer, self.dynamics.positions_per_step
        latent, position, count = state.latent, state.position, per_step
        if position + per_step >= transformer.positions.num_embeddings:
            position = 0
        if position == 0:  # nothing is pending: one position less
            latent, count = latent._replace(pending=latent.pending[:, :0]), per_step - 1
        positions = transformer.cache_positions(position, count)
        *after, tokens, features = self._imagine_once(
            latent, actions, state.cache, positions, select
        )
        following = WorldState(self.Latent(*after), state.cache, position + count)
        return Imagined(tokens, features), following

    def step_rows(
        self, latent: DeltaLatent, actions: Tensor, cache: Cache, ages: Tensor, select: Select
    ) -> tuple[Imagined, DeltaLatent]:
        """As in `World`; of a full context the newest I-token stays."""
        per_step = self.dynamics.positions_per_step
        # What is pending stands at age × positions a step: nowhere, where there is no past.
        begin = ages % self.dynamics.config.context * per_step
        positions = self.dynamics.transformer.row_positions(begin, per_step)
        *after, tokens, features = self._imagine(latent, actions, cache, positions, select)
        return Imagined(tokens, features), self.Latent(*after)

    def _imagine(
        self,
        latent: DeltaLatent,
        actions: Tensor,
        cache: Cache,
        positions: Positions,
        select: Select,
    ) -> tuple[Tensor, ...]:
        """The step itself: the next latent, tokens and action features.

        positions: of what is pending, I-token and action, and all Δ-tokens but the last.
        """
        dynamics, frames = self.dynamics, pixels(latent.frames)  # once, for dynamics and decoder
        for_dynamics, for_decoder = self.features(latent, frames)
        before = dynamics.embed_actions(for_dynamics, actions)
        inputs = torch.cat([latent.pending, *before], dim=1)
        chosen, outputs = [], []
        for here in positions.split([inputs.shape[1]] + [1] * (dynamics.tokens - 1)):
            outputs.append(dynamics.transformer(inputs, cache, here))
            chosen.append(select(dynamics.token_head(outputs[-1])))
            inputs = dynamics.token_embedding(chosen[-1]).unsqueeze(1)
        tokens = torch.stack(chosen, dim=1)
        decoded = self.tokenizer.decode(frames, actions, tokens, for_decoder)
        return *self.latent(decoded, inputs), tokens, outputs[0]

    # Every shape is the same at every step: one compiled body serves a whole rollout.
    _imagine_once = compiled_once(_imagine)

    def features(self, latent: DeltaLatent, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the dynamics reads of the newest frames, and the decoder besides them, if known.

        frames: their `pixels`.
        """
        return frames, None

    def frames(self, latent: DeltaLatent) -> Tensor:
        return latent.frames

    @property
    def code_shape(self) -> tuple[int, int]:
        if not self.dynamics.config.i_token:
            raise BadInput(
                "agent.dynamics.i_token=false leaves a policy no codes to read; choose "
                "agent/policy=cnn_lstm, which reads frames."
            )
        return 1, self.dynamics.config.transformer.width

    def codes(self, latent: DeltaLatent) -> Tensor:
        return self.dynamics.embed_frames(latent.frames).unsqueeze(-2)
