"""What each kind of quantizer can be set to."""

from __future__ import annotations

import math
from dataclasses import dataclass

from envs.errors import BadInput
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
        codebooks: Tables side by side, of size^(1/codebooks) codes each, each for its share of
            `dim`; one token names a code of each (product quantization).
        gradient: How the gradient passes the choice of a code: straight_through or rotation.
        commitment: Weight of the commitment loss.

    Raises:
        BadInput: there is no such gradient.
    """

    size: int = setting(1024, COUNT)
    dim: int = setting(64, COUNT)
    codebooks: int = setting(1, COUNT)
    gradient: str = "straight_through"
    commitment: float = setting(0.25, WEIGHT)

    def __post_init__(self) -> None:
        if self.gradient not in GRADIENTS:
            raise BadInput(
                f"agent.tokenizer.quantizer.gradient={self.gradient} is not known; choose one of "
                f"{', '.join(GRADIENTS)}."
            )

    @property
    def num_codes(self) -> int:
        """Number of tokens."""
        return self.size

    @property
    def vector_dim(self) -> int:
        """Length of the vectors that are quantized."""
        return self.dim


@dataclass
class CosineEmaConfig(CodebookConfig):
    """The quantizer of Δ-IRIS: unit codes that follow a moving average.

    Attributes:
        decay: Of the moving average that moves the codes.
        revival_updates: Updates during which unused codes are revived when the entropy of use is
            two bits below its maximum; null: always. Below one bit they are revived in any case.
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
        levels: Of each dimension; their product is the number of codes. The paper recommends
            [8, 6, 5], [8, 5, 5, 5] and [7, 5, 5, 5, 5] for about 2^8, 2^10 and 2^12 codes.
    """

    kind: str = "fsq"
    levels: list[int] = setting([8, 5, 5, 5], Range(2, 1000, "2 to 1000 for each dimension"))

    @property
    def num_codes(self) -> int:
        """Number of tokens."""
        return math.prod(self.levels)

    @property
    def vector_dim(self) -> int:
        """Length of the vectors that are quantized."""
        return len(self.levels)
