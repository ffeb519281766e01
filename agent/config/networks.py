"""Sizes of the building blocks: the frame encoder, the transformer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from envs.errors import BadInput
from envs.settings import COUNT, NATURAL, SHARE, Range, setting

LARGEST_MAP = 8  # side of an encoder's output where its stages follow from the frame's size


@dataclass
class ConvConfig:
    """Sizes of a frame encoder, and of the decoder that mirrors it.

    Attributes:
        base: Channels of the first convolution.
        mult: Channels of each stage, as multiples of `base`.
        down: 1 where a stage ends by halving height and width; null: the first stages halve until
            a frame of any size is a map of at most 8×8.
        patch: Side of the squares of pixels that the first convolution turns into one place each
            (and the decoder's last one back); 1, as published: a 3×3 convolution at full size.
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
        try:
            fitted = self
            if self.down is None:
                fitted = replace(self, down=self._halvings(image_size))
            fitted.output_size(image_size)
        except BadInput as error:
            raise BadInput(f"{key} does not fit: {error}") from error
        return fitted

    def _halvings(self, image_size: int) -> list[int]:
        halvings = math.ceil(math.log2(max(1, image_size / self.patch / LARGEST_MAP)))
        if halvings > len(self.mult):
            raise BadInput(
                f"Frames of {image_size}×{image_size} take {halvings} halvings to come to "
                f"{LARGEST_MAP}×{LARGEST_MAP}, and mult={list(self.mult)} has {len(self.mult)} "
                "stages; give mult more, or raise patch."
            )
        return [int(stage < halvings) for stage in range(len(self.mult))]

    def attends(self, stage: int) -> bool:
        """Whether a stage, counted from 0, has attention."""
        return stage >= len(self.mult) - self.attention

    def output_size(self, image_size: int) -> int:
        """Height and width of the encoder's output, once `fitted`.

        Raises:
            BadInput: sizes do not fit together.
        """
        down = self.down or []
        if len(self.mult) != len(down):
            raise BadInput(
                f"mult has {len(self.mult)} stages and down has {len(down)}; give both the same "
                "length."
            )
        if any(self.base * m % self.groups for m in self.mult) or self.base % self.groups:
            raise BadInput(
                f"base={self.base} with mult={list(self.mult)} gives channels that "
                f"groups={self.groups} does not divide; choose base as a multiple of groups."
            )
        if self.attention > len(self.mult):
            raise BadInput(
                f"attention={self.attention} was given for {len(self.mult)} stages; choose from 0 "
                f"(no stage attends) to {len(self.mult)} (all do)."
            )
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
    dropout: float = setting(0.0, SHARE)

    def check(self) -> None:
        """As `check_sizes`."""
        check_sizes(self.width, self.heads, self.dropout)


def check_sizes(width: int, heads: int, dropout: float, where: str = "") -> None:
    """Check that heads divide the width and that something is left by the dropout.

    Args:
        width: of the residual stream.
        heads: of attention.
        dropout: share left out.
        where: the key above, with a dot at its end.

    Raises:
        BadInput: they do not.
    """
    if width % heads:
        raise BadInput(
            f"{where}width={width} is not divisible by heads={heads}; choose a multiple."
        )
    if dropout >= 1:
        raise BadInput(f"{where}dropout={dropout} was given; choose 0 or more, and less than 1.")


def conv(**sizes: object) -> ConvConfig:
    """A field of a frame encoder's sizes with other defaults."""
    return field(default_factory=lambda: ConvConfig(**sizes))  # type: ignore[arg-type, return-value]
