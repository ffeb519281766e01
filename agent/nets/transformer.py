"""A pre-LN causal transformer whose key-value cache is a value that the caller holds."""

from __future__ import annotations

from dataclasses import dataclass

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


class SelfAttention(nn.Module):
    """Multi-head attention over what came before (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, cache: Tensor | None, position: int, mask: Tensor) -> Tensor:
        n = x.shape[1]
        query, key, value = rearrange(
            self.query_key_value(x), "b n (three h d) -> three b h n d", three=3, h=self.heads
        )
        if cache is not None:
            cache[0, :, :, position : position + n] = key
            cache[1, :, :, position : position + n] = value
            if position > 0:
                key, value = cache[:, :, :, : position + n]
        if position == 0:
            y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        elif n == 1:
            y = F.scaled_dot_product_attention(query, key, value)
        else:
            y = F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask[position : position + n, : position + n]
            )
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

    def forward(self, x: Tensor, cache: Tensor | None, position: int, mask: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), cache, position, mask)
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

    def empty_cache(self, batch: int) -> Tensor:
        """[layers, 2 (key, value), batch, heads, positions, width / heads], allocated once for a rollout."""
        c = self.config
        shape = (c.layers, 2, batch, c.heads, self.positions.num_embeddings, c.width // c.heads)
        return self.positions.weight.new_zeros(shape)

    def forward(self, x: Tensor, cache: Tensor | None = None, position: int = 0) -> Tensor:
        """x: [B, n, width], the inputs at `position`, `position` + 1, … -> [B, n, width].

        With a cache, keys and values of x are written into it in place, and x attends to everything
        before it; without one the sequence starts at position 0 and is all there is.
        """
        x = x + self.positions.weight[position : position + x.shape[1]]
        for i, block in enumerate(self.blocks):
            x = block(x, None if cache is None else cache[i], position, self.mask)
        return self.norm(x)
