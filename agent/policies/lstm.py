"""Policies with an LSTM memory: on frames (Δ-IRIS, IRIS), or on a world model's own codes."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from agent.config.policies import CnnLstmPolicyConfig, CodeLstmPolicyConfig, LstmPolicyConfig
from agent.nets.conv import Encoder, pixels
from agent.policies.base import Policy


class LstmPolicy(Policy):
    """Actor and critic on an LSTM's output. Its state is hidden and cell state, [B, 2 hidden]."""

    config: LstmPolicyConfig

    def add_lstm(self, features: int) -> None:
        """What follows the encoder."""
        self.lstm = nn.LSTMCell(features, self.config.hidden)
        self.add_heads(self.config.hidden)

    @abstractmethod
    def features(self, observations: Tensor) -> Tensor:
        """What the LSTM is given of observations [N, ...] -> [N, features]."""

    def initial_state(self, batch: int) -> Tensor:
        return self.actor.weight.new_zeros(batch, 2 * self.config.hidden)

    def run(
        self, observations: Tensor, state: Tensor, learning: bool
    ) -> tuple[list[Tensor], Tensor]:
        """As in `Policy`. All steps are one batch, except in the LSTM's recurrence, a loop."""
        hidden, cell = state.chunk(2, dim=-1)
        outputs = []
        for gates in self._input_gates(observations).unbind(dim=1):
            hidden, cell = self._advance(gates, hidden, cell)
            outputs.append(hidden)
        return outputs, torch.cat([hidden, cell], dim=-1)

    def _input_gates(self, observations: Tensor) -> Tensor:
        """The LSTM's linear map of its input, biases included. [B, T, ...] -> [B, T, 4 hidden]."""
        features = self.features(observations.flatten(0, 1))
        gates = F.linear(features, self.lstm.weight_ih, self.lstm.bias_ih + self.lstm.bias_hh)
        return gates.unflatten(0, observations.shape[:2])

    def _advance(self, gates: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the LSTM (Hochreiter and Schmidhuber 1997, with forget gate)."""
        gates = torch.addmm(gates, h, self.lstm.weight_hh.T)
        i, f, _, o = gates.sigmoid().chunk(4, dim=-1)  # all four: one kernel instead of three
        g = gates[:, 2 * self.config.hidden : 3 * self.config.hidden].tanh()
        c = torch.addcmul(f * c, i, g)
        return o * c.tanh(), c


class CnnLstmPolicy(LstmPolicy):
    """Sees frames, [C, H, W] uint8."""

    reads = "frames"

    def __init__(
        self, config: CnnLstmPolicyConfig, shape: tuple[int, int, int], actions: tuple[int, ...]
    ) -> None:
        super().__init__(config, actions)
        channels, _, size = shape
        conv = config.conv.fitted(size, "agent.policy.conv")
        self.encoder = Encoder(conv, channels=channels, latent=config.latent)
        self.add_lstm(config.latent * conv.output_size(size) ** 2)

    def features(self, observations: Tensor) -> Tensor:
        return rearrange(self.encoder(pixels(observations)), "n c h w -> n (h w c)")


class CodeLstmPolicy(LstmPolicy):
    """Sees codes, [number, dim]; the same layer sees each of them."""

    reads = "codes"

    def __init__(
        self, config: CodeLstmPolicyConfig, shape: tuple[int, int], actions: tuple[int, ...]
    ) -> None:
        super().__init__(config, actions)
        number, dim = shape
        layer = nn.Linear(dim, config.latent)
        self.encoder = nn.Sequential(layer, nn.LayerNorm(config.latent), nn.SiLU())
        self.add_lstm(number * config.latent)

    def features(self, observations: Tensor) -> Tensor:
        return self.encoder(observations).flatten(1)
