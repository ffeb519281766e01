"""What all tokenizers have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from agent.quantizers.base import Quantizer
from agent.segment import Segment


class Tokenizer(nn.Module, ABC):
    """Frames to the tokens that a dynamics predicts, and back.

    Attributes:
        tokens: Number of tokens a step, K.
        quantizer: Of the tokens.
    """

    tokens: int
    quantizer: Quantizer

    @abstractmethod
    def tokens_of(self, segment: Segment) -> Tensor:
        """What its dynamics learns of a segment [B, T]: [B, T or T − 1, K] int64."""

    @abstractmethod
    def reconstruction(self, segment: Segment) -> Tensor:
        """Every frame but the first, by way of tokens. [B, T] -> [B, T − 1, C, H, W] uint8."""

    @abstractmethod
    def loss(self, segment: Segment) -> dict[str, Tensor]:
        """The weighted terms of the loss over a segment's real frames, and their sum as "loss"."""

    def diagnostics(self) -> dict[str, Tensor]:
        """What to watch besides the losses."""
        return self.quantizer.diagnostics()
