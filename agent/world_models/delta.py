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
from agent.world_models.tokens import DynamicsOutput, Imagined, TokenDynamics, TokenDynamicsConfig, TokenWorld, WorldState, at
from envs.errors import BadInput
from envs.spaces import Spaces

LEAST_SHARED = 4  # channels of each place


@dataclass
class DeltaDynamicsConfig(TokenDynamicsConfig):
    """i_token: whether the transformer sees each frame as an I-token; false is an ablation of the paper's. (Nothing of the past is left then
             to a dream that outgrows the context.)
    conv:    of the frame encoder that makes it
    shared:  whether the I-token is made of the tokenizer's view of the frame instead, which learns nothing from it; a linear layer
             brings each of its places to `latent` channels. Not as published, but that encoder knows the frames already, where an
             own one learns them from rewards and tokens; and each frame is encoded once
    latent:  channels of the encoder's output, of which a linear layer then makes the I-token; null, as published: as many as
             fill the I-token, and no such layer. With `shared` at least 4: they are normalised, and less would tell frames apart by
             their signs, one not at all
    fused:   whether the I-token is added to the action's input instead of standing before it: what an action leads to depends on both, and
             attention need not find the one first; a position less a step. Not as published
    decoded_from: of a sequence that is learned from, the frames from this one on, counted from 0, are the decoder's, each of the one
             before it: what a dream would show of what happened. (An episode that begins later starts from one real frame.) So
             rewards, ends and tokens are learned where they will be predicted; what a decoder does not draw can be learned from what came before. null, as published: all frames are real
    """

    kind: str = "delta"
    i_token: bool = True
    shared: bool = False
    latent: int | None = None
    fused: bool = False
    decoded_from: int | None = None
    conv: ConvConfig = field(default_factory=lambda: ConvConfig(base=32))

    def steps_needed(self, burn_in: int, horizon: int) -> int:
        """All: nothing is forgotten, as published."""
        return burn_in - 1 + horizon

    def check_steps(self, steps: int) -> None:
        if self.decoded_from is not None and self.decoded_from >= steps:
            raise BadInput(
                f"agent.dynamics.decoded_from={self.decoded_from} (with agent=delta_light, agent.actor_critic.burn_in) leaves none of the {steps} frames that "
                "the dynamics learns from to be decoded; give less, more dynamics.steps, or agent.dynamics.decoded_from=null."
            )


