"""Dynamics over the tokens of whole frames, and the world it makes with the per-frame VQ-VAE.

Sources: IRIS, section 2.2; DART, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from agent.config.world_models import FrameDynamicsConfig
from agent.nets.actions import ActionEmbedding
from agent.nets.compiled_once import compiled_once
from agent.nets.heads import Select, gumbel_max
from agent.nets.transformer import Cache, Positions
from agent.segment import Segment
from agent.tokenizers.frame import FrameTokenizer
from agent.world_models.base import Dynamics, DynamicsOutput, Imagined, World, WorldState, at
from envs.errors import BadInput
from envs.spaces import Spaces


class FrameDynamics(Dynamics):
    """A causal transformer over [z1 … zK, action] per step.

    The next frame's z1 is predicted at the action, its z2 at its z1, and so on; reward and end are
    predicted at the action.
    """

    def __init__(
        self, config: FrameDynamicsConfig, spaces: Spaces, tokenizer: FrameTokenizer
    ) -> None:
        super().__init__(config)
        if config.context < 2:
            raise BadInput(
                f"agent.dynamics.context={config.context} was given; a frame is predicted from "
                "the one before it, so choose at least 2."
            )
        codebook_size, self.tokens = tokenizer.quantizer.config.num_codes, tokenizer.tokens
        self.token_embedding = nn.Embedding(codebook_size, config.transformer.width)
        self.action_embedding = ActionEmbedding(spaces.actions, config.transformer.width)
        self.add_transformer(self.tokens + 1, codebook_size)

    def embed(self, tokens: Tensor, actions: Tensor) -> Tensor:
        """The transformer's inputs. [B, T, K] and [B, T, F] -> [B, T (K + 1), width]."""
        embedded = [self.token_embedding(tokens), self.action_embedding(actions).unsqueeze(2)]
        return torch.cat(embedded, dim=2).flatten(1, 2)

    def forward(self, tokens: Tensor, actions: Tensor) -> DynamicsOutput:
        """tokens: [B, T, K] of T frames; actions: [B, T, F]."""
        y = self.transformer(self.embed(tokens, actions))
        y = y.unflatten(1, (-1, self.positions_per_step))
        at_actions = y[:, :, -1]
        predicting = torch.cat([at_actions[:, :-1, None], y[:, 1:, : self.tokens - 1]], dim=2)
        return DynamicsOutput(
            self.token_head(predicting), self.reward_head(at_actions), self.end_head(at_actions)
        )

    def loss(self, segment: Segment, tokens: Tensor) -> dict[str, Tensor]:
        return self.prediction_loss(self(tokens, segment.actions), segment, tokens[:, 1:])


def next_token(
    dynamics: FrameDynamics, inputs: Tensor, cache: Cache, positions: Positions
) -> tuple[Tensor, Tensor]:
    """One pass of the transformer: the last input's output, and the next token's logits."""
    y = dynamics.transformer(inputs, cache, positions)
    return y, dynamics.token_head(y)


# torch.compile takes this once, not the whole step of K passes as in Δ-IRIS: a step of IRIS has
# 160 layers. A function of tensors and modules alone need not even be traced again.
next_token_once = compiled_once(next_token)


class FrameLatent(NamedTuple):
    """The newest frame.

    Attributes:
        tokens: [B, K] int64. The transformer has read none of them at an episode's start, later all
            but the last.
    """

    tokens: Tensor


class FrameWorld(World[FrameLatent]):
    """A per-frame tokenizer and its dynamics. A frame is decoded only where it is asked for.

    A policy sees real frames as reconstructions, too (IRIS, section 2.3).
    """

    tokenizer: FrameTokenizer
    dynamics: FrameDynamics

    def start(self, segment: Segment) -> WorldState[FrameLatent]:
        """As in `World`. Of a full context only the newest frame is read: the first step would
        forget the others."""
        full = segment.mask.shape[1] == self.dynamics.config.context
        return super().start(segment[:, -1:] if full else segment)

    def look(self, frames: Tensor) -> FrameLatent:
        return FrameLatent(self.tokenizer.encode(frames))

    def encode_history(self, segment: Segment, last: int | Tensor) -> tuple[Tensor, FrameLatent]:
        self.check_past(segment.mask.shape[1])
        tokens = self.tokenizer.tokens_of(segment)
        past = self.dynamics.embed(tokens[:, :-1], segment.actions[:, :-1])
        return past, FrameLatent(at(tokens, last))

    def step(
        self, state: WorldState[FrameLatent], actions: Tensor, select: Select = gumbel_max
    ) -> tuple[Imagined, WorldState[FrameLatent]]:
        """As in `World`; where the context has no room for another frame, the newest one stays."""
        dynamics, position, tokens = self.dynamics, state.position, state.latent.tokens
        per_step = dynamics.positions_per_step
        if position // per_step >= dynamics.config.context - 1:
            position = 0
        if position % per_step == 0:
            position += self.read(dynamics.token_embedding(tokens[:, :-1]), state.cache, position)
        positions = dynamics.transformer.cache_positions(position, per_step)
        imagined = self._imagine(
            tokens[:, -1:], actions, state.cache, positions, select, next_token_once
        )
        following = WorldState(FrameLatent(imagined.tokens), state.cache, position + per_step)
        return imagined, following

    def step_rows(
        self, latent: FrameLatent, actions: Tensor, cache: Cache, ages: Tensor, select: Select
    ) -> tuple[Imagined, FrameLatent]:
        """As in `World`. The newest frame is read whole, even if it was read before: where the
        context was full, it stands at another place now."""
        dynamics = self.dynamics
        begins = ages % (dynamics.config.context - 1) * dynamics.positions_per_step + 1
        positions = dynamics.transformer.row_positions(begins, 2 * dynamics.tokens)
        imagined = self._imagine(latent.tokens, actions, cache, positions, select, next_token)
        return imagined, FrameLatent(imagined.tokens)

    def _imagine(
        self,
        unread: Tensor,
        actions: Tensor,
        cache: Cache,
        positions: Positions,
        select: Select,
        predict: Callable[..., tuple[Tensor, Tensor]],
    ) -> Imagined:
        """The step itself.

        Args:
            unread: [B, n], the newest frame's tokens that are not in the cache.
            positions: Of those, the action, and the next frame's tokens but the last.
            predict: `next_token`, or its compiled form.
        """
        dynamics, tokens, outputs = self.dynamics, [], []
        inputs = dynamics.embed(unread.unsqueeze(1), actions.unsqueeze(1))
        for here in positions.split([inputs.shape[1]] + [1] * (dynamics.tokens - 1)):
            if tokens:
                inputs = dynamics.token_embedding(tokens[-1]).unsqueeze(1)
            output, logits = predict(dynamics, inputs, cache, here)
            outputs.append(output)
            tokens.append(select(logits))
        return Imagined(torch.stack(tokens, dim=1), outputs[0])

    def frames(self, latent: FrameLatent) -> Tensor:
        """As in `World`. The decoder runs only here."""
        return self.tokenizer.decode(latent.tokens)

    @property
    def code_shape(self) -> tuple[int, int]:
        return self.tokenizer.tokens, self.tokenizer.config.quantizer.vector_dim

    def codes(self, latent: FrameLatent) -> Tensor:
        return self.tokenizer.embed(latent.tokens)
