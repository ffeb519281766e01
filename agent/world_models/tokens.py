"""What dynamics over tokens have in common, whatever they read of a step: their heads, their loss, and what a world
makes of what they say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.nets.heads import REWARD_CODES, Select, gumbel_max, mlp_head, scalar_code
from agent.nets.transformer import Cache, TransformerConfig
from agent.segment import Segment, masked_mean
from agent.tokenizers.tokenizer import Tokenizer
from envs.errors import BadInput


@dataclass
class TokenDynamicsConfig:
    """context: steps that the transformer sees
    reward:  "two_hot" (of symlog) or "sign" (three classes)
    tokens_weight, reward_weight, end_weight: of the loss terms
    """

    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    context: int = 21
    reward: str = "two_hot"
    tokens_weight: float = 1.0
    reward_weight: float = 1.0
    end_weight: float = 1.0

    def steps_needed(self, burn_in: int, horizon: int) -> int:
        """Of the context, by an imagination that sees so many frames and takes so many steps."""
        return burn_in

    def check_steps(self, steps: int) -> None:
        """Raises BadInput if sequences of so many steps are too few for it to learn from."""


class DynamicsOutput(NamedTuple):
    """tokens: [B, S, K, codebook] logits of the tokens that each step leads to
    reward:    [B, T, reward size] logits
    end:       [B, T, 2] logits: goes on, ends
    """

    tokens: Tensor
    reward: Tensor
    end: Tensor


class TokenDynamics(nn.Module, ABC):
    """Predicts the tokens that come next, and at the action the reward and the end. Made with its config, the spaces, and
    the tokenizer whose tokens they are."""

    def __init__(self, config: TokenDynamicsConfig) -> None:
        super().__init__()
        self.config = config
        self.reward_code = scalar_code(config.reward, REWARD_CODES)

    def add_heads(self, codebook_size: int) -> None:
        """The last of a dynamics' parts to be made."""
        width = self.config.transformer.width
        self.token_head = mlp_head(width, codebook_size)
        self.reward_head = mlp_head(width, self.reward_code.size)
        self.end_head = mlp_head(width, 2)

    @abstractmethod
    def loss(self, segment: Segment, tokens: Tensor) -> dict[str, Tensor]:
        """As `prediction_loss`. tokens: of `Tokenizer.tokens_of`, in evaluation mode, without gradient"""

    def prediction_loss(self, output: DynamicsOutput, segment: Segment, tokens: Tensor) -> dict[str, Tensor]:
        """The terms of the loss over real steps, weights included, their sum as "loss", and "token_accuracy".

        output: of a segment [B, T]; tokens: [B, T - 1, K], those that its steps but the last led to
        """
        c, predicted = self.config, output.tokens.float()
        token_error = F.cross_entropy(predicted.flatten(0, 2), tokens.flatten(), reduction="none").view_as(tokens)
        real = segment.mask[:, :-1, None].expand_as(tokens)  # a real step leads to a real frame
        end_error = F.cross_entropy(
            output.end.float().flatten(0, 1), segment.terminated.long().flatten(), reduction="none"
        ).view_as(segment.mask)
        reward_error = self.reward_code.loss(output.reward, segment.rewards)
        losses = {
            "tokens": c.tokens_weight * masked_mean(token_error, real),
            "reward": c.reward_weight * masked_mean(reward_error, segment.mask),
            "end": c.end_weight * masked_mean(end_error, segment.mask),
        }
        correct = (predicted.argmax(dim=-1) == tokens).float()
        return {"loss": sum(losses.values()), **losses, "token_accuracy": masked_mean(correct, real)}


Reads = Literal["frames", "codes"]
"""What a policy reads of a world: frames, or the vectors that the dynamics' own tokens stand for."""

ItsTokenizer, ItsDynamics = TypeVar("ItsTokenizer", bound=Tokenizer), TypeVar("ItsDynamics", bound=TokenDynamics)
Moment = TypeVar("Moment", bound=tuple[Tensor, ...])
"""What a world knows of the newest frame and its transformer has not read yet; tensors [B, ...]."""


class WorldState(NamedTuple, Generic[Moment]):
    """Where an imagined episode stands.

    moment:   at its newest frame
    cache:    the transformer's keys and values, written in place by `step`: of two states that came
              from the same one, only the newer may go on
    position: how much of the cache is filled; the same for the whole batch, hence a plain integer
    """

    moment: Moment
    cache: Cache
    position: int


class Imagined(NamedTuple):
    """What comes of an action besides the next frame, which stands in the next state.

    tokens:  [B, K] int64, those that led to it
    outlook: [B, width] from which `TokenWorld.outcome` reads reward and end
    """

    tokens: Tensor
    outlook: Tensor


