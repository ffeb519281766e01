"""Dynamics over the tokens of whole frames, and the world that they and the per-frame VQ-VAE make (IRIS, section 2.2;
DART, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.nets.actions import ActionEmbedding
from agent.nets.heads import REWARD_CODES, Select, gumbel_max, mlp_head, scalar_code
from agent.nets.initialization import initialize_like_gpt
from agent.nets.repeated import repeated
from agent.nets.transformer import Cache, CausalTransformer, OwnPlaces, Places, TransformerConfig
from agent.segment import Segment, masked_mean
from agent.tokenizers.frame import FrameTokenizer
from envs.errors import BadInput
from envs.spaces import Spaces


def published_transformer() -> TransformerConfig:
    """Of IRIS and DART alike."""
    return TransformerConfig(layers=10, heads=4, width=256, dropout=0.1)


@dataclass
class FrameDynamicsConfig:
    """context: frames that the transformer sees
    reward:  "two_hot" (of symlog) or "sign" (three classes)
    tokens_weight, reward_weight, end_weight: of the loss terms
    """

    transformer: TransformerConfig = field(default_factory=published_transformer)
    context: int = 20
    reward: str = "sign"
    tokens_weight: float = 1.0
    reward_weight: float = 1.0
    end_weight: float = 1.0


class DynamicsOutput(NamedTuple):
    """tokens: [B, T - 1, K, codebook] logits of the tokens of the second frame and those after it
    reward:    [B, T, reward size] logits
    end:       [B, T, 2] logits: goes on, ends
    """

    tokens: Tensor
    reward: Tensor
    end: Tensor


class FrameDynamics(nn.Module):
    """A causal transformer over [z1 … zK, action] a step.

    The next frame's z1 is predicted at the action, its z2 at its z1, and so on; reward and end at the action.
    """

    def __init__(self, config: FrameDynamicsConfig, spaces: Spaces, codebook_size: int, tokens: int) -> None:
        super().__init__()
        if config.context < 2:
            raise BadInput(
                f"agent.dynamics.context={config.context} was given; a frame is predicted from the one before it, so choose at "
                "least 2."
            )
        self.config = config
        self.tokens = tokens
        self.positions_per_step = tokens + 1
        self.reward_code = scalar_code(config.reward, REWARD_CODES)
        width = config.transformer.width
        self.token_embedding = nn.Embedding(codebook_size, width)
        self.action_embedding = ActionEmbedding(spaces.actions, width)
        self.transformer = CausalTransformer(config.transformer, config.context * self.positions_per_step)
        self.token_head = mlp_head(width, codebook_size)
        self.reward_head = mlp_head(width, self.reward_code.size)
        self.end_head = mlp_head(width, 2)
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
        """The terms of the loss over real steps, weights included, their sum as "loss", and "token_accuracy".

        tokens: [B, T, K] of all frames, from the tokenizer in evaluation mode, without gradient
        """
        c = self.config
        output, following = self(tokens, segment.actions), tokens[:, 1:]
        predicted = output.tokens.float()
        token_error = F.cross_entropy(
            predicted.flatten(0, 2), following.flatten(), reduction="none"
        ).view_as(following)
        real = segment.mask[:, :-1, None].expand_as(following)  # a real step leads to a real frame
        end_error = F.cross_entropy(
            output.end.float().flatten(0, 1), segment.terminated.long().flatten(), reduction="none"
        ).view_as(segment.mask)
        reward_error = self.reward_code.loss(output.reward, segment.rewards)
        losses = {
            "tokens": c.tokens_weight * masked_mean(token_error, real),
            "reward": c.reward_weight * masked_mean(reward_error, segment.mask),
            "end": c.end_weight * masked_mean(end_error, segment.mask),
        }
        correct = (predicted.argmax(dim=-1) == following).float()
        return {"loss": sum(losses.values()), **losses, "token_accuracy": masked_mean(correct, real)}


@repeated
def _read_again(dynamics: FrameDynamics, inputs: Tensor, cache: Cache, places: Places | OwnPlaces) -> tuple[Tensor, Tensor]:
    """One pass of the transformer on the way to the next token -> what comes of the last input, [B, width], and the
    token's logits, [B, codebook].

    This, and not the whole step of K passes as in Δ-IRIS, is what torch.compile takes once: what is given nothing but
    tensors and modules and returns nothing but tensors it need not even trace again. A step of IRIS has 160 layers.
    """
    y = dynamics.transformer(inputs, cache, places)
    return y, dynamics.token_head(y)


class Imagined(NamedTuple):
    """What the world answers to an action. Its picture is made only where it is asked for, by `FrameWorld.frames`.

    tokens:     [B, K] int64, of the next frame
    embeddings: [B, K, dim] their codes
    outlook:    [B, width] from which `FrameWorld.outcome` reads reward and end
    """

    tokens: Tensor
    embeddings: Tensor
    outlook: Tensor


class WorldState(NamedTuple):
    """Where an imagined episode stands.

    tokens:     [B, K] int64, of the newest frame; the transformer has read all but the last of them
    embeddings: [B, K, dim] their codes
    cache:      the transformer's keys and values, written in place by `step`: of two states that came
                from the same one, only the newer may go on
    position:   how much of the cache is filled; the same for the whole batch, hence a plain integer
    """

    tokens: Tensor
    embeddings: Tensor
    cache: Cache
    position: int


class FrameWorld:
    """A per-frame tokenizer and a dynamics as one world to imagine in."""

    def __init__(self, tokenizer: FrameTokenizer, dynamics: FrameDynamics) -> None:
        self.tokenizer = tokenizer
        self.dynamics = dynamics

    def start(self, segment: Segment) -> WorldState:
        """The state at the segment's last frame, having seen its frames and, but for the last, its actions."""
        batch, steps = segment.mask.shape
        if steps > self.dynamics.config.context:
            raise BadInput(
                f"{steps} past frames were given to a world model with a context of "
                f"{self.dynamics.config.context} frames; give fewer, or train one with a longer context."
            )
        tokens = self.tokenizer.encode(segment.frames.flatten(0, 1)).unflatten(0, (batch, steps))
        cache = self.dynamics.transformer.empty_cache(batch)
        position = self._read(self.dynamics.embed(tokens, segment.actions)[:, :-2], cache)
        newest = tokens[:, -1].contiguous()
        return WorldState(newest, self.tokenizer.embed(newest), cache, position)

    def step(self, state: WorldState, actions: Tensor, select: Select = gumbel_max) -> tuple[Imagined, WorldState]:
        """actions: [B, F] int64; `select` chooses tokens from their logits.

        When the transformer's context has no room for another frame, what came before the newest one is forgotten.
        """
        dynamics, position = self.dynamics, state.position
        left = dynamics.transformer.positions.num_embeddings - position
        if left < 2 + dynamics.tokens:  # the newest frame's last token, the action, the next frame
            position = self._read(dynamics.token_embedding(state.tokens[:, :-1]), state.cache)
        places = dynamics.transformer.places(position, dynamics.positions_per_step)
        imagined = self.imagine(state.tokens, actions, state.cache, places, select)
        position += dynamics.positions_per_step
        return imagined, WorldState(imagined.tokens, imagined.embeddings, state.cache, position)

    def imagine(
        self, tokens: Tensor, actions: Tensor, cache: Cache, places: Places | OwnPlaces, select: Select
    ) -> Imagined:
        """The step itself. places: of the newest frame's last token, the action, and the next frame's tokens but the last."""
        dynamics = self.dynamics
        last, action = dynamics.token_embedding(tokens[:, -1:]), dynamics.action_embedding(actions).unsqueeze(1)
        inputs = torch.cat([last, action], dim=1)
        chosen: list[Tensor] = []
        for at in places.split([2] + [1] * (dynamics.tokens - 1)):
            if chosen:
                inputs = dynamics.token_embedding(chosen[-1]).unsqueeze(1)
            y, logits = _read_again(dynamics, inputs, cache, at)
            outlook = outlook if chosen else y
            chosen.append(select(logits))
        following = torch.stack(chosen, dim=1)
        return Imagined(following, self.tokenizer.embed(following), outlook)

    def _read(self, past: Tensor, cache: Cache) -> int:
        """Fills the cache from its beginning. past: [B, n, width] -> n."""
        if past.shape[1]:  # nothing, where there is one frame of one token
            self.dynamics.transformer(past, cache, self.dynamics.transformer.places(0, past.shape[1]))
        return past.shape[1]

    def frames(self, seen: WorldState | Imagined) -> Tensor:
        """What stands there, as a picture: [B, C, H, W] uint8. The one place where the decoder runs."""
        return self.tokenizer.decode(seen.tokens)

    def outcome(self, outlook: Tensor, select: Select = gumbel_max) -> tuple[Tensor, Tensor]:
        """What comes of actions besides frames; all steps of a rollout at once, as nothing in it depends on them.

        outlook: [..., width] -> rewards [...] float32, ends [...] bool
        """
        dynamics = self.dynamics
        rewards = dynamics.reward_code.sample(dynamics.reward_head(outlook), select)
        return rewards, select(dynamics.end_head(outlook)).bool()

    def end_probability(self, outlook: Tensor) -> Tensor:
        """That by which `outcome` samples the end. outlook: [..., width] -> [...] float32."""
        return self.dynamics.end_head(outlook).float().softmax(dim=-1)[..., 1]
