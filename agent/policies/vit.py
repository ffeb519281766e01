"""DART's policy: a transformer over a frame's codes and a memory token (DART, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.config.policies import VitPolicyConfig
from agent.nets.compiled_once import compiled_once
from agent.nets.transformer import Block
from agent.policies.base import Policy


def _advance(policy: VitPolicy, codes: Tensor, state: Tensor, drop: bool) -> Tensor:
    """One step. codes: [B, number, dim]; state: [B, width] -> the state after, CLS's output."""
    memory = state if policy.config.memory else torch.zeros_like(state)
    cls = policy.cls.expand(len(codes), 1, -1)
    x = torch.cat([cls, policy.project(codes), memory.unsqueeze(1)], dim=1)
    x = x + policy.positions if policy.config.positions else x
    x = F.dropout(x, policy.config.dropout, drop)
    for block in policy.blocks:
        x = block(x, drop)
    return policy.norm(x[:, 0])


# Without gradient only: Inductor's backward of it (seen in 2.13) breaks its memory.
_advance_once = compiled_once(_advance)


class VitPolicy(Policy):
    """Reads [CLS, codes, MEM]. CLS's output goes to actor and critic, and is MEM at the next step.

    MEM is 0 at first. The gradient flows through it over all steps of a sequence.
    """

    reads = "codes"
    config: VitPolicyConfig

    def __init__(
        self, config: VitPolicyConfig, shape: tuple[int, int], actions: tuple[int, ...]
    ) -> None:
        super().__init__(config, actions)
        config.check()
        (number, dim), width = shape, config.width
        self.cls = nn.Parameter(torch.randn(width) * 0.02)
        self.project = nn.Identity() if dim == width else nn.Linear(dim, width)
        if config.positions:
            self.positions = nn.Parameter(torch.randn(number + 2, width) * 0.02)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp, config.dropout, causal=False)
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.add_heads(width)

    def initial_state(self, batch: int) -> Tensor:
        return self.actor.weight.new_zeros(batch, self.config.width)

    def run(
        self, observations: Tensor, state: Tensor, learning: bool
    ) -> tuple[list[Tensor], Tensor]:
        # One step is part of imagination, itself compiled_once: torch 2.11 cannot nest the two.
        once = not learning and observations.shape[1] > 1
        advance, drop = _advance_once if once else _advance, learning and self.training
        states = []
        for codes in observations.unbind(dim=1):
            state = advance(self, codes, state, drop)
            states.append(state)
        return states, state
