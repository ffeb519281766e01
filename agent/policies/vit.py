"""DART's policy: a transformer that reads a frame's codes and a memory of what came before (DART, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from agent.nets.repeated import repeated
from agent.policies.policy import Policy, PolicyConfig
from envs.errors import BadInput


@dataclass
class VitPolicyConfig(PolicyConfig):
    """mlp:     width of each layer's multilayer perceptron; twice `width`, as the paper does not print it
    dropout:   as it learns; none as it plays, in imagination and in the burn-in
    positions: whether codes are told where they stand (without, Boxing falls from 83 to 3.9: DART, ablations)
    memory:    whether it remembers
    """

    kind: str = "vit"
    value: str = "scalar"
    layers: int = 6
    heads: int = 8
    width: int = 512
    mlp: int = 1024
    dropout: float = 0.2
    positions: bool = True
    memory: bool = True

    def check(self) -> None:
        """Raises BadInput if the heads do not divide the width, and if the dropout is no share."""
        if self.width % self.heads:
            raise BadInput(f"agent.policy.width={self.width} is not divisible by heads={self.heads}; choose a multiple.")
        if not 0 <= self.dropout < 1:
            raise BadInput(f"agent.policy.dropout={self.dropout} was given; choose 0 or more, and less than 1.")


class EncoderBlock(nn.Module):
    """Attention of all to all, then a multilayer perceptron, each on a normalised residual stream (Dosovitskiy et al. 2021)."""

    def __init__(self, config: VitPolicyConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.dropout = config.heads, config.dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, config.mlp), nn.Linear(config.mlp, width)

    def forward(self, x: Tensor, drop: bool) -> Tensor:
        """x: [B, n, width]; drop: whether by dropout, not by the module's mode: it plays while it is in training."""
        query, key, value = rearrange(
            self.query_key_value(self.norm1(x)), "b n (three h d) -> three b h n d", three=3, h=self.heads
        )
        y = F.scaled_dot_product_attention(query, key, value, dropout_p=self.dropout if drop else 0.0)
        x = x + F.dropout(self.out(rearrange(y, "b h n d -> b n (h d)")), self.dropout, drop)
        return x + F.dropout(self.contract(F.gelu(self.expand(self.norm2(x)))), self.dropout, drop)


def _advance(policy: VitPolicy, codes: Tensor, state: Tensor, drop: bool) -> Tensor:
    """One step. codes: [B, number, dim]; state: [B, width] -> the state after: what becomes of CLS"""
    memory = state if policy.config.memory else torch.zeros_like(state)
    cls = policy.cls.expand(len(codes), 1, -1)
    x = torch.cat([cls, policy.project(codes), memory.unsqueeze(1)], dim=1)
    x = F.dropout(x + policy.positions if policy.config.positions else x, policy.config.dropout, drop)
    for block in policy.blocks:
        x = block(x, drop)
    return policy.norm(x[:, 0])


_advance_again = repeated(_advance)  # without gradient only: Inductor's backward of it (seen in 2.13) breaks its memory


class VitPolicy(Policy):
    """Reads [CLS, codes, MEM]: what comes of CLS is what actor and critic read, and MEM at the next step; zero at first.

    The gradient flows through the memory over all steps that it learns from.
    """

    reads = "codes"
    config: VitPolicyConfig

    def __init__(self, config: VitPolicyConfig, shape: tuple[int, int], actions: tuple[int, ...]) -> None:
        super().__init__(config, actions)
        config.check()
        (number, dim), width = shape, config.width
        self.cls = nn.Parameter(torch.randn(width) * 0.02)
        self.project = nn.Identity() if dim == width else nn.Linear(dim, width)
        if config.positions:
            self.positions = nn.Parameter(torch.randn(number + 2, width) * 0.02)
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.add_heads(width)

    def initial_state(self, batch: int) -> Tensor:
        """Zeros."""
        return self.actor.weight.new_zeros(batch, self.config.width)

    def read(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        states = []
        for codes in observations.unbind(dim=1):
            state = _advance(self, codes, state, self.training)
            states.append(state)
        return torch.stack(states, dim=1), state

    def remember(self, observations: Tensor, state: Tensor) -> Tensor:
        for codes in observations.unbind(dim=1):
            state = _advance_again(self, codes, state, False)
        return state
