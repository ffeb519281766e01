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
    """dropout: in training, the share of the inputs, of the attention's weights and of what each layer adds that is left
    out (GPT-2)
    """

    layers: int = 3
    heads: int = 8
    width: int = 512
    dropout: float = 0.0

    def check(self) -> None:
        """As `check_sizes`."""
        check_sizes(self.width, self.heads, self.dropout)


def check_sizes(width: int, heads: int, dropout: float, where: str = "") -> None:
    """Raises BadInput if the heads do not divide the width, and if the dropout is no share. where: the keys' own beginning"""
    if width % heads:
        raise BadInput(f"{where}width={width} is not divisible by heads={heads}; choose a multiple.")
    if not 0 <= dropout < 1:
        raise BadInput(f"{where}dropout={dropout} was given; choose 0 or more, and less than 1.")


Cache = list[Tensor]
"""Of each layer, [2 (keys, values), batch, heads, positions, width / heads]."""


class Places(NamedTuple):
    """Where in a cache the next inputs stand, and what each of them sees.

    positions:  [n] int64
    embeddings: [n, width]
    mask:       [n, positions] 0 or −inf, added to the attention's logits
    """

    positions: Tensor
    embeddings: Tensor
    mask: Tensor

    def split(self, sizes: list[int]) -> list[Places]:
        """One after another, n = sum of `sizes`."""
        return [Places(*parts) for parts in zip(*(x.split(sizes) for x in self), strict=True)]

    def write(self, cache: Tensor, key_value: Tensor) -> Tensor:
        """A layer's cache with the keys and values [2, B, heads, n, d] at their places, written in place."""
        return cache.index_copy_(3, self.positions, key_value)


class OwnPlaces(NamedTuple):
    """Where the next inputs stand where each row of the batch is at a place of its own.

    Place p is position p − 1. Place 0 is nowhere: an input that stands there is seen by no other, so that rows with and
    without something to read go through the same shapes.

    rows:       [B, 1] int64, to index by
    places:     [B, n] int64
    embeddings: [B, n, width]
    mask:       [B, 1, n, positions] 0 or −inf
    """

    rows: Tensor
    places: Tensor
    embeddings: Tensor
    mask: Tensor

    def split(self, sizes: list[int]) -> list[OwnPlaces]:
        """One after another, n = sum of `sizes`."""
        parts = zip(self.places.split(sizes, 1), self.embeddings.split(sizes, 1), self.mask.split(sizes, 2), strict=True)
        return [OwnPlaces(self.rows, *part) for part in parts]

    def write(self, cache: Tensor, key_value: Tensor) -> Tensor:
        """A layer's cache with the keys and values [2, B, heads, n, d] at their places, written in place."""
        # Indexed dimensions that a slice parts come first.
        cache[:, self.rows, :, self.places] = rearrange(key_value, "two b h n d -> b n two h d")
        return cache


class SelfAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017), `causal`: over what came before, else over all."""

    def __init__(self, width: int, heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.causal = causal
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, drop: bool, cache: Tensor | None, places: Places | OwnPlaces | None) -> Tensor:
        query, key_value = rearrange(
            self.query_key_value(x), "b n (three h d) -> three b h n d", three=3, h=self.heads
        ).split([1, 2])
        dropout = self.dropout if drop else 0.0
        if cache is None:
            key, value = key_value
            y = F.scaled_dot_product_attention(query[0], key, value, dropout_p=dropout, is_causal=self.causal)
        else:
            key, value = places.write(cache, key_value)
            y = F.scaled_dot_product_attention(query[0], key, value, attn_mask=places.mask, dropout_p=dropout)
        return self.out(rearrange(y, "b h n d -> b n (h d)"))


class Block(nn.Module):
    """Attention, then a multilayer perceptron of width `mlp`, each on a normalised residual stream."""

    def __init__(self, width: int, heads: int, mlp: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, dropout, causal)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, mlp)
        self.contract = nn.Linear(mlp, width)
        self.dropout = dropout

    def forward(
        self, x: Tensor, drop: bool, cache: Tensor | None = None, places: Places | OwnPlaces | None = None
    ) -> Tensor:
        """x: [B, n, width]; drop: whether by dropout, told and not the module's mode: a policy in training plays, too."""
        x = x + F.dropout(self.attention(self.norm1(x), drop, cache, places), self.dropout, drop)
        return x + F.dropout(self.contract(F.gelu(self.expand(self.norm2(x)))), self.dropout, drop)


class CausalTransformer(nn.Module):
    """Vectors in, vectors out, learned absolute positions; at most `positions` of them."""

    def __init__(self, config: TransformerConfig, positions: int) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.positions = nn.Embedding(positions, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, 4 * config.width, config.dropout, causal=True) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        mask = torch.full((positions, positions), -torch.inf).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def empty_cache(self, batch: int) -> Cache:
        """Allocated once for a rollout. Apart, not stacked: compiled code writes in place what it need not view."""
        c, weight = self.config, self.positions.weight
        shape = (2, batch, c.heads, self.positions.num_embeddings, c.width // c.heads)
        return [weight.new_zeros(shape, dtype=self._dtype()) for _ in self.blocks]

    def places(self, start: int, count: int) -> Places:
        """The positions from `start` on."""
        positions = torch.arange(start, start + count, device=self.mask.device)
        mask = self.mask.index_select(0, positions).to(self._dtype())
        return Places(positions, self.positions(positions), mask)

    def own_places(self, start: Tensor, count: int) -> OwnPlaces:
        """For each row the places from `start` on. start: [B] int64; all places lie below `positions`."""
        places = start.unsqueeze(1) + torch.arange(count, device=start.device)
        every = torch.arange(self.positions.num_embeddings, device=start.device)
        before = (every <= places.unsqueeze(2)) & ((every > 0) | (places.unsqueeze(2) == 0))
        mask = torch.zeros_like(before, dtype=self._dtype()).masked_fill(~before, -torch.inf)
        embeddings = self.positions((places - 1).clamp(min=0))
        return OwnPlaces(torch.arange(len(start), device=start.device).unsqueeze(1), places, embeddings, mask.unsqueeze(1))

    def _dtype(self) -> torch.dtype:
        """Of keys and values: what autocast makes of them."""
        device = self.mask.device.type
        autocast = device != "meta" and torch.is_autocast_enabled(device)
        return torch.get_autocast_dtype(device) if autocast else self.mask.dtype

    def forward(
        self, x: Tensor, cache: Cache | None = None, places: Places | OwnPlaces | None = None
    ) -> Tensor:
        """x: [B, n, width] -> [B, n, width]; with a cache what comes of the last input only, [B, width].

        Without a cache the sequence starts at position 0 and is all there is. With one, keys and values of x are
        written at `places`, in place, and x attends to all that stands before it: to the whole cache under a mask,
        so that no shape depends on the position.
        """
        x = x + (self.positions.weight[: x.shape[1]] if places is None else places.embeddings)
        x = self.dropout(x)
        for i, block in enumerate(self.blocks):
            x = block(x, self.training, cache and cache[i], places)
        return self.norm(x if cache is None else x[:, -1])
