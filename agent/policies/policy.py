"""What a policy is: actor and critic on a state that each observation moves on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from agent.nets.actions import by_factor
from agent.nets.heads import VALUE_CODES, scalar_code
from agent.world_models.tokens import Reads


@dataclass
class PolicyConfig:
    """value: how the critic says a value, "two_hot" (of symlog) or "scalar" """

    value: str = "two_hot"


class PolicyOutput(NamedTuple):
    """action_logits: [B, T, F, A], of every factor's choices; value: [B, T, value size], for the policy's `value_code`."""

    action_logits: Tensor
    value: Tensor


class Policy(nn.Module, ABC):
    """Actor and critic, each linear, on a state [B, state] whose first part is what they read.

    Observations are what `reads` says: frames [C, H, W] uint8, or codes [number, dim]. Made with its config, the shape of
    an observation, and the number of each factor's choices.
    """

    reads: Reads

    def __init__(self, config: PolicyConfig, actions: tuple[int, ...]) -> None:
        super().__init__()
        self.config = config
        self.value_code = scalar_code(config.value, VALUE_CODES)
        self.action_sizes = actions

    def add_heads(self, width: int) -> None:
        """The last of a policy's parts to be made. Values start at 0."""
        self.actor = nn.Linear(width, sum(self.action_sizes))
        self.critic = nn.Linear(width, self.value_code.size)
        nn.init.zeros_(self.critic.weight)
        nn.init.zeros_(self.critic.bias)

    @abstractmethod
    def initial_state(self, batch: int) -> Tensor:
        """The state at an episode's start, [B, state]."""

    @abstractmethod
    def read(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """As it learns. observations: [B, T, ...], in order of time; state: before the first of them
        -> what actor and critic read at each, [B, T, width]; the state after
        """

    @abstractmethod
    def remember(self, observations: Tensor, state: Tensor) -> Tensor:
        """As it plays: the state after observations [B, T, ...]."""

    def forward(self, observations: Tensor, state: Tensor) -> tuple[PolicyOutput, Tensor]:
        """observations: [B, T, ...]; state: [B, state] -> outputs, state after."""
        seen, state = self.read(observations, state)
        return PolicyOutput(by_factor(self.actor(seen), self.action_sizes), self.critic(seen)), state

    def act(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step, without the critic: observations [B, ...] -> action logits [B, F, A], the state after."""
        state = self.remember(observations.unsqueeze(1), state)
        return by_factor(self.actor(state[:, : self.actor.in_features]), self.action_sizes), state
