"""Dynamics over the tokens of whole frames, and the world that they and the per-frame VQ-VAE make (IRIS, section 2.2;
DART, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from agent.nets.actions import ActionEmbedding
from agent.nets.heads import Select, gumbel_max
from agent.nets.initialization import initialize_like_gpt
from agent.nets.repeated import repeated
from agent.nets.transformer import Cache, CausalTransformer, OwnPlaces, Places, TransformerConfig
from agent.segment import Segment
from agent.tokenizers.frame import FrameTokenizer
from agent.world_models.tokens import DynamicsOutput, Imagined, TokenDynamics, TokenDynamicsConfig, TokenWorld, WorldState, at
from envs.errors import BadInput
from envs.spaces import Spaces


def published_transformer() -> TransformerConfig:
    """Of IRIS and DART alike."""
    return TransformerConfig(layers=10, heads=4, width=256, dropout=0.1)


@dataclass
class FrameDynamicsConfig(TokenDynamicsConfig):
    """context: in frames"""

    kind: str = "frame"
    transformer: TransformerConfig = field(default_factory=published_transformer)
    context: int = 20
    reward: str = "sign"


class FrameDynamics(TokenDynamics):
    """A causal transformer over [z1 … zK, action] a step.

    The next frame's z1 is predicted at the action, its z2 at its z1, and so on; reward and end at the action.
    """

    def __init__(self, config: FrameDynamicsConfig, spaces: Spaces, tokenizer: FrameTokenizer) -> None:
        super().__init__(config)
        if config.context < 2:
            raise BadInput(
                f"agent.dynamics.context={config.context} was given; a frame is predicted from the one before it, so choose at "
                "least 2."
            )
        codebook_size, self.tokens = tokenizer.quantizer.config.num_codes, tokenizer.tokens
        self.positions_per_step = self.tokens + 1
        width = config.transformer.width
        self.token_embedding = nn.Embedding(codebook_size, width)
        self.action_embedding = ActionEmbedding(spaces.actions, width)
        self.transformer = CausalTransformer(config.transformer, config.context * self.positions_per_step)
        self.add_heads(codebook_size)
        self.apply(initialize_like_gpt)

    def embed(self, tokens: Tensor, actions: Tensor) -> Tensor:
        """What the transformer reads of T steps. tokens: [B, T, K]; actions: [B, T, F] -> [B, T (K + 1), width]."""
        return torch.cat([self.token_embedding(tokens), self.action_embedding(actions).unsqueeze(2)], dim=2).flatten(1, 2)

    def forward(self, tokens: Tensor, actions: Tensor) -> DynamicsOutput:
        """tokens: [B, T, K] of T frames; actions: [B, T, F]."""
        steps = tokens.shape[1]
        y = self.transformer(self.embed(tokens, actions)).unflatten(1, (steps, self.positions_per_step))
        at_actions = y[:, :, -1]
        predicting = torch.cat([at_actions[:, :-1].unsqueeze(2), y[:, 1:, : self.tokens - 1]], dim=2)
        return DynamicsOutput(self.token_head(predicting), self.reward_head(at_actions), self.end_head(at_actions))

    def loss(self, segment: Segment, tokens: Tensor) -> dict[str, Tensor]:
        return self.prediction_loss(self(tokens, segment.actions), segment, tokens[:, 1:])


def next_token(
    dynamics: FrameDynamics, inputs: Tensor, cache: Cache, places: Places | OwnPlaces
) -> tuple[Tensor, Tensor]:
    """One pass of the transformer on the way to the next token -> what comes of the last input, [B, width], and the
    token's logits, [B, codebook]."""
    y = dynamics.transformer(inputs, cache, places)
    return y, dynamics.token_head(y)


# This, and not the whole step of K passes as in Δ-IRIS, is what torch.compile takes once: what is given nothing but
# tensors and modules and returns nothing but tensors it need not even trace again. A step of IRIS has 160 layers.
next_token_again = repeated(next_token)


class FrameMoment(NamedTuple):
    """tokens: [B, K] int64, of the newest frame. At an episode's start the transformer has read none of them, later all
    but the last.
    """

    tokens: Tensor


