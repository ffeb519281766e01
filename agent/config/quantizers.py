"""What each kind of quantizer can be set to."""

from __future__ import annotations

import math
from dataclasses import dataclass

from envs.settings import COUNT, NATURAL, SHARE, WEIGHT, Range, setting

GRADIENTS = ("straight_through", "rotation")


@dataclass
class QuantizerConfig:
    """What all quantizers have.

    Attributes:
        kind: Which quantizer: cosine_ema (Δ-IRIS), vq or vq_ema (VQ-VAE), fsq.
        usage_decay: Of the moving average of how often each code is used.
    """

    kind: str = ""
    usage_decay: float = setting(0.98, SHARE)

    @property
    def num_codes(self) -> int:
        """Number of tokens."""
        raise NotImplementedError

    @property
    def vector_dim(self) -> int:
        """Length of the vectors that are quantized."""
        raise NotImplementedError


@dataclass
class CodebookConfig(QuantizerConfig):
    """A quantizer that keeps its codes in a table.

    Attributes:
        size: Number of codes.
        dim: Length of a code.
        codebooks: Tables of size^(1/codebooks) codes, each for a share of `dim` (product codes).
        gradient: How it passes the choice of a code: straight_through or rotation.
        commitment: Weight of the commitment loss.
    """

    size: int = setting(1024, COUNT)
    dim: int = setting(64, COUNT)
    codebooks: int = setting(1, COUNT)
    gradient: str = setting("straight_through", GRADIENTS)
    commitment: float = setting(0.25, WEIGHT)

    @property
    def num_codes(self) -> int:
        return self.size

    @property
    def vector_dim(self) -> int:
        return self.dim


@dataclass
class CosineEmaConfig(CodebookConfig):
    """The quantizer of Δ-IRIS: unit codes that follow a moving average.

    Attributes:
        decay: Of the moving average that moves the codes.
        revival_updates: Updates in which two lost bits of entropy revive codes; null: all.
    """

    kind: str = "cosine_ema"
    commitment: float = setting(0.02, WEIGHT)
    decay: float = setting(0.99, SHARE)
    revival_updates: int | None = setting(0, NATURAL)


@dataclass
class VqConfig(CodebookConfig):
    """VQ-VAE with codes learned by gradient (van den Oord et al. 2017)."""

    kind: str = "vq"


@dataclass
class VqEmaConfig(CodebookConfig):
    """VQ-VAE with codes as moving averages (van den Oord et al. 2017, appendix A.1).

    Attributes:
        decay: Of the moving average that moves the codes.
    """

    kind: str = "vq_ema"
    decay: float = setting(0.99, SHARE)


@dataclass
class FsqConfig(QuantizerConfig):
    """Finite scalar quantization (Mentzer et al. 2023); no codebook.

    Attributes:
        levels: Of each dimension, as in [8, 6, 5] for 240 codes or [8, 5, 5, 5] for 1,000.
    """

    kind: str = "fsq"
    levels: list[int] = setting([8, 5, 5, 5], Range(2, 1000, "2 to 1000 for each dimension"))

    @property
    def num_codes(self) -> int:
        return math.prod(self.levels)

    @property
    def vector_dim(self) -> int:
        return len(self.levels)