def at(sequence: Tensor, place: int | Tensor) -> Tensor:
    """[B, n, ...] -> [B, ...] at one place, or [B] int64 of each row's own."""
    if isinstance(place, int):
        return sequence[:, place].contiguous()
    return sequence[torch.arange(len(place), device=place.device), place]


class TokenWorld(ABC, Generic[ItsTokenizer, ItsDynamics, Moment]):
    """A tokenizer and a dynamics as one world to imagine in.

    One state leads to the next by actions; rewards and ends are read from what `step` gives with it. `start` and `step`
    are for a batch that begins together; `recall` and `advance`, of which agent/world_models/staggered.py is made, leave
    to each row its own age.
    """

    unit = "steps"  # of its context

    def __init__(self, tokenizer: ItsTokenizer, dynamics: ItsDynamics, reads: Reads = "frames") -> None:
        """reads: what the policy in it does"""
        self.tokenizer = tokenizer
        self.dynamics = dynamics
        self.reads = reads

    def dynamics_loss(self, segment: Segment) -> dict[str, Tensor]:
        """What the dynamics learns from a segment [B, T]."""
        with torch.no_grad():
            tokens = self.tokenizer.tokens_of(segment)
        return self.dynamics.loss(segment, tokens)

    def start(self, segment: Segment) -> WorldState[Moment]:
        """The state at the last frame of a segment [B, T], having seen its frames and, but for the last, its actions.

        Raises BadInput if they are more than the context.
        """
        batch, steps = segment.mask.shape
        past, moment = self.recall(segment, steps - 1)
        cache = self.dynamics.transformer.empty_cache(batch)
        return WorldState(moment, cache, self.read(past, cache))

    def read(self, inputs: Tensor, cache: Cache, position: int = 0) -> int:
        """Fills the cache from a position on. inputs: [B, n, width] -> n."""
        if inputs.shape[1]:
            self.dynamics.transformer(inputs, cache, self.dynamics.transformer.places(position, inputs.shape[1]))
        return inputs.shape[1]

    @abstractmethod
    def recall(self, segment: Segment, last: int | Tensor) -> tuple[Tensor, Moment]:
        """What there is to know of each row's frames up to `last`.

        segment: [B, T], padding before its frames among them as if there had been black ones; last: T − 1, or [B] int64 of each row's own
        -> what the transformer reads of the T − 1 first frames, up to what is `Moment`, [B, n, width] (anything from
        `last` on); what stands at the last

        Raises BadInput if T is more than the context.
        """

    @abstractmethod
    def step(
        self, state: WorldState[Moment], actions: Tensor, select: Select = gumbel_max
    ) -> tuple[Imagined, WorldState[Moment]]:
        """actions: [B, F] int64; `select` chooses tokens from their logits. Past the context, what came before is forgotten."""

    @abstractmethod
    def advance(
        self, moment: Moment, actions: Tensor, cache: Cache, ages: Tensor, select: Select
    ) -> tuple[Imagined, Moment]:
        """A step of rows that are each at a place of its own, `OwnPlaces` from 1 on in the cache; static shapes.

        ages: [B] int64, frames before the newest, those too that were forgotten since; actions, select: as in `step`
        """

    @abstractmethod
    def frames(self, moment: Moment) -> Tensor:
        """What stands there, as a picture: [B, C, H, W] uint8."""

    @abstractmethod
    def frames_of(self, frames: Tensor) -> Tensor:
        """Real frames [..., C, H, W] uint8 as `frames` would show them."""

    @property
    @abstractmethod
    def code_shape(self) -> tuple[int, int]:
        """Of a frame's codes: number, dim."""

    @abstractmethod
    def codes(self, moment: Moment) -> Tensor:
        """What stands there, as `codes_of`: [B, number, dim]."""

    @abstractmethod
    def codes_of(self, frames: Tensor) -> Tensor:
        """Real frames [..., C, H, W] uint8 as the vectors that the dynamics reads of them, [..., number, dim]."""

    def observe(self, frames: Tensor) -> Tensor:
        """What the policy reads of real frames. [..., C, H, W] uint8 -> those, or codes [..., number, dim] float."""
        return self.frames_of(frames) if self.reads == "frames" else self.codes_of(frames)

    def observation(self, moment: Moment) -> Tensor:
        """What the policy reads of imagined ones. -> as `observe`, [B, ...]"""
        return self.frames(moment) if self.reads == "frames" else self.codes(moment)

    def check_past(self, steps: int) -> None:
        """Raises BadInput if so many past frames are more than the context."""
        if steps > self.dynamics.config.context:
            raise BadInput(
                f"{steps} past frames were given to a world model with a context of "
                f"{self.dynamics.config.context} {self.unit}; give fewer, or train one with a longer context."
            )

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
