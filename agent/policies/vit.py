"""DART's policy: a transformer that reads a frame's codes and a memory of what came before (DART, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.nets.repeated import repeated
from agent.nets.transformer import Block, check_sizes
from agent.policies.policy import Policy, PolicyConfig


@dataclass
class VitPolicyConfig(PolicyConfig):
    """mlp:     width of each layer's multilayer perceptron; twice `width`, as the paper does not print it
    dropout:   as it learns; none as it plays, in imagination and in the burn-in
    positions: whether codes are told where they stand (false: an ablation of DART's, Boxing falls from 83 to 3.9)
    memory:    whether it remembers (false: an ablation of DART's)
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
        """As `check_sizes`."""
        check_sizes(self.width, self.heads, self.dropout, "agent.policy.")


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
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp, config.dropout, causal=False) for _ in range(config.layers)
        )
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
        # One step is imagination's, itself a repeated body: torch 2.11 does not compile one within another.
        advance = _advance if observations.shape[1] == 1 else _advance_again
        for codes in observations.unbind(dim=1):
            state = advance(self, codes, state, False)
        return state
