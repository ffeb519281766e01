"""A pre-LN causal transformer whose key-value cache is a value that the caller holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from envs.errors import BadInput


@dataclass
class TransformerConfig:
    layers: int = 3
    heads: int = 8
    width: int = 512

    def check(self) -> None:
        """Raises BadInput if the heads do not divide the width."""
        if self.width % self.heads:
            raise BadInput(f"width={self.width} is not divisible by heads={self.heads}; choose a multiple.")


Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, [batch, heads, positions, width / heads]."""


class Memory(NamedTuple):
    """What a layer attends to besides its input.

    keys, values: [batch, heads, positions, width / heads], written in place
    positions:    [n] int64, where the input stands
    mask:         [n, positions] bool: what it sees
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    mask: Tensor


class SelfAttention(nn.Module):
    """Multi-head attention over what came before (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:
        query, key, value = rearrange(
            self.query_key_value(x), "b n (three h d) -> three b h n d", three=3, h=self.heads
        )
        if memory is None:
            y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            keys = memory.keys.index_copy_(2, memory.positions, key)
            values = memory.values.index_copy_(2, memory.positions, value)
            y = F.scaled_dot_product_attention(query, keys, values, attn_mask=memory.mask)
        return self.out(rearrange(y, "b h n d -> b n (h d)"))


class Block(nn.Module):
    """Attention, then a four times wider multilayer perceptron, each on a normalised residual stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:
        x = x + self.attention(self.norm1(x), memory)
        return x + self.contract(F.gelu(self.expand(self.norm2(x))))


class CausalTransformer(nn.Module):
    """Vectors in, vectors out, learned absolute positions; at most `positions` of them."""

    def __init__(self, config: TransformerConfig, positions: int) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.positions = nn.Embedding(positions, config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.register_buffer("mask", torch.ones(positions, positions, dtype=torch.bool).tril(), persistent=False)

    def empty_cache(self, batch: int) -> Cache:
        """Allocated once for a rollout. Apart, not stacked: compiled code writes in place what it need not view."""
        c, weight = self.config, self.positions.weight
        shape = (batch, c.heads, self.positions.num_embeddings, c.width // c.heads)
        device = weight.device.type
        autocast = device != "meta" and torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else weight.dtype  # that of keys and values
        return [(weight.new_zeros(shape, dtype=dtype), weight.new_zeros(shape, dtype=dtype)) for _ in self.blocks]

    def forward(self, x: Tensor, cache: Cache | None = None, positions: Tensor | None = None) -> Tensor:
        """x: [B, n, width] -> [B, n, width].

        Without a cache the sequence starts at position 0 and is all there is. With one, `positions` [n] int64
        says where x stands, keys and values of x are written there in place, and x attends to all that stands
        before it: to the whole cache under a mask, so that no shape depends on the position.
        """
        if cache is None:
            x = x + self.positions.weight[: x.shape[1]]
            memories = [None] * len(self.blocks)
        else:
            x = x + self.positions(positions)
            mask = self.mask.index_select(0, positions)
            memories = [Memory(keys, values, positions, mask) for keys, values in cache]
        for block, memory in zip(self.blocks, memories, strict=True):
            x = block(x, memory)
        return self.norm(x)
