"""The policy of Δ-IRIS: a frame encoder, an LSTM, a linear actor and a linear critic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from agent.nets.actions import by_factor
from agent.nets.conv import ConvConfig, Encoder, pixels
from agent.nets.heads import VALUE_CODES, scalar_code
from envs.spaces import Spaces


@dataclass
class CnnLstmPolicyConfig:
    """conv:  of the frame encoder
    latent:   channels of its output
    hidden:   width of the LSTM
    value:    "two_hot" (of symlog) or "scalar"
    """

    conv: ConvConfig = field(default_factory=lambda: ConvConfig(base=32))
    latent: int = 16
    hidden: int = 512
    value: str = "two_hot"


class PolicyOutput(NamedTuple):
    """action_logits: [B, T, F, A], of every factor's choices; value: [B, T, value size], for the policy's `value_code`."""

    action_logits: Tensor
    value: Tensor


class CnnLstmPolicy(nn.Module):
    """Actor and critic on what an LSTM remembers of the frames."""

    def __init__(self, config: CnnLstmPolicyConfig, spaces: Spaces) -> None:
        super().__init__()
        self.config = config
        self.value_code = scalar_code(config.value, VALUE_CODES)
        self.action_sizes = spaces.actions
        conv = config.conv.fitted(spaces.size)
        features = config.latent * conv.output_size(spaces.size) ** 2
        self.encoder = Encoder(conv, channels=spaces.channels, latent=config.latent)
        self.lstm = nn.LSTMCell(features, config.hidden)
        self.actor = nn.Linear(config.hidden, sum(spaces.actions))
        self.critic = nn.Linear(config.hidden, self.value_code.size)
        nn.init.zeros_(self.critic.weight)
        nn.init.zeros_(self.critic.bias)

    def initial_state(self, batch: int) -> Tensor:
        """The state at an episode's start: zeros, [B, 2 hidden] (what the LSTM says, what it remembers)."""
        return self.actor.weight.new_zeros(batch, 2 * self.config.hidden)

    def forward(self, frames: Tensor, state: Tensor) -> tuple[PolicyOutput, Tensor]:
        """frames: [B, T, C, H, W] uint8, in order of time; state before the first of them -> outputs, state after.

        The encoder and the LSTM's input side see all steps as one batch; only its hidden side is a loop.
        """
        says, remembers = state.chunk(2, dim=-1)
        said = []
        for gates in self._input_gates(frames).unbind(dim=1):
            says, remembers = self._advance(gates, says, remembers)
            said.append(says)
        h = torch.stack(said, dim=1)
        return PolicyOutput(by_factor(self.actor(h), self.action_sizes), self.critic(h)), torch.cat([says, remembers], dim=-1)

    def remember(self, frames: Tensor, state: Tensor) -> Tensor:
        """Burn-in: the state after frames [B, T, C, H, W], without asking actor or critic."""
        says, remembers = state.chunk(2, dim=-1)
        for gates in self._input_gates(frames).unbind(dim=1):
            says, remembers = self._advance(gates, says, remembers)
        return torch.cat([says, remembers], dim=-1)

    def act(self, frames: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step, without the critic: frames [B, C, H, W] -> action logits [B, F, A], the state after."""
        state = self.remember(frames.unsqueeze(1), state)
        return by_factor(self.actor(state[:, : self.config.hidden]), self.action_sizes), state

    def _input_gates(self, frames: Tensor) -> Tensor:
        """frames: [B, T, C, H, W] -> [B, T, 4 hidden], the LSTM's linear map of its input, biases included."""
        z = rearrange(self.encoder(pixels(frames).flatten(0, 1)), "n c h w -> n (h w c)")
        gates = F.linear(z, self.lstm.weight_ih, self.lstm.bias_ih + self.lstm.bias_hh)
        return gates.unflatten(0, frames.shape[:2])

    def _advance(self, gates: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the LSTM (Hochreiter and Schmidhuber 1997, with forget gate)."""
        gates = torch.addmm(gates, h, self.lstm.weight_hh.T)
        i, f, _, o = gates.sigmoid().chunk(4, dim=-1)  # all four at once: one kernel instead of three
        g = gates[:, 2 * self.config.hidden : 3 * self.config.hidden].tanh()
        c = torch.addcmul(f * c, i, g)
        return o * c.tanh(), c
