"""What all dynamics over tokens share: heads, loss, and the world they make with a tokenizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.config.world_models import DynamicsConfig
from agent.nets.heads import REWARD_CODES, Select, gumbel_max, mlp_head
from agent.nets.initialization import initialize_like_gpt
from agent.nets.transformer import Cache, CausalTransformer
from agent.segment import Segment, masked_mean
from envs.errors import BadInput


class DynamicsOutput(NamedTuple):
    """The predictions for a segment, as logits.

    Attributes:
        tokens: [B, S, K, codebook], of the tokens that each step leads to.
        reward: [B, T, reward size].
        end: [B, T, 2]: the episode goes on, ends.
    """

    tokens: Tensor
    reward: Tensor
    end: Tensor


class Dynamics(nn.Module, ABC):
    """Predicts the next tokens, and at each action the reward and the end.

    A subclass is made with its config, the spaces, and the tokenizer whose tokens it predicts.
    """

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        self.config = config
        self.reward_code = REWARD_CODES[config.reward]()

    def add_transformer(self, positions_per_step: int, codebook_size: int) -> None:
        """Make transformer and output heads. Called last in a subclass's constructor."""
        self.positions_per_step = positions_per_step
        sizes, context = self.config.transformer, self.config.context
        self.transformer = CausalTransformer(sizes, context * positions_per_step)
        self.token_head = mlp_head(sizes.width, codebook_size)
        self.reward_head = mlp_head(sizes.width, self.reward_code.size)
        self.end_head = mlp_head(sizes.width, 2)
        self.apply(initialize_like_gpt)

    @abstractmethod
    def loss(self, segment: Segment, tokens: Tensor) -> dict[str, Tensor]:
        """The terms of `prediction_loss` for a segment [B, T].

        Args:
            tokens: From `Tokenizer.tokens_of`, in evaluation mode and without gradient.
        """

    def prediction_loss(
        self, output: DynamicsOutput, segment: Segment, tokens: Tensor
    ) -> dict[str, Tensor]:
        """The loss over the real steps of a segment [B, T].

        Args:
            tokens: [B, T − 1, K], the tokens that each step but the last led to.

        Returns:
            The weighted terms, their sum as "loss", and "token_accuracy".
        """
        c, predicted = self.config, output.tokens.float()
        token_error = F.cross_entropy(
            predicted.flatten(0, 2), tokens.flatten(), reduction="none"
        ).view_as(tokens)
        end_error = F.cross_entropy(
            output.end.float().flatten(0, 1), segment.terminated.long().flatten(), reduction="none"
        ).view_as(segment.mask)
        reward_error = self.reward_code.loss(output.reward, segment.rewards)
        real = segment.mask[:, :-1, None].expand_as(tokens)  # a real step leads to a real frame
        losses = {
            "tokens": c.tokens_weight * masked_mean(token_error, real),
            "reward": c.reward_weight * masked_mean(reward_error, segment.mask),
            "end": c.end_weight * masked_mean(end_error, segment.mask),
        }
        accuracy = masked_mean((predicted.argmax(dim=-1) == tokens).float(), real)
        return {"loss": sum(losses.values()), **losses, "token_accuracy": accuracy}


Reads = Literal["frames", "codes"]
"""What a policy reads: frames, or the vectors that the dynamics' own tokens stand for."""

Latent = TypeVar("Latent", bound=tuple[Tensor, ...])
"""The newest frame as a world knows it, not yet read by its transformer; tensors [B, ...]."""


class WorldState(NamedTuple, Generic[Latent]):
    """Where an imagined episode stands.

    Attributes:
        latent: At its newest frame.
        cache: The transformer's keys and values, written in place by `step`: of two states that
            came from the same one, only the newer may go on.
        position: How much of the cache is filled; the same for the whole batch, hence an integer.
    """

    latent: Latent
    cache: Cache
    position: int


class Imagined(NamedTuple):
    """What a step imagines, besides the next frame, which is in the next state.

    Attributes:
        tokens: [B, K] int64, the tokens that lead to the next frame.
        action_features: [B, width], from which `World.outcome` predicts reward and end.
    """

    tokens: Tensor
    action_features: Tensor


def at(sequence: Tensor, index: int | Tensor) -> Tensor:
    """Select [B, ...] of a sequence [B, n, ...], at one index or at each row's own ([B] int64)."""
    if isinstance(index, int):
        return sequence[:, index].contiguous()
    return sequence[torch.arange(len(index), device=index.device), index]


