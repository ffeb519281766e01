"""Residual frame encoder and decoder (Δ-IRIS, appendix; the blocks of Esser et al. 2021)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from agent.config.networks import ConvConfig


def pixels(frames: Tensor) -> Tensor:
    """Scale frames [..., C, H, W] from uint8 in 0..255 to float32 in 0..1.

    Every network reads frames through this. Float frames are returned as they are.
    """
    if frames.is_floating_point():
        return frames
    return torch.div(frames, 255)  # one pass: true division makes float32 of integers


def to_frames(decoded: Tensor) -> Tensor:
    """The inverse of `pixels`, clamped and rounded. [..., C, H, W] float -> uint8."""
    return decoded.clamp(0, 1).mul(255).round().to(torch.uint8)


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, 3×3 convolution, twice, plus a skip. [B, C_in, H, W] -> [B, C_out, H, W]."""

    def __init__(self, channels_in: int, channels_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        same = channels_in == channels_out
        self.skip = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return self.skip(x) + y


class MapAttention(nn.Module):
    """Attention with one head over the places of a map, with a skip. [B, C, H, W] -> the same."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.query_key_value(self.norm(x))
        query, key, value = rearrange(y, "b (three c) h w -> three b 1 (h w) c", three=3)
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


def stage_widths(config: ConvConfig) -> list[int]:
    """Channels before the first stage and after each."""
    return [config.base, *(config.base * mult for mult in config.mult)]


class Encoder(nn.Sequential):
    """[B, C, H, W] float -> [B, latent, h, w] with h = w = config.output_size(H)."""

    def __init__(self, config: ConvConfig, channels: int, latent: int) -> None:
        widths, groups, patch = stage_widths(config), config.groups, config.patch
        if patch == 1:
            layers: list[nn.Module] = [nn.Conv2d(channels, config.base, 3, padding=1)]
        else:
            layers = [nn.Conv2d(channels, config.base, patch, stride=patch)]
        for stage, down in enumerate(config.down):
            before, after = widths[stage : stage + 2]
            blocks = [before] + [after] * config.blocks
            layers += residual_stage(blocks, config.attends(stage), groups)
            if down:
                layers.append(nn.Conv2d(after, after, 2, stride=2))
        width = widths[-1]
        layers += [nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, latent, 3, padding=1)]
        super().__init__(*layers)


class Decoder(nn.Sequential):
    """The encoder's mirror image. [B, latent, h, w] -> [B, C, H, W]."""

    def __init__(self, config: ConvConfig, latent: int, channels: int) -> None:
        widths, groups, patch = stage_widths(config), config.groups, config.patch
        layers: list[nn.Module] = [nn.Conv2d(latent, widths[-1], 3, padding=1)]
        for stage, down in reversed(list(enumerate(config.down))):
            after, before = widths[stage : stage + 2]
            if down:
                conv = nn.Conv2d(before, before, 3, padding=1)
                layers.append(nn.Sequential(nn.Upsample(scale_factor=2), conv))
            blocks = [before] * config.blocks + [after]
            layers += residual_stage(blocks, config.attends(stage), groups)
        layers += [nn.GroupNorm(groups, config.base), nn.SiLU()]
        if patch == 1:
            layers.append(nn.Conv2d(config.base, channels, 3, padding=1))
        else:
            to_patches = nn.Conv2d(config.base, channels * patch**2, 1)
            nn.init.normal_(to_patches.weight, std=0.02)  # near black: learns several times sooner
            layers += [to_patches, nn.PixelShuffle(patch)]
        super().__init__(*layers)

    def zero_output(self) -> None:
        """Make the output zero, whatever the input."""
        last = self[-1] if isinstance(self[-1], nn.Conv2d) else self[-2]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