class DeltaDynamics(TokenDynamics):
    """A causal transformer over [I-token, action, Δ1 … ΔK] a step; the first two may be one, or the first left out.

    Δ1 is predicted at the action, Δ2 at Δ1, and so on; reward and end at the action.
    """

    def __init__(self, config: DeltaDynamicsConfig, spaces: Spaces, tokenizer: DeltaTokenizer) -> None:
        super().__init__(config)
        codebook_size, self.tokens = tokenizer.quantizer.config.num_codes, tokenizer.tokens
        for option in ("shared", "latent", "fused", "decoded_from"):
            if getattr(config, option) and not config.i_token:
                given = f"{option}={str(getattr(config, option)).lower()}"
                raise BadInput(f"agent.dynamics.{given} and i_token=false were given, and no frame is seen; leave out one of them.")
        self.action_place = int(config.i_token and not config.fused)  # in a step
        self.positions_per_step = self.action_place + 1 + self.tokens
        width = config.transformer.width
        if config.i_token:
            self.add_frame_encoder(spaces, tokenizer.view_shape)
        self.action_embedding = ActionEmbedding(spaces.actions, width)
        self.token_embedding = nn.Embedding(codebook_size, width)
        self.transformer = CausalTransformer(config.transformer, config.context * self.positions_per_step)
        self.add_heads(codebook_size)
        self.apply(initialize_like_gpt)

    def add_frame_encoder(self, spaces: Spaces, view_shape: tuple[int, int, int]) -> None:
        """What makes the I-token. Raises BadInput if the frame's cells do not fit into it.

        view_shape: of what it sees, if that is the tokenizer's view
        """
        width = self.config.transformer.width
        channels, side, _ = view_shape
        if not self.config.shared:
            conv = self.config.conv.fitted(spaces.size, "agent.dynamics.conv")
            channels, side = spaces.channels, conv.output_size(spaces.size)
        latent = self.config.latent or width // side**2
        if self.config.shared and latent < LEAST_SHARED:
            raise BadInput(
                f"agent.dynamics.shared=true would leave {latent} channels of each of the frame's {side}×{side} places to the I-token; "
                f"give agent.dynamics.latent={LEAST_SHARED} or more."
            )
        if not latent:
            raise BadInput(
                f"the world model's width {width} is less than the {side**2} cells of its frame encoder's output; "
                "raise width, change the encoder's down or patch, or give agent.dynamics.latent."
            )
        self.frame_encoder = EachPlace(channels, latent) if self.config.shared else Encoder(conv, channels, latent)
        features = latent * side**2
        if self.config.latent:
            self.to_i_token = nn.Linear(features, width)
        else:  # the rest stays zero; as published there is none
            self.to_i_token = nn.ZeroPad1d((0, width - features)) if features < width else nn.Identity()
        self.frame_norm = nn.LayerNorm(width)

    def embed_frames(self, frames: Tensor) -> Tensor:
        """The I-token: frames [..., C, H, W] uint8, or their `pixels`, or where it shares them the tokenizer's views of these
        -> [..., width]."""
        z = self.frame_encoder(pixels(frames).flatten(0, -4))
        z = rearrange(z, "n c h w -> n (h w c)")
        return self.frame_norm(self.to_i_token(z)).unflatten(0, frames.shape[:-3])

    def embed(self, frames: Tensor, actions: Tensor, tokens: Tensor) -> Tensor:
        """What the transformer reads of T steps.

        frames: [B, T, C, H, W], as in `embed_frames`; actions: [B, T, F]; tokens: [B, T, K]
        -> [B, T × positions a step, width]
        """
        return torch.cat([*self.embed_actions(frames, actions), self.token_embedding(tokens)], dim=2).flatten(1, 2)

    def embed_actions(self, frames: Tensor, actions: Tensor) -> list[Tensor]:
        """What stands before a step's Δ-tokens, I-token and action. frames: [..., C, H, W], as in `embed_frames`; actions: [..., F]
        -> [..., 1, width] each, or one of both"""
        action = self.action_embedding(actions)
        i_token = [self.embed_frames(frames)] if self.config.i_token else []
        inputs = [i_token[0] + action] if self.config.fused else [*i_token, action]
        return [x.unsqueeze(-2) for x in inputs]

    def forward(self, frames: Tensor, actions: Tensor, tokens: Tensor) -> DynamicsOutput:
        """frames: [B, T, C, H, W], as in `embed_frames`; actions: [B, T, F]; tokens: [B, S, K] with S = T or T − 1.

        With S = T − 1 the last step's Δ-tokens are unknown, and the sequence stops at its action.
        """
        steps, known = actions.shape[1], tokens.shape[1]
        inputs = self.embed(frames, actions, F.pad(tokens, (0, 0, 0, steps - known)))
        unknown = self.tokens * (steps - known)
        y = self.transformer(inputs[:, : steps * self.positions_per_step - unknown])
        at_actions = y[:, self.action_place :: self.positions_per_step]
        known_steps = y[:, : known * self.positions_per_step].unflatten(1, (known, self.positions_per_step))
        predicting = known_steps[:, :, self.action_place : -1]
        return DynamicsOutput(self.token_head(predicting), self.reward_head(at_actions), self.end_head(at_actions))

    def loss(self, segment: Segment, tokens: Tensor, frames: Tensor | None = None) -> dict[str, Tensor]:
        """frames: [B, T, ...], as in `embed_frames`, where they are not simply the segment's"""
        frames = segment.frames if frames is None else frames
        return self.prediction_loss(self(frames, segment.actions, tokens), segment, tokens)


