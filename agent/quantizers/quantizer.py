"""Vector -> token -> vector: the options of all quantizers and what they have in common.

(`vector-quantize-pytorch` has most of them too, and is their second opinion in the tests. It reads values back: its
VectorQuantize in every update, so that none could be captured as a CUDA graph, and its FSQ when it is made, so that
it cannot be on the meta device, where a run is measured before it starts. Its codebooks are slower besides.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from envs.errors import BadInput

# Kind -> the options that it reads, besides `kind`.
KINDS = {
    "cosine_ema": {"size", "dim", "commitment", "decay", "usage_decay", "revival_updates", "codebooks", "gradient"},
    "vq": {"size", "dim", "commitment", "usage_decay", "codebooks", "gradient"},
    "vq_ema": {"size", "dim", "commitment", "decay", "usage_decay", "codebooks", "gradient"},
    "fsq": {"levels", "usage_decay"},
}
GRADIENTS = ("straight_through", "rotation")


@dataclass
class QuantizerConfig:
    """kind: "cosine_ema" (Δ-IRIS), "vq" or "vq_ema" (VQ-VAE, its codes learned by gradient or as moving averages)
                     or "fsq" (finite scalar quantisation)
    size, dim:       number of codes, as many as the dynamics sees, and their length
    codebooks:       of `size`^(1/codebooks) codes each, side by side, each for its share of `dim`; a token says which
                     code of each, so that the dynamics' sequence stays as long as with one
    gradient:        how it passes the choice of a code: "straight_through", or by the "rotation" trick
    commitment:      weight of the commitment loss (the paper of VQ-VAE: 0.25)
    decay:           of the moving average that moves the codes
    usage_decay:     of the moving average of how often each code is used
    revival_updates: updates during which unused codes are revived as soon as the usage entropy falls two
                     bits below its maximum; null: always. Below one bit (where there
                     are less than four codes, half of theirs) they are revived in any case.
    levels:          of fsq, each dimension's; their product is the number of codes. The paper recommends [8, 6, 5],
                     [8, 5, 5, 5], [7, 5, 5, 5, 5] for about 2^8, 2^10, 2^12 codes.

    Raises BadInput for an unknown kind or gradient, and where an option has another value than here and the kind
    does not read it.
    """

    kind: str = "cosine_ema"
    size: int = 1024
    dim: int = 64
    codebooks: int = 1
    gradient: str = "straight_through"
    commitment: float = 0.02
    decay: float = 0.99
    usage_decay: float = 0.98
    revival_updates: int | None = 0
    levels: list[int] = field(default_factory=lambda: [8, 5, 5, 5])

    def __post_init__(self) -> None:
        for name, value, accepted in (("kind", self.kind, KINDS), ("gradient", self.gradient, GRADIENTS)):
            if value not in accepted:
                raise BadInput(f"agent.tokenizer.quantizer.{name}={value} is not known; choose one of {', '.join(accepted)}.")
        for option in dataclasses.fields(self):
            default = option.default if option.default_factory is dataclasses.MISSING else option.default_factory()
            given = getattr(self, option.name)
            if given != default and option.name not in KINDS[self.kind] | {"kind"}:
                readers = [kind for kind, read in KINDS.items() if option.name in read]
                raise BadInput(
                    f"agent.tokenizer.quantizer.{option.name}={'null' if given is None else given} was given and "
                    f"kind={self.kind} does not read it; set it to {default}, as quantizer={self.kind} does, or choose kind={' or '.join(readers)}."
                )

    @property
    def num_codes(self) -> int:
        """As many tokens as there are."""
        return math.prod(self.levels) if self.kind == "fsq" else self.size

    @property
    def vector_dim(self) -> int:
        """Length of the vectors that are quantised."""
        return len(self.levels) if self.kind == "fsq" else self.dim


def float32(x: Tensor) -> contextlib.AbstractContextManager:
    """No autocast inside: distances in bf16 would choose other codes. (Meta tensors do not know autocast.)"""
    return contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def straight_through(z: Tensor, codes: Tensor) -> Tensor:
    """The codes' values; the gradient is z's, as if nothing had been chosen (van den Oord et al. 2017, section 3.2)."""
    return z + (codes - z).detach()


class QuantizerOutput(NamedTuple):
    """vectors: [..., dim] the codes, and a gradient for the input
    tokens:     [...] int64
    commitment: scalar, weight included: how far the inputs are from their codes (and, where codes learn by gradient,
                these from the inputs)
    """

    vectors: Tensor
    tokens: Tensor
    commitment: Tensor


class Quantizer(nn.Module, ABC):
    """What all have in common: the interface, and how often each code is used.

    Nothing reads a value back or branches on data, so that updates can be captured; all arithmetic is float32's.
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("usage", torch.full((config.num_codes,), 1 / config.num_codes))

    @abstractmethod
    def forward(self, z: Tensor) -> QuantizerOutput:
        """z: [..., dim], any length. In training mode the codebook may then take a step towards z."""

    @abstractmethod
    def nearest(self, z: Tensor) -> Tensor:
        """z: [..., dim], any length -> tokens [...] int64; the codebook stays as it is."""

    @abstractmethod
    def lookup(self, tokens: Tensor) -> Tensor:
        """[...] int64 -> [..., dim]."""

    def usage_entropy(self) -> Tensor:
        """Entropy of the codes' use, in bits; log2(size) if all are used alike."""
        p = self.usage / self.usage.sum()
        return -torch.special.xlogy(p, p).sum() / math.log(2)

    def codes_in_use(self) -> Tensor:
        """How many codes are used at least a tenth as often as if all were used alike."""
        return (self.usage >= 0.1 / self.config.num_codes).sum()

    def diagnostics(self) -> dict[str, Tensor]:
        """What to watch besides the losses."""
        return {"codebook_entropy_bits": self.usage_entropy(), "codes_in_use": self.codes_in_use()}

    @torch.no_grad()
    def _count(self, tokens: Tensor) -> None:
        """Moves the average use. tokens: [N]."""
        share = torch.full(tokens.shape, 1 / tokens.numel(), device=tokens.device)
        self._follow(torch.zeros_like(self.usage).index_add_(0, tokens, share))

    def _follow(self, use: Tensor) -> None:
        """use: [size], how often each code was used, sum 1."""
        self.usage.lerp_(use, 1 - self.config.usage_decay)
