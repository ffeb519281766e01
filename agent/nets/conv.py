"""Residual frame encoder and decoder (Δ-IRIS, appendix; the blocks of Esser et al. 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from envs.errors import BadInput


LARGEST_MAP = 8  # side of an encoder's output where its stages follow from the frame's size


@dataclass
class ConvConfig:
    """Sizes of a frame encoder, and of the decoder that mirrors it.

    base:   channels of the first convolution
    mult:   channels of each stage, as multiples of `base`
    down:   1 where a stage ends by halving height and width; null: the first stages do, as many as bring a
            frame of any size to maps of at most 8×8
    patch:  side of the squares that the first convolution turns into one place each, and the decoder's
            last one back; 1: a 3×3 convolution at full size instead, as published. Saves most of the
            arithmetic where there is little to be had, as on a CPU
    groups: of every GroupNorm
    blocks: residual blocks a stage
    attention: so many of the last stages attend: each of their residual blocks is followed by self-attention
    """

    base: int = 64
    mult: list[int] = field(default_factory=lambda: [1, 1, 2, 2, 4])
    down: list[int] | None = field(default_factory=lambda: [1, 0, 1, 1, 0])
    patch: int = 1
    groups: int = 32
    blocks: int = 1
    attention: int = 0

    def fitted(self, image_size: int, key: str) -> ConvConfig:
        """Itself, with `down` for frames of this size. Raises BadInput, which names `key`, if sizes do not fit together."""
        try:
            fitted = self if self.down is not None else replace(self, down=self._halvings(image_size))
            fitted.output_size(image_size)
        except BadInput as error:
            raise BadInput(f"{key} does not fit: {error}") from error
        return fitted

    def _halvings(self, image_size: int) -> list[int]:
        halvings = math.ceil(math.log2(max(1, image_size / self.patch / LARGEST_MAP)))
        if halvings > len(self.mult):
            raise BadInput(
                f"Frames of {image_size}×{image_size} take {halvings} halvings to come to {LARGEST_MAP}×{LARGEST_MAP}, and "
                f"mult={list(self.mult)} has {len(self.mult)} stages; give mult more, or raise patch."
            )
        return [int(stage < halvings) for stage in range(len(self.mult))]

    def attends(self, stage: int) -> bool:
        """Whether there is attention in this stage, counted from 0."""
        return stage >= len(self.mult) - self.attention

    def output_size(self, image_size: int) -> int:
        """Height and width of the encoder's output, once `fitted`. Raises BadInput if sizes do not fit together."""
        if len(self.mult) != len(self.down):
            raise BadInput(
                f"mult has {len(self.mult)} stages and down has {len(self.down)}; give both the same length."
            )
        if any(self.base * m % self.groups for m in self.mult) or self.base % self.groups:
            raise BadInput(
                f"base={self.base} with mult={list(self.mult)} gives channels that groups={self.groups} does "
                "not divide; choose base as a multiple of groups."
            )
        if self.blocks < 1:
            raise BadInput(f"blocks={self.blocks} was given; give every stage at least one residual block.")
        if not 0 <= self.attention <= len(self.mult):
            raise BadInput(
                f"attention={self.attention} was given for {len(self.mult)} stages; choose from 0 (no stage attends) to "
                f"{len(self.mult)} (all do)."
            )
        reduction = self.patch * 2 ** sum(self.down)
        if image_size % reduction or image_size < reduction:
            raise BadInput(
                f"image size {image_size} is not divisible by {reduction}, the encoder's reduction "
                f"(patch={self.patch}, down={list(self.down)}); change the image size or the encoder."
            )
        return image_size // reduction


def pixels(frames: Tensor) -> Tensor:
    """What every network sees of a frame. [..., C, H, W] uint8 in 0..255 -> float32 in 0..1, as which it stays."""
    if frames.is_floating_point():
        return frames
    return torch.div(frames, 255)  # one pass: true division makes float32 of integers


def to_frames(decoded: Tensor) -> Tensor:
    """The way back from `pixels`, of what a decoder says: clamped and rounded. [..., C, H, W] float -> uint8"""
    return decoded.clamp(0, 1).mul(255).round().to(torch.uint8)


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, 3×3 convolution, twice, plus a skip. [B, C_in, H, W] -> [B, C_out, H, W]."""

    def __init__(self, channels_in: int, channels_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return self.skip(x) + y


class MapAttention(nn.Module):
    """Each place of a map sees all others: GroupNorm, attention with one head, plus a skip (Esser et al. 2021).

    [B, C, H, W] -> [B, C, H, W]
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        query_key_value = self.query_key_value(self.norm(x))
        query, key, value = rearrange(query_key_value, "b (three c) h w -> three b 1 (h w) c", three=3)
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
        layers += [nn.GroupNorm(config.groups, width), nn.SiLU(), nn.Conv2d(width, latent, 3, padding=1)]
        super().__init__(*layers)


class Decoder(nn.Sequential):
    """The encoder's mirror image. [B, latent, h, w] -> [B, C, H, W]."""

    def __init__(self, config: ConvConfig, latent: int, channels: int) -> None:
        stages = list(zip(config.mult, config.down, strict=True))[::-1]
        width = config.base * stages[0][0]
        layers: list[nn.Module] = [nn.Conv2d(latent, width, 3, padding=1)]
        # A stage of the encoder maps the previous stage's channels to its own, so its mirror image maps back.
        for i, ((_, down), (mult_out, _)) in enumerate(zip(stages, stages[1:] + [(1, 0)], strict=True)):
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
            nn.init.normal_(to_patches.weight, std=0.02)  # starts near black: learns several times sooner
            layers += [to_patches, nn.PixelShuffle(config.patch)]
        super().__init__(*layers)

    def say_nothing(self) -> None:
        """Zeros to begin with, whatever it is given."""
        last = [layer for layer in self if isinstance(layer, nn.Conv2d)][-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


def token_grid(num_tokens: int) -> tuple[int, int]:
    """Rows and columns of the grid of tokens on a feature map, as square as can be, and not higher than wide.

    Raises BadInput if num_tokens is not positive.
    """
    if num_tokens < 1:
        raise BadInput(f"{num_tokens} tokens a step was given; give one or more.")
    rows = max(rows for rows in range(1, math.isqrt(num_tokens) + 1) if num_tokens % rows == 0)
    return rows, num_tokens // rows