class FrameWorld(TokenWorld[FrameTokenizer, FrameDynamics, FrameMoment]):
    """A per-frame tokenizer and its dynamics. A frame's picture is made only where it is asked for."""

    unit = "frames"

    def start(self, segment: Segment) -> WorldState[FrameMoment]:
        """As in `TokenWorld`. Of as many frames as the context has room for, the first step forgets all but the newest: no others are read."""
        full = segment.mask.shape[1] == self.dynamics.config.context
        return super().start(segment[:, -1:] if full else segment)

    def recall(self, segment: Segment, last: int | Tensor) -> tuple[Tensor, FrameMoment]:
        self.check_past(segment.mask.shape[1])
        tokens = self.tokenizer.tokens_of(segment)
        past = self.dynamics.embed(tokens[:, :-1], segment.actions[:, :-1])
        return past, FrameMoment(at(tokens, last))

    def step(
        self, state: WorldState[FrameMoment], actions: Tensor, select: Select = gumbel_max
    ) -> tuple[Imagined, WorldState[FrameMoment]]:
        """As in `TokenWorld`; where the context has no room for another frame, the newest one stays."""
        dynamics, position, tokens = self.dynamics, state.position, state.moment.tokens
        if position // dynamics.positions_per_step >= dynamics.config.context - 1:
            position = 0
        if position % dynamics.positions_per_step == 0:
            position += self.read(dynamics.token_embedding(tokens[:, :-1]), state.cache, position)
        places = dynamics.transformer.places(position, dynamics.positions_per_step)
        imagined = self._imagine(tokens[:, -1:], actions, state.cache, places, select, next_token_again)
        return imagined, WorldState(FrameMoment(imagined.tokens), state.cache, position + dynamics.positions_per_step)

    def advance(
        self, moment: FrameMoment, actions: Tensor, cache: Cache, ages: Tensor, select: Select
    ) -> tuple[Imagined, FrameMoment]:
        """As in `TokenWorld`. The newest frame is read as a whole at each step, again or for the first time: where the
        context was full, it stands at another place now."""
        dynamics = self.dynamics
        begins = ages % (dynamics.config.context - 1) * dynamics.positions_per_step + 1
        places = dynamics.transformer.own_places(begins, 2 * dynamics.tokens)
        imagined = self._imagine(moment.tokens, actions, cache, places, select, next_token)
        return imagined, FrameMoment(imagined.tokens)

    def _imagine(
        self, unread: Tensor, actions: Tensor, cache: Cache, places: Places | OwnPlaces, select: Select,
        predict: Callable[..., tuple[Tensor, Tensor]],
    ) -> Imagined:  # fmt: skip
        """The step itself. unread: [B, n] of the newest frame's tokens; places: of those, the action, and the next frame's
        tokens but the last; predict: `next_token`, marked or not"""
        dynamics = self.dynamics
        inputs = torch.cat([dynamics.token_embedding(unread), dynamics.action_embedding(actions).unsqueeze(1)], dim=1)
        chosen: list[Tensor] = []
        for here in places.split([inputs.shape[1]] + [1] * (dynamics.tokens - 1)):
            if chosen:
                inputs = dynamics.token_embedding(chosen[-1]).unsqueeze(1)
            y, logits = predict(dynamics, inputs, cache, here)
            outlook = outlook if chosen else y
            chosen.append(select(logits))
        return Imagined(torch.stack(chosen, dim=1), outlook)

    def frames(self, moment: FrameMoment) -> Tensor:
        """As in `TokenWorld`. The one place where the decoder runs."""
        return self.tokenizer.decode(moment.tokens)

    def frames_of(self, frames: Tensor) -> Tensor:
        """What the tokenizer makes of them: a policy plays by what it has learned from (IRIS, section 2.3)."""
        return self.tokenizer.decode(self.tokenizer.encode(frames))

    @property
    def code_shape(self) -> tuple[int, int]:
        return self.tokenizer.tokens, self.tokenizer.config.quantizer.vector_dim

    def codes(self, moment: FrameMoment) -> Tensor:
        return self.tokenizer.embed(moment.tokens)

    def codes_of(self, frames: Tensor) -> Tensor:
        return self.tokenizer.embed(self.tokenizer.encode(frames))
