"""Sizes of the building blocks: the frame encoder, the transformer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from envs.errors import BadInput
from envs.settings import COUNT, NATURAL, Range, setting

DROPOUT = Range(0, math.nextafter(1, 0), "0 or more, below 1")
LARGEST_MAP = 8  # side of an encoder's output where its stages follow from the frame's size


@dataclass
class ConvConfig:
    """Sizes of a frame encoder, and of the decoder that mirrors it.

    Attributes:
        base: Channels of the first convolution.
        mult: Channels of each stage, as multiples of `base`.
        down: 1 where a stage ends by halving height and width; null: until the map is at most 8×8.
        patch: Side of the squares of pixels that become one place; 1: as published.
        groups: Groups of every GroupNorm.
        blocks: Residual blocks a stage.
        attention: How many of the last stages have self-attention behind each residual block.
    """

    base: int = setting(64, COUNT)
    mult: list[int] = setting([1, 1, 2, 2, 4], COUNT)
    down: list[int] | None = setting([1, 0, 1, 1, 0], Range(0, 1, "0 or 1 for each stage"))
    patch: int = setting(1, COUNT)
    groups: int = setting(32, COUNT)
    blocks: int = setting(1, COUNT)
    attention: int = setting(0, NATURAL)

    def fitted(self, image_size: int, key: str) -> ConvConfig:
        """The same sizes with `down` for frames of this size.

        Raises:
            BadInput: sizes do not fit together; the message names `key`.
        """
        fitted, stages = self, len(self.mult)
        if self.down is None:
            halvings = math.ceil(math.log2(max(1, image_size / self.patch / LARGEST_MAP)))
            if halvings > stages:
                raise BadInput(
                    f"{key} does not fit: frames of {image_size}×{image_size} take {halvings} "
                    f"halvings, and mult has {stages} stages; give mult more, or raise patch."
                )
            fitted = replace(self, down=[int(stage < halvings) for stage in range(stages)])
        try:
            fitted.output_size(image_size)
        except BadInput as error:
            raise BadInput(f"{key} does not fit: {error}") from error
        return fitted

    def attends(self, stage: int) -> bool:
        """Whether a stage, counted from 0, has attention."""
        return stage >= len(self.mult) - self.attention

    def output_size(self, image_size: int) -> int:
        """Height and width of the encoder's output, once `fitted`.

        Raises:
            BadInput: sizes do not fit together.
        """
        down, stages = self.down or [], len(self.mult)
        if stages != len(down):
            raise BadInput(
                f"mult has {stages} stages and down has {len(down)}; give both the same length."
            )
        if any(self.base * m % self.groups for m in (1, *self.mult)):
            raise BadInput(
                f"groups={self.groups} does not divide the channels of base={self.base} with "
                f"mult={list(self.mult)}; choose base as a multiple of groups."
            )
        if self.attention > stages:
            raise BadInput(f"attention={self.attention} is more than the {stages} stages.")
        reduction = self.patch * 2 ** sum(down)
        if image_size % reduction or image_size < reduction:
            raise BadInput(
                f"image size {image_size} is not divisible by {reduction}, the encoder's reduction "
                f"(patch={self.patch}, down={down}); change the image size or the encoder."
            )
        return image_size // reduction


@dataclass
class TransformerConfig:
    """Sizes of a transformer.

    Attributes:
        layers: Number of layers.
        heads: Attention heads a layer; they divide `width`.
        width: Of the residual stream.
        dropout: Share left out in training, of inputs, attention weights and what a layer adds.
    """

    layers: int = setting(3, COUNT)
    heads: int = setting(8, COUNT)
    width: int = setting(512, COUNT)
    dropout: float = setting(0.0, DROPOUT)

    def check(self) -> None:
        """Raises BadInput if the heads do not divide the width."""
        if self.width % self.heads:
            raise BadInput(f"width={self.width} is no multiple of heads={self.heads}; choose one.")
