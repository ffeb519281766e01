"""What a policy is: actor and critic on a state that each observation moves on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from agent.config.policies import PolicyConfig
from agent.nets.actions import by_factor
from agent.nets.heads import VALUE_CODES
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
        self.value_code = VALUE_CODES[config.value]()
        self.action_sizes = actions

    def add_heads(self, width: int) -> None:
        """The last of a policy's parts to be made. Values start at 0."""
        self.actor = nn.Linear(width, sum(self.action_sizes))
        self.critic = nn.Linear(width, self.value_code.size)
        nn.init.zeros_(self.critic.weight)
        nn.init.zeros_(self.critic.bias)

    @abstractmethod
    def initial_state(self, batch: int) -> Tensor:
        """The state at an episode's start, zeros [B, state]."""

    @abstractmethod
    def run(
        self, observations: Tensor, state: Tensor, learning: bool
    ) -> tuple[list[Tensor], Tensor]:
        """Read observations [B, T, ...] in order.

        Args:
            state: [B, state], before the first of them.
            learning: Whether to learn from it (with dropout), or to play.

        Returns:
            What actor and critic read at each of the T steps, [B, width], and the state after.
        """

    def forward(self, observations: Tensor, state: Tensor) -> tuple[PolicyOutput, Tensor]:
        """To learn from: observations [B, T, ...], state [B, state] -> outputs, the state after."""
        seen, state = self.run(observations, state, learning=True)
        features = torch.stack(seen, dim=1)
        logits = by_factor(self.actor(features), self.action_sizes)
        return PolicyOutput(logits, self.critic(features)), state

    def burn_in(self, observations: Tensor, state: Tensor | None = None) -> Tensor:
        """In play: the state after observations [B, T, ...], from an episode's start by default.

        Padding counts as black frames, as published.
        """
        state = self.initial_state(len(observations)) if state is None else state
        return self.run(observations, state, learning=False)[1]

    def act(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """In play: observations [B, ...] -> action logits [B, F, A], the state after."""
        seen, state = self.run(observations.unsqueeze(1), state, learning=False)
        return by_factor(self.actor(seen[-1]), self.action_sizes), state
