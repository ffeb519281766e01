"""What a policy is: actor and critic on a state that each observation moves on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from agent.config.policies import PolicyConfig
from agent.nets.actions import by_factor
from agent.nets.heads import VALUE_CODES, scalar_code
from agent.world_models.base import Reads


class PolicyOutput(NamedTuple):
    """What a policy predicts.

    Attributes:
        action_logits: [B, T, F, A], of every factor's choices.
        value: [B, T, value size], read by the policy's `value_code`.
    """

    action_logits: Tensor
    value: Tensor


class Policy(nn.Module, ABC):
    """Actor and critic, each linear, on the first part of a state [B, state].

    Observations are frames [C, H, W] uint8 or codes [number, dim], as `reads` says. A subclass is
    made with its config, the shape of an observation, and the number of each factor's choices.
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
        """Read a sequence in order to learn from it.

        Args:
            observations: [B, T, ...], in order of time.
            state: [B, state], before the first of them.

        Returns:
            What actor and critic read at each step, [B, T, width], and the state after.
        """

    @abstractmethod
    def burn_in(self, observations: Tensor, state: Tensor) -> Tensor:
        """As it plays: the state after observations [B, T, ...]."""

    def forward(self, observations: Tensor, state: Tensor) -> tuple[PolicyOutput, Tensor]:
        """observations: [B, T, ...]; state: [B, state] -> outputs, state after."""
        seen, state = self.read(observations, state)
        return PolicyOutput(
            by_factor(self.actor(seen), self.action_sizes), self.critic(seen)
        ), state

    def act(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step, without the critic.

        observations [B, ...] -> action logits [B, F, A], the state after
        """
        state = self.burn_in(observations.unsqueeze(1), state)
        return by_factor(self.actor(state[:, : self.actor.in_features]), self.action_sizes), state
