"""A pre-LN causal transformer whose key-value cache is a value that the caller holds."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from agent.config.networks import TransformerConfig

Cache = list[Tensor]
"""Of each layer, [2 (keys, values), batch, heads, positions, width / heads]."""


class Positions(NamedTuple):
    """Where in a cache the next n inputs stand, and what each of them sees.

    The rows of a batch stand together, or each at its own positions (`row_positions`).

    Attributes:
        indices: [n] or [B, n] int64.
        embeddings: [n, width] or [B, n, width].
        mask: [n, positions] or [B, 1, n, positions], 0 or −inf, added to the attention's logits.
    """

    indices: Tensor
    embeddings: Tensor
    mask: Tensor

    def split(self, sizes: list[int]) -> list[Positions]:
        """One after another, n = sum of `sizes`."""
        indices, embeddings = self.indices.split(sizes, -1), self.embeddings.split(sizes, -2)
        parts = zip(indices, embeddings, self.mask.split(sizes, -2), strict=True)
        return [Positions(*part) for part in parts]

    def write(self, cache: Tensor, key_value: Tensor) -> Tensor:
        """Write keys and values [2, B, heads, n, d] into a layer's cache, in place; returns it."""
        if self.indices.ndim == 1:
            return cache.index_copy_(3, self.indices, key_value)
        rows = torch.arange(len(self.indices), device=cache.device).unsqueeze(1)
        # Indexed dimensions that a slice parts come first.
        cache[:, rows, :, self.indices] = rearrange(key_value, "two b h n d -> b n two h d")
        return cache


class SelfAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017), over what came before if `causal`, else all."""

    def __init__(self, width: int, heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, drop: bool, cache: Tensor | None, positions: Positions | None
    ) -> Tensor:
        y = self.query_key_value(x)
        y = rearrange(y, "b n (three h d) -> three b h n d", three=3, h=self.heads)
        query, key_value = y.split([1, 2])
        key, value = key_value if positions is None else positions.write(cache, key_value)
        y = F.scaled_dot_product_attention(
            query[0],
            key,
            value,
            attn_mask=None if positions is None else positions.mask,
            dropout_p=self.dropout if drop else 0.0,
            is_causal=self.causal and positions is None,
        )
        return self.out(rearrange(y, "b h n d -> b n (h d)"))


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a multilayer perceptron of width `mlp`."""

    def __init__(self, width: int, heads: int, mlp: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, dropout, causal)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, mlp)
        self.contract = nn.Linear(mlp, width)
        self.dropout = dropout

    def forward(
        self, x: Tensor, drop: bool, cache: Tensor | None = None, positions: Positions | None = None
    ) -> Tensor:
        """One block, x and the result [B, n, width].

        Args:
            drop: Whether to apply dropout. Not the module's mode: a policy in training also acts.
        """
        y = self.attention(self.norm1(x), drop, cache, positions)
        x = x + F.dropout(y, self.dropout, drop)
        return x + F.dropout(self.contract(F.gelu(self.expand(self.norm2(x)))), self.dropout, drop)


class CausalTransformer(nn.Module):
    """Vectors in, vectors out, learned absolute positions; at most `positions` of them."""

    def __init__(self, config: TransformerConfig, positions: int) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.positions = nn.Embedding(positions, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, 4 * config.width, config.dropout, causal=True)
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        mask = torch.full((positions, positions), -torch.inf).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def empty_cache(self, batch: int) -> Cache:
        """Allocate the cache of one rollout.

        One tensor per layer, not a stack: compiled code then writes in place without views.
        """
        c, weight = self.config, self.positions.weight
        shape = (2, batch, c.heads, len(weight), c.width // c.heads)
        return [weight.new_zeros(shape, dtype=self._dtype()) for _ in self.blocks]

    def cache_positions(self, start: int, count: int) -> Positions:
        """The positions from `start` on."""
        indices = torch.arange(start, start + count, device=self.mask.device)
        mask = self.mask.index_select(0, indices).to(self._dtype())
        return Positions(indices, self.positions(indices), mask)

    def row_positions(self, start: Tensor, count: int) -> Positions:
        """Positions of the next inputs where each row of the batch starts at its own place.

        Place p is position p − 1. No other input attends to one at place 0, so rows with and
        without something to read have the same shapes.

        Args:
            start: [B] int64, each row's first place.
            count: Inputs per row; all their places must lie below `positions`.
        """
        places = start.unsqueeze(1) + torch.arange(count, device=start.device)
        every = torch.arange(self.positions.num_embeddings, device=start.device)
        seen = (every <= places.unsqueeze(2)) & ((every > 0) | (places.unsqueeze(2) == 0))
        mask = torch.zeros_like(seen, dtype=self._dtype()).masked_fill(~seen, -torch.inf)
        return Positions(places, self.positions((places - 1).clamp(min=0)), mask.unsqueeze(1))

    def _dtype(self) -> torch.dtype:
        """Of keys and values: what autocast makes of them."""
        device = self.mask.device.type
        autocast = device != "meta" and torch.is_autocast_enabled(device)
        return torch.get_autocast_dtype(device) if autocast else self.mask.dtype

    def forward(
        self, x: Tensor, cache: Cache | None = None, positions: Positions | None = None
    ) -> Tensor:
        """Run the transformer, over a whole sequence or over the next inputs of a cached one.

        Without a cache the sequence starts at position 0. With one, the keys and values of x are
        written at `positions`, in place, and x attends to the whole cache under a mask, so no shape
        depends on where it stands.

        Args:
            x: [B, n, width].

        Returns:
            [B, n, width]; with a cache only the last input's output, [B, width].
        """
        x = x + (self.positions.weight[: x.shape[1]] if cache is None else positions.embeddings)
        x = self.dropout(x)
        for i, block in enumerate(self.blocks):
            x = block(x, self.training, cache and cache[i], positions)
        return self.norm(x if cache is None else x[:, -1])