class EachPlace(nn.Sequential):
    """The same layer for each place of a map. [N, C_in, h, w] -> [N, C_out, h, w]."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(nn.Linear(channels_in, channels_out), nn.LayerNorm(channels_out), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class DeltaMoment(NamedTuple):
    """frames: [B, C, H, W] uint8, the newest observation
    views:   [B, C, h, w] the tokenizer's of it, where the dynamics shares them; else [B, 0]
    pending: [B, 1, width] the newest Δ-token; anything where there is no past
    """

    frames: Tensor
    views: Tensor
    pending: Tensor


class DeltaWorld(TokenWorld[DeltaTokenizer, DeltaDynamics, DeltaMoment]):
    """The Δ-autoencoder and its dynamics. Their codes of a frame are its I-token alone, or where they share it the places of
    the tokenizer's view."""

    def dynamics_loss(self, segment: Segment) -> dict[str, Tensor]:
        with torch.no_grad():
            tokens = self.tokenizer.tokens_of(segment)
            seen = self.seen(segment, tokens)
        return self.dynamics.loss(segment, tokens, seen)

    def seen(self, segment: Segment, tokens: Tensor) -> Tensor:
        """What the dynamics sees of a segment [B, T] when it learns. tokens: [B, T − 1, K] that led to its frames -> [B, T, ...], as in
        `DeltaDynamics.embed_frames`"""
        shared, first = self.dynamics.config.shared, self.dynamics.config.decoded_from
        if first is None:
            return self.views(segment.frames) if shared else segment.frames
        frames, views = self.tokenizer.as_in_a_dream(segment, tokens, first)
        return views if shared else frames

    def views(self, frames: Tensor) -> Tensor:
        """[..., C, H, W] uint8 -> what the dynamics shares of the tokenizer's view, [..., C, h, w], or nothing, [..., 0]."""
        if not self.dynamics.config.shared:
            return self.dynamics.transformer.positions.weight.new_empty(*frames.shape[:-3], 0)
        return self.tokenizer.view(frames.flatten(0, -4)).unflatten(0, frames.shape[:-3])

    def recall(self, segment: Segment, last: int | Tensor) -> tuple[Tensor, DeltaMoment]:
        batch, steps = segment.mask.shape
        self.check_past(steps)
        views = self.views(segment.frames)
        frames, view = at(segment.frames, last), at(views, last)
        if steps == 1:
            nothing = self.dynamics.transformer.positions.weight.new_zeros(batch, 1, self.dynamics.config.transformer.width)
            return nothing[:, :0], DeltaMoment(frames, view, nothing)
        seen = views if self.dynamics.config.shared else segment.frames
        blocks = self.dynamics.embed(seen[:, :-1], segment.actions[:, :-1], self.tokenizer.tokens_of(segment))
        pending = at(blocks, last * self.dynamics.positions_per_step - 1).unsqueeze(1)
        return blocks[:, :-1], DeltaMoment(frames, view, pending)

    def step(
        self, state: WorldState[DeltaMoment], actions: Tensor, select: Select = gumbel_max
    ) -> tuple[Imagined, WorldState[DeltaMoment]]:
        """As in `TokenWorld`; of a full context the newest I-token stays."""
        transformer, per_step, position = self.dynamics.transformer, self.dynamics.positions_per_step, state.position
        if position + per_step >= transformer.positions.num_embeddings:
            position = 0
        # At the beginning there is nothing pending: one position less.
        moment = state.moment if position else state.moment._replace(pending=state.moment.pending[:, :0])
        places = transformer.places(position, per_step if position else per_step - 1)
        *moment, tokens, outlook = self._imagine_again(*moment, actions, state.cache, places, select)
        return Imagined(tokens, outlook), WorldState(DeltaMoment(*moment), state.cache, position + len(places.positions))

    def advance(
        self, moment: DeltaMoment, actions: Tensor, cache: Cache, ages: Tensor, select: Select
    ) -> tuple[Imagined, DeltaMoment]:
        """As in `TokenWorld`; of a full context the newest I-token stays."""
        per_step = self.dynamics.positions_per_step
        # What is pending stands at place age × positions a step: nowhere, where there is no past.
        places = self.dynamics.transformer.own_places(ages % self.dynamics.config.context * per_step, per_step)
        *moment, tokens, outlook = self._imagine(*moment, actions, cache, places, select)
        return Imagined(tokens, outlook), DeltaMoment(*moment)

    def _imagine(
        self, frames: Tensor, views: Tensor, pending: Tensor, actions: Tensor, cache: Cache, places: Places | OwnPlaces, select: Select
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The step itself. places: of pending, I-token and action, Δ1 … Δ(K-1) -> frames, views, pending, tokens, outlook: the next
        `DeltaMoment`, and what is `Imagined`.
        """
        dynamics, frames = self.dynamics, pixels(frames)  # once for all that look at them
        seen, view = (views, views) if dynamics.config.shared else (frames, None)
        inputs = torch.cat([pending, *dynamics.embed_actions(seen, actions)], dim=1)
        tokens: list[Tensor] = []
        for here in places.split([inputs.shape[1]] + [1] * (dynamics.tokens - 1)):
            y = dynamics.transformer(inputs, cache, here)
            outlook = outlook if tokens else y
            tokens.append(select(dynamics.token_head(y)))
            inputs = dynamics.token_embedding(tokens[-1]).unsqueeze(1)
        chosen = torch.stack(tokens, dim=1)
        frames = self.tokenizer.decode(frames, actions, chosen, view)
        return frames, self.views(frames), inputs, chosen, outlook

    _imagine_again = repeated(_imagine)  # every shape is the same at every step: one compiled body serves a whole rollout

    def frames(self, moment: DeltaMoment) -> Tensor:
        return moment.frames

    def frames_of(self, frames: Tensor) -> Tensor:
        return frames

    @property
    def code_shape(self) -> tuple[int, int]:
        if self.dynamics.config.shared:
            channels, height, width = self.tokenizer.view_shape
            return height * width, channels
        if not self.dynamics.config.i_token:
            raise BadInput(
                "agent.dynamics.i_token=false leaves a policy no codes to read; choose agent/policy=cnn_lstm, which reads frames."
            )
        return 1, self.dynamics.config.transformer.width

    def codes(self, moment: DeltaMoment) -> Tensor:
        return self.codes_of(moment.frames, moment.views)

    def codes_of(self, frames: Tensor, views: Tensor | None = None) -> Tensor:
        """As in `TokenWorld`. views: of the frames, where they are known"""
        if not self.dynamics.config.shared:
            return self.dynamics.embed_frames(frames).unsqueeze(-2)
        return rearrange(self.views(frames) if views is None else views, "... c h w -> ... (h w) c")
