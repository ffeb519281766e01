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
from agent.nets.initialization import initialize_like_gpt
from agent.nets.transformer import Cache, CachePositions, CausalTransformer, RowPositions
from agent.segment import Segment
from agent.tokenizers.delta import DeltaTokenizer
from agent.world_models.base import Dynamics, DynamicsOutput, Imagined, World, WorldState, at
from envs.errors import BadInput
from envs.spaces import Spaces


class DeltaDynamics(Dynamics):
    """A causal transformer over [I-token, action, Δ1 … ΔK] a step.

    Δ1 is predicted at the action, Δ2 at Δ1, and so on; reward and end at the action.

    Args:
        config: its sizes.
        spaces: of the environment.
        tokenizer: whose tokens it predicts.

    Raises:
        BadInput: sizes do not fit together.
    """

    i_token_positions: ClassVar[int] = 1  # before the action's

    def __init__(
        self, config: DeltaDynamicsConfig, spaces: Spaces, tokenizer: DeltaTokenizer
    ) -> None:
        super().__init__(config)
        codebook_size, self.tokens = tokenizer.quantizer.config.num_codes, tokenizer.tokens
        self.action_position = self.i_token_positions * config.i_token  # in a step
        self.positions_per_step = self.action_position + 1 + self.tokens
        width = config.transformer.width
        if config.i_token:
            self.add_frame_encoder(spaces, tokenizer)
        self.action_embedding = ActionEmbedding(spaces.actions, width)
        self.token_embedding = nn.Embedding(codebook_size, width)
        self.transformer = CausalTransformer(
            config.transformer, config.context * self.positions_per_step
        )
        self.add_heads(codebook_size)
        self.apply(initialize_like_gpt)

    def add_frame_encoder(self, spaces: Spaces, tokenizer: DeltaTokenizer) -> None:
        """What makes the I-token: a CNN whose output fills it; what does not divide stays zero."""
        width = self.config.transformer.width
        conv = self.config.conv.fitted(spaces.size, "agent.dynamics.conv")
        places = conv.output_size(spaces.size) ** 2
        if width < places:
            raise BadInput(
                f"the world model's width {width} is less than the {places} cells of its frame "
                "encoder's output; raise width, or change the encoder's down or patch."
            )
        self.frame_encoder = Encoder(conv, spaces.channels, width // places)
        self.to_i_token = nn.ZeroPad1d((0, width % places)) if width % places else nn.Identity()
        self.frame_norm = nn.LayerNorm(width)

    def embed_frames(self, frames: Tensor) -> Tensor:
        """The I-token of frames [..., C, H, W], uint8 or their `pixels` -> [..., width]."""
        z = self.frame_encoder(pixels(frames).flatten(0, -4))
        z = self.to_i_token(rearrange(z, "n c h w -> n (h w c)"))
        return self.frame_norm(z).unflatten(0, frames.shape[:-3])

    def embed_actions(self, frames: Tensor, actions: Tensor) -> list[Tensor]:
        """What stands before a step's Δ-tokens: I-token and action.

        frames: [..., C, H, W], as in `embed_frames`; actions: [..., F] -> [..., 1, width] each.
        """
        i_token = [self.embed_frames(frames).unsqueeze(-2)] if self.config.i_token else []
        return [*i_token, self.action_embedding(actions).unsqueeze(-2)]

    def embed(self, frames: Tensor, actions: Tensor, tokens: Tensor) -> Tensor:
        """What the transformer reads of T steps.

        frames: [B, T, C, H, W], as in `embed_frames`; actions: [B, T, F]; tokens: [B, T, K]
        -> [B, T × positions a step, width].
        """
        before = self.embed_actions(frames, actions)
        return torch.cat([*before, self.token_embedding(tokens)], dim=2).flatten(1, 2)

    def forward(self, frames: Tensor, actions: Tensor, tokens: Tensor) -> DynamicsOutput:
        """Predict what each step leads to.

        Args:
            frames: [B, T, C, H, W], as in `embed_frames`.
            actions: [B, T, F].
            tokens: [B, S, K] with S = T, or T − 1: then those of the last step are unknown, and
                the sequence stops at its action.
        """
        steps, known = actions.shape[1], tokens.shape[1]
        inputs = self.embed(frames, actions, F.pad(tokens, (0, 0, 0, steps - known)))
        unknown = self.tokens * (steps - known)
        y = self.transformer(inputs[:, : steps * self.positions_per_step - unknown])
        at_actions = y[:, self.action_position :: self.positions_per_step]
        y = y[:, : known * self.positions_per_step]
        predicting = y.unflatten(1, (known, self.positions_per_step))[
            :, :, self.action_position : -1
        ]
        return DynamicsOutput(
            self.token_head(predicting), self.reward_head(at_actions), self.end_head(at_actions)
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


class DeltaWorld(World[DeltaTokenizer, DeltaDynamics, DeltaLatent]):
    """The Δ-autoencoder and its dynamics. Their code of a frame is its I-token."""

    Latent: ClassVar[type] = DeltaLatent

    def latent(self, frames: Tensor, pending: Tensor) -> DeltaLatent:
        """What stands at frames [B, C, H, W] uint8."""
        return DeltaLatent(frames, pending)

    def dynamics_frames(self, frames: Tensor) -> Tensor:
        """What the dynamics reads of frames [B, T, C, H, W] uint8."""
        return frames

    def encode_history(self, segment: Segment, last: int | Tensor) -> tuple[Tensor, DeltaLatent]:
        """As in `World`."""
        batch, steps = segment.mask.shape
        self.check_past(steps)
        frames = at(segment.frames, last)
        if steps == 1:
            weight = self.dynamics.transformer.positions.weight
            nothing = weight.new_zeros(batch, 1, weight.shape[1])
            return nothing[:, :0], self.latent(frames, nothing)
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
        latent, position = state.latent, state.position
        if position + per_step >= transformer.positions.num_embeddings:
            position = 0
        if position == 0:  # nothing is pending: one position less
            latent = latent._replace(pending=latent.pending[:, :0])
        positions = transformer.cache_positions(position, per_step - (position == 0))
        *after, tokens, features = self._imagine_once(
            *latent, actions, state.cache, positions, select
        )
        position += len(positions.positions)
        return Imagined(tokens, features), WorldState(self.Latent(*after), state.cache, position)

    def step_rows(
        self, latent: DeltaLatent, actions: Tensor, cache: Cache, ages: Tensor, select: Select
    ) -> tuple[Imagined, DeltaLatent]:
        """As in `World`; of a full context the newest I-token stays."""
        per_step = self.dynamics.positions_per_step
        # What is pending stands at age × positions a step: nowhere, where there is no past.
        begin = ages % self.dynamics.config.context * per_step
        positions = self.dynamics.transformer.row_positions(begin, per_step)
        *after, tokens, features = self._imagine(*latent, actions, cache, positions, select)
        return Imagined(tokens, features), self.Latent(*after)

    def _imagine(
        self,
        frames: Tensor,
        pending: Tensor,
        actions: Tensor,
        cache: Cache,
        positions: CachePositions | RowPositions,
        select: Select,
    ) -> tuple[Tensor, ...]:
        """The step itself: the next latent, tokens and action features."""
        seen = pixels(frames)  # once, for dynamics and decoder
        inputs = torch.cat([pending, *self.dynamics.embed_actions(seen, actions)], dim=1)
        tokens, pending, features = self.predict_tokens(inputs, cache, positions, select)
        decoded = self.tokenizer.decode(seen, actions, tokens)
        return *self.latent(decoded, pending), tokens, features

    # Every shape is the same at every step: one compiled body serves a whole rollout.
    _imagine_once = compiled_once(_imagine)

    def predict_tokens(
        self, inputs: Tensor, cache: Cache, positions: CachePositions | RowPositions, select: Select
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Δ-tokens, one after another.

        Args:
            inputs: [B, n, width], up to the action.
            cache: of the transformer, written in place.
            positions: of the inputs and of all tokens but the last.
            select: chooses a token from its logits.

        Returns:
            tokens [B, K] int64, the last one's embedding [B, 1, width], and what the transformer
            gave at the action [B, width].
        """
        dynamics, tokens, outputs = self.dynamics, [], []
        for here in positions.split([inputs.shape[1]] + [1] * (dynamics.tokens - 1)):
            outputs.append(dynamics.transformer(inputs, cache, here))
            tokens.append(select(dynamics.token_head(outputs[-1])))
            inputs = dynamics.token_embedding(tokens[-1]).unsqueeze(1)
        return torch.stack(tokens, dim=1), inputs, outputs[0]

    def frames(self, latent: DeltaLatent) -> Tensor:
        """As in `World`."""
        return latent.frames

    def frames_of(self, frames: Tensor) -> Tensor:
        """As in `World`."""
        return frames

    @property
    def code_shape(self) -> tuple[int, int]:
        """As in `World`."""
        if not self.dynamics.config.i_token:
            raise BadInput(
                "agent.dynamics.i_token=false leaves a policy no codes to read; choose "
                "agent/policy=cnn_lstm, which reads frames."
            )
        return 1, self.dynamics.config.transformer.width

    def codes(self, latent: DeltaLatent) -> Tensor:
        """As in `World`."""
        return self.codes_of(latent.frames)

    def codes_of(self, frames: Tensor) -> Tensor:
        """As in `World`."""
        return self.dynamics.embed_frames(frames).unsqueeze(-2)
