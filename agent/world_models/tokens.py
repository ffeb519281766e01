"""What dynamics over tokens have in common, whatever they read of a step: their heads, their loss, and what a world
makes of what they say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from agent.nets.heads import REWARD_CODES, Select, gumbel_max, mlp_head, scalar_code
from agent.nets.transformer import TransformerConfig
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


class DynamicsOutput(NamedTuple):
    """tokens: [B, S, K, codebook] logits of the tokens that each step leads to
    reward:    [B, T, reward size] logits
    end:       [B, T, 2] logits: goes on, ends
    """

    tokens: Tensor
    reward: Tensor
    end: Tensor


class TokenDynamics(nn.Module, ABC):
    """Predicts the tokens that come next, and at the action the reward and the end. Made with its config, the spaces,
    the number of codes and of tokens a step."""

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
State = TypeVar("State", bound=tuple)


class Imagined(NamedTuple):
    """What comes of an action besides the next frame, which stands in the next state.

    tokens:  [B, K] int64, those that led to it
    outlook: [B, width] from which `TokenWorld.outcome` reads reward and end
    """

    tokens: Tensor
    outlook: Tensor


class TokenWorld(ABC, Generic[ItsTokenizer, ItsDynamics, State]):
    """A tokenizer and a dynamics as one world to imagine in.

    One state leads to the next by actions; rewards and ends are read from what `step` gives with it.
    """

    unit = "steps"  # of its context

    def __init__(self, tokenizer: ItsTokenizer, dynamics: ItsDynamics, reads: Reads = "frames") -> None:
        """reads: what the policy in it does"""
        self.tokenizer = tokenizer
        self.dynamics = dynamics
        self.reads = reads

    @abstractmethod
    def start(self, segment: Segment) -> State:
        """The state at the last frame of a segment [B, T], having seen its frames and, but for the last, its actions."""

    @abstractmethod
    def step(self, state: State, actions: Tensor, select: Select = gumbel_max) -> tuple[Imagined, State]:
        """actions: [B, F] int64; `select` chooses tokens from their logits. Past the context, what came before is forgotten."""

    @abstractmethod
    def frames(self, state: State) -> Tensor:
        """What stands there, as a picture: [B, C, H, W] uint8."""

    @abstractmethod
    def frames_of(self, frames: Tensor) -> Tensor:
        """Real frames [..., C, H, W] uint8 as `frames` would show them."""

    @property
    @abstractmethod
    def code_shape(self) -> tuple[int, int]:
        """Of a frame's codes: number, dim."""

    @abstractmethod
    def codes(self, state: State) -> Tensor:
        """What stands there, as `codes_of`: [B, number, dim]."""

    @abstractmethod
    def codes_of(self, frames: Tensor) -> Tensor:
        """Real frames [..., C, H, W] uint8 as the vectors that the dynamics reads of them, [..., number, dim]."""

    def observe(self, frames: Tensor) -> Tensor:
        """What the policy reads of real frames. [..., C, H, W] uint8 -> those, or codes [..., number, dim] float."""
        return self.frames_of(frames) if self.reads == "frames" else self.codes_of(frames)

    def observation(self, state: State) -> Tensor:
        """What the policy reads of imagined ones. -> as `observe`, [B, ...]"""
        return self.frames(state) if self.reads == "frames" else self.codes(state)

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
