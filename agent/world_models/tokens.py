"""What dynamics over tokens have in common, whatever they read of a step: their heads, their loss, and what a world
makes of what they say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from agent.nets.heads import REWARD_CODES, Select, gumbel_max, mlp_head, scalar_code
from agent.nets.transformer import TransformerConfig
from agent.segment import Segment, masked_mean
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


class DynamicsOutput(NamedTuple):
    """tokens: [B, S, K, codebook] logits of the tokens that each step leads to
    reward:    [B, T, reward size] logits
    end:       [B, T, 2] logits: goes on, ends
    """

    tokens: Tensor
    reward: Tensor
    end: Tensor


class TokenDynamics(nn.Module):
    """Predicts the tokens that come next, and at the action the reward and the end."""

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


Tokenizer, Dynamics = TypeVar("Tokenizer", bound=nn.Module), TypeVar("Dynamics", bound=TokenDynamics)


class TokenWorld(Generic[Tokenizer, Dynamics]):
    """A tokenizer and a dynamics as one world to imagine in."""

    unit = "steps"  # of its context

    def __init__(self, tokenizer: Tokenizer, dynamics: Dynamics) -> None:
        self.tokenizer = tokenizer
        self.dynamics = dynamics

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
