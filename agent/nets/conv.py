"""Residual frame encoder and decoder (Δ-IRIS, appendix; the blocks of Esser et al. 2021)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from agent.config.networks import ConvConfig
from envs.errors import BadInput


def pixels(frames: Tensor) -> Tensor:
    """Scale frames [..., C, H, W] from uint8 in 0..255 to float32 in 0..1.

    Every network reads frames through this. Frames that are already float are returned as they are.
    """
    if frames.is_floating_point():
        return frames
    return torch.div(frames, 255)  # one pass: true division makes float32 of integers


def to_frames(decoded: Tensor) -> Tensor:
    """The inverse of `pixels` for a decoder's output: clamped and rounded.

    [..., C, H, W] float -> uint8
    """
    return decoded.clamp(0, 1).mul(255).round().to(torch.uint8)


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, 3×3 convolution, twice, plus a skip. [B, C_in, H, W] -> [B, C_out, H, W]."""

    def __init__(self, channels_in: int, channels_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = (
            nn.Conv2d(channels_in, channels_out, 1)
            if channels_in != channels_out
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return self.skip(x) + y


class MapAttention(nn.Module):
    """Self-attention over the positions of a feature map, with a skip (Esser et al. 2021).

    GroupNorm, then attention with one head.

    [B, C, H, W] -> [B, C, H, W]
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        query_key_value = self.query_key_value(self.norm(x))
        query, key, value = rearrange(
            query_key_value, "b (three c) h w -> three b 1 (h w) c", three=3
        )
        y = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(rearrange(y, "b 1 (h w) c -> b c h w", h=x.shape[2]))


def residual_stage(widths: list[int], attends: bool, groups: int) -> list[nn.Module]:
    """A residual block from each width to the next, each with or without attention behind it."""
    layers: list[nn.Module] = []
    for channels_in, channels_out in pairwise(widths):
        layers.append(ResidualBlock(channels_in, channels_out, groups))
        if attends:
            layers.append(MapAttention(channels_out, groups))
    return layers


class Downsample(nn.Module):
    """[B, C, H, W] -> [B, C, H/2, W/2]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """[B, C, H, W] -> [B, C, 2H, 2W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Encoder(nn.Sequential):
    """[B, C, H, W] float -> [B, latent, h, w] with h = w = config.output_size(H)."""

    def __init__(self, config: ConvConfig, channels: int, latent: int) -> None:
        if config.patch == 1:
            layers: list[nn.Module] = [nn.Conv2d(channels, config.base, 3, padding=1)]
        else:
            layers = [nn.Conv2d(channels, config.base, config.patch, stride=config.patch)]
        width = config.base
        for stage, (mult, down) in enumerate(zip(config.mult, config.down, strict=True)):
            widths = [width] + [config.base * mult] * config.blocks
            layers += residual_stage(widths, config.attends(stage), config.groups)
            width = widths[-1]
            if down:
                layers.append(Downsample(width))
        layers += [
            nn.GroupNorm(config.groups, width),
            nn.SiLU(),
            nn.Conv2d(width, latent, 3, padding=1),
        ]
        super().__init__(*layers)


class Decoder(nn.Sequential):
    """The encoder's mirror image. [B, latent, h, w] -> [B, C, H, W]."""

    def __init__(self, config: ConvConfig, latent: int, channels: int) -> None:
        stages = list(zip(config.mult, config.down, strict=True))[::-1]
        width = config.base * stages[0][0]
        layers: list[nn.Module] = [nn.Conv2d(latent, width, 3, padding=1)]
        # A stage of the encoder maps the previous stage's channels to its own; its mirror, back.
        for i, ((_, down), (mult_out, _)) in enumerate(
            zip(stages, [*stages[1:], (1, 0)], strict=True)
        ):
            if down:
                layers.append(Upsample(width))
            widths = [width] * config.blocks + [config.base * mult_out]
            layers += residual_stage(widths, config.attends(len(stages) - 1 - i), config.groups)
            width = widths[-1]
        layers += [nn.GroupNorm(config.groups, width), nn.SiLU()]
        if config.patch == 1:
            layers.append(nn.Conv2d(width, channels, 3, padding=1))
        else:
            to_patches = nn.Conv2d(width, channels * config.patch**2, 1)
            nn.init.normal_(
                to_patches.weight, std=0.02
            )  # starts near black: learns several times sooner
            layers += [to_patches, nn.PixelShuffle(config.patch)]
        super().__init__(*layers)

    def zero_output(self) -> None:
        """Zeros to begin with, whatever it is given."""
        last = [layer for layer in self if isinstance(layer, nn.Conv2d)][-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


def token_grid(num_tokens: int) -> tuple[int, int]:
    """Rows and columns of the grid of tokens on a feature map: near square, never higher than wide.

    Raises:
        BadInput: If num_tokens is not positive.
    """
    if num_tokens < 1:
        raise BadInput(f"{num_tokens} tokens a step was given; give one or more.")
    rows = max(rows for rows in range(1, math.isqrt(num_tokens) + 1) if num_tokens % rows == 0)
    return rows, num_tokens // rows