class World(ABC, Generic[Latent]):
    """A tokenizer and a dynamics as one world to imagine in.

    `step` leads from one state to the next; `outcome` predicts rewards and ends from what `step`
    returns. `start` and `step` are for a batch that begins together. `encode_history` and
    `step_rows` let each row have its own age (agent/world_models/per_row.py).
    """

    def __init__(self, tokenizer: Any, dynamics: Any, reads: Reads = "frames") -> None:
        self.tokenizer = tokenizer
        self.dynamics = dynamics
        self.reads = reads

    def dynamics_loss(self, segment: Segment) -> dict[str, Tensor]:
        """The dynamics' loss on a segment [B, T]."""
        with torch.no_grad():
            tokens = self.tokenizer.tokens_of(segment)
        return self.dynamics.loss(segment, tokens)

    def start(self, segment: Segment) -> WorldState[Latent]:
        """The state at the last frame of a segment [B, T].

        It has seen all frames of the segment, and all actions but the last.

        Raises:
            BadInput: If the segment is longer than the context.
        """
        batch, steps = segment.mask.shape
        past, latent = self.encode_history(segment, steps - 1)
        cache = self.dynamics.transformer.empty_cache(batch)
        return WorldState(latent, cache, self.read(past, cache))

    def read(self, inputs: Tensor, cache: Cache, position: int = 0) -> int:
        """Fill the cache with inputs [B, n, width], from a position on. Returns n."""
        transformer, count = self.dynamics.transformer, inputs.shape[1]
        if count:
            transformer(inputs, cache, transformer.cache_positions(position, count))
        return count

    @abstractmethod
    def look(self, frames: Tensor) -> Latent:
        """What stands at the first frames of episodes, [B, C, H, W] uint8."""

    @abstractmethod
    def encode_history(self, segment: Segment, last: int | Tensor) -> tuple[Tensor, Latent]:
        """Encode each row's frames up to `last`.

        Args:
            segment: [B, T]. Padding before a row's frames counts as black frames.
            last: T − 1, or [B] int64, each row's own.

        Returns:
            The transformer's inputs for the first T − 1 frames, except what `Latent` holds,
            [B, n, width] (arbitrary from `last` on), and the latent at `last`.

        Raises:
            BadInput: If T is more than the context.
        """

    @abstractmethod
    def step(
        self, state: WorldState[Latent], actions: Tensor, select: Select = gumbel_max
    ) -> tuple[Imagined, WorldState[Latent]]:
        """Imagine one step. Where the context is full, the past is forgotten.

        Args:
            actions: [B, F] int64.
            select: Chooses tokens from their logits.
        """

    @abstractmethod
    def step_rows(
        self, latent: Latent, actions: Tensor, cache: Cache, ages: Tensor, select: Select
    ) -> tuple[Imagined, Latent]:
        """Imagine one step of rows with different ages, in static shapes.

        Args:
            actions: [B, F] int64.
            cache: Filled at each row's own `row_positions`, from 1 on.
            ages: [B] int64, the number of frames before the newest, forgotten ones included.
            select: Chooses tokens from their logits.
        """

    @abstractmethod
    def frames(self, latent: Latent) -> Tensor:
        """The newest frame as a picture, [B, C, H, W] uint8."""

    @property
    @abstractmethod
    def code_shape(self) -> tuple[int, int]:
        """Number and dimension of a frame's codes."""

    @abstractmethod
    def codes(self, latent: Latent) -> Tensor:
        """The newest frame as codes, [B, number, dim]."""

    def observation(self, latent: Latent) -> Tensor:
        """What the policy reads of the newest frame: `frames` or `codes`."""
        return self.frames(latent) if self.reads == "frames" else self.codes(latent)

    def observe(self, frames: Tensor) -> Tensor:
        """What the policy reads of real frames [..., C, H, W] uint8."""
        latent = self.look(frames.flatten(0, -4))
        return self.observation(latent).unflatten(0, frames.shape[:-3])

    def check_past(self, frames: int) -> None:
        """Raises BadInput if so many past frames are more than the context."""
        if frames > self.dynamics.config.context:
            raise BadInput(
                f"{frames} past frames were given to a world model with a context of "
                f"{self.dynamics.config.context}; give fewer, or train one with a longer context."
            )

    def outcome(
        self, action_features: Tensor, select: Select = gumbel_max
    ) -> tuple[Tensor, Tensor]:
        """Sample what comes of actions, for all steps of a rollout at once.

        action_features: [..., width] -> rewards [...] float32, ends [...] bool
        """
        dynamics = self.dynamics
        rewards = dynamics.reward_code.sample(dynamics.reward_head(action_features), select)
        return rewards, select(dynamics.end_head(action_features)).bool()

    def end_probability(self, action_features: Tensor) -> Tensor:
        """Probability of the end, by which `outcome` samples. [..., width] -> [...] float32."""
        return self.dynamics.end_head(action_features).float().softmax(dim=-1)[..., 1]
