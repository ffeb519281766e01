"""Codebooks: vector -> token -> vector. One interface, `Quantizer`; `make_quantizer` chooses by config.

(`vector-quantize-pytorch` has most of these too, and is their second opinion in the tests. It reads values back: its
VectorQuantize in every update, so that none could be captured as a CUDA graph, and its FSQ when it is made, so that
it cannot be on the meta device, where a run is measured before it starts. Its codebooks are slower besides.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
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
                     bits below its maximum; null: always. Below one bit they are revived in any case.
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


def rotate(z: Tensor, codes: Tensor) -> Tensor:
    """z, [..., dim], rotated and stretched onto its codes, [..., dim]: the codes' values, and a gradient that keeps
    its angle to z as it had to the code (the rotation trick, Fifty et al. 2024, section 4.2).

    λ (I − 2 r rᵀ + 2 q̂ ẑᵀ) z with r the unit vector between ẑ and q̂, and λ = |q| / |z|; the factors are constants.
    """
    with torch.no_grad():
        z_hat, q_hat = F.normalize(z, dim=-1), F.normalize(codes, dim=-1)
        r = F.normalize(z_hat + q_hat, dim=-1)
        stretch = codes.norm(dim=-1, keepdim=True) / z.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    reflected = z - 2 * r * (r * z).sum(dim=-1, keepdim=True)
    return stretch * (reflected + 2 * q_hat * (z_hat * z).sum(dim=-1, keepdim=True))


def to_token(digits: Tensor, base: list[int]) -> Tensor:
    """A number in mixed base, its first digit the least. digits: [..., n] int64, below `base` -> [...] int64."""
    token = digits[..., -1]
    for i in reversed(range(len(base) - 1)):
        token = token * base[i] + digits[..., i]
    return token


def to_digits(tokens: Tensor, base: list[int]) -> Tensor:
    """The inverse of `to_token`: [...] int64 -> [..., n] int64."""
    digits = []
    for b in base:
        digits.append(tokens % b)
        tokens = tokens // b
    return torch.stack(digits, dim=-1)


class QuantizerOutput(NamedTuple):
    """vectors: [..., dim] the codes, and a gradient for the input
    tokens:     [...] int64
    commitment: scalar, weight included: how far the inputs are from their codes (and, where codes learn by gradient,
                these from the inputs)
    """

    vectors: Tensor
    tokens: Tensor
    commitment: Tensor


class Quantizer(nn.Module):
    """What all have in common: the interface, and how often each code is used.

    Nothing reads a value back or branches on data, so that updates can be captured; all arithmetic is float32's.
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("usage", torch.full((config.num_codes,), 1 / config.num_codes))

    def forward(self, z: Tensor) -> QuantizerOutput:
        """z: [..., dim], any length. In training mode the codebook may then take a step towards z."""
        raise NotImplementedError

    def nearest(self, z: Tensor) -> Tensor:
        """z: [..., dim], any length -> tokens [...] int64; the codebook stays as it is."""
        raise NotImplementedError

    def lookup(self, tokens: Tensor) -> Tensor:
        """[...] int64 -> [..., dim]."""
        raise NotImplementedError

    def usage_entropy(self) -> Tensor:
        """Entropy of the codes' use, in bits; log2(size) if all are used alike."""
        p = self.usage / self.usage.sum()
        return -torch.special.xlogy(p, p).sum() / math.log(2)

    def codes_in_use(self) -> Tensor:
        """How many codes are used at least a tenth as often as if all were used alike."""
        return (self.usage >= 0.1 / self.config.num_codes).sum()

    @torch.no_grad()
    def _count(self, tokens: Tensor) -> None:
        """Moves the average use. tokens: [N]."""
        share = torch.full(tokens.shape, 1 / tokens.numel(), device=tokens.device)
        self._follow(torch.zeros_like(self.usage).index_add_(0, tokens, share))

    def _follow(self, use: Tensor) -> None:
        """use: [size], how often each code was used, sum 1."""
        self.usage.lerp_(use, 1 - self.config.usage_decay)


class CodebookQuantizer(Quantizer):
    """Looks for the nearest of the codes that it keeps in `codebook`, [size, dim]."""

    codebook: Tensor

    def forward(self, z: Tensor) -> QuantizerOutput:
        with float32(z):
            z = self.placed(z.float())
            tokens = self.nearest(z)
            codes = self.lookup(tokens)
            commitment = self.commitment(z, codes)
            vectors = (rotate if self.config.gradient == "rotation" else straight_through)(z, codes)
            if self.training:
                self._move(z.detach().flatten(0, -2), tokens.flatten())
        return QuantizerOutput(vectors, tokens, commitment)

    def lookup(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.codebook)

    def placed(self, z: Tensor) -> Tensor:
        """z where the codes lie."""
        return z

    def commitment(self, z: Tensor, codes: Tensor) -> Tensor:
        """The loss besides the reconstruction's."""
        return self.config.commitment * F.mse_loss(z, codes.detach())

    def _move(self, z: Tensor, tokens: Tensor) -> None:
        """After each forward pass in training mode. z: [N, dim], tokens: [N] their codes."""
        self._count(tokens)


def one_hot(tokens: Tensor, size: int) -> Tensor:
    """Which code each token is. [N] int64 -> [N, size] float32, 0 or 1."""
    return (tokens[:, None] == torch.arange(size, device=tokens.device)).float()


def first_codes(config: QuantizerConfig) -> Tensor:
    """[size, dim], uniform, small."""
    return torch.empty(config.size, config.dim).uniform_(-1, 1) / config.size


class CosineQuantizer(CodebookQuantizer):
    """Nearest code by dot product, the cosine as soon as the codes are unit vectors, which the first update
    makes them. The codebook moves by exponential averages, not by gradient.

    (van den Oord et al. 2017, appendix A.1, with the l2-normalised codes of Yu et al. 2022, and the
    revival of unused codes of Δ-IRIS.)
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        self.register_buffer("codebook", first_codes(config))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def placed(self, z: Tensor) -> Tensor:
        return F.normalize(z, dim=-1)

    def nearest(self, z: Tensor) -> Tensor:
        with float32(z):
            return (z.float() @ self.codebook.T).argmax(dim=-1)

    @torch.no_grad()
    def _move(self, z: Tensor, tokens: Tensor) -> None:
        c = self.config
        assigned = one_hot(tokens, c.size)
        self._follow(assigned.mean(dim=0))
        # A code that nobody chose has the zero vector as its mean: it shrinks, and normalising undoes that.
        mean = F.normalize(assigned.T @ z, dim=-1)
        moved = F.normalize(self.codebook.lerp(mean, 1 - c.decay), dim=-1)

        entropy = self.usage_entropy()
        revive = entropy < math.log2(c.size) - 2
        if c.revival_updates is not None:
            revive = revive & ((entropy < 1) | (self.updates < c.revival_updates))
        dead = revive & (self.usage < 0.1 / c.size)
        random_rows = z[torch.randint(z.shape[0], (c.size,), device=z.device)]
        self.codebook.copy_(torch.where(dead[:, None], random_rows, moved))
        self.usage.copy_(torch.where(dead, 1 / c.size, self.usage))
        self.updates.add_(1)


class EuclideanQuantizer(CodebookQuantizer):
    """Nearest code by distance (van den Oord et al. 2017, equation 1)."""

    def nearest(self, z: Tensor) -> Tensor:
        with float32(z):
            # |z − e|² without |z|², which is the same for every code.
            return (self.codebook.square().sum(dim=-1) - 2 * z.float() @ self.codebook.T).argmin(dim=-1)


class VectorQuantizer(EuclideanQuantizer):
    """VQ-VAE with codes that learn by gradient (van den Oord et al. 2017, equation 3): |sg(z) − e|² + β |z − sg(e)|²,
    as means over the dimensions."""

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        self.codebook = nn.Parameter(first_codes(config))

    def commitment(self, z: Tensor, codes: Tensor) -> Tensor:
        return super().commitment(z, codes) + F.mse_loss(codes, z.detach())


class AveragingVectorQuantizer(EuclideanQuantizer):
    """VQ-VAE with codes that are the moving averages of the vectors that choose them (van den Oord et al. 2017,
    appendix A.1, equations 6 to 8). The averages start at nothing: its first vectors decide where a code goes."""

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        self.register_buffer("codebook", first_codes(config))
        self.register_buffer("counts", torch.zeros(config.size))  # N
        self.register_buffer("sums", torch.zeros(config.size, config.dim))  # m

    @torch.no_grad()
    def _move(self, z: Tensor, tokens: Tensor) -> None:
        assigned = one_hot(tokens, self.config.size)
        self._follow(assigned.mean(dim=0))
        self.counts.lerp_(assigned.sum(dim=0), 1 - self.config.decay)
        self.sums.lerp_(assigned.T @ z, 1 - self.config.decay)
        # Of a code that nobody chooses both shrink alike, and it stays; 0 / 0 it must not come to.
        counts = self.counts[:, None]
        self.codebook.copy_(torch.where(counts > 1e-12, self.sums / counts, self.codebook))


class FiniteScalarQuantizer(Quantizer):
    """Rounds each dimension to one of a few levels; the codes are all their combinations, and nothing is learned
    (Mentzer et al. 2023, section 3.1 and appendix A.1). No loss besides the reconstruction's."""

    MARGIN = 1e-3  # by which a bounded dimension reaches past its outermost levels

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        levels = torch.tensor(config.levels)
        reach = (levels - 1) * (1 + self.MARGIN) / 2
        offset = 0.5 * (levels % 2 == 0)  # an even number of levels has one more below zero than above
        for name, value in (("reach", reach), ("offset", offset), ("shift", torch.atanh(offset / reach))):
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("middle", levels // 2, persistent=False)
        self.register_buffer("top", levels - 1, persistent=False)

    def forward(self, z: Tensor) -> QuantizerOutput:
        with float32(z):
            bounded = self.bound(z.float())
            rounded = bounded.round()
            vectors = straight_through(bounded, rounded) / self.middle
            tokens = self.tokens_of(rounded)
            if self.training:
                self._count(tokens.flatten())
        return QuantizerOutput(vectors, tokens, vectors.new_zeros(()))

    def bound(self, z: Tensor) -> Tensor:
        """[..., dim] -> between a dimension's outermost levels, zero where z is."""
        return torch.tanh(z + self.shift) * self.reach - self.offset

    def tokens_of(self, rounded: Tensor) -> Tensor:
        """[..., dim], whole numbers, 0 in the middle -> [...] int64."""
        digits = (rounded.long() + self.middle).clamp(min=0)  # of NaN too, which the learner will report
        return to_token(digits.minimum(self.top), self.config.levels)

    def nearest(self, z: Tensor) -> Tensor:
        with float32(z):
            return self.tokens_of(self.bound(z.float()).round())

    def lookup(self, tokens: Tensor) -> Tensor:
        return (to_digits(tokens, self.config.levels) - self.middle) / self.middle


class ProductQuantizer(Quantizer):
    """Several codebooks, each for its share of the dimensions (product quantisation, Jégou et al. 2011): with m of
    them, the m-th root as many codes are learned as can be told apart.

    Raises BadInput if size or dimensions cannot be shared out.
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        shares = config.codebooks
        share = round(config.size ** (1 / shares))
        if share**shares != config.size or config.dim % shares:
            raise BadInput(
                f"agent.tokenizer.quantizer.codebooks={shares} was given with size={config.size} and dim={config.dim}; "
                f"give a size that is a whole number to the power of {shares}, {max(2, share) ** shares} say, and a "
                f"multiple of {shares} as dim."
            )
        own = dataclasses.replace(config, size=share, dim=config.dim // shares, codebooks=1)
        self.base = [share] * shares
        self.parts = nn.ModuleList(make_quantizer(own) for _ in range(shares))

    def forward(self, z: Tensor) -> QuantizerOutput:
        outputs = [part(own) for part, own in self.shared(z)]
        tokens = to_token(torch.stack([output.tokens for output in outputs], dim=-1), self.base)
        if self.training:
            self._count(tokens.flatten())
        vectors = torch.cat([output.vectors for output in outputs], dim=-1)
        return QuantizerOutput(vectors, tokens, torch.stack([output.commitment for output in outputs]).mean())

    def nearest(self, z: Tensor) -> Tensor:
        return to_token(torch.stack([part.nearest(own) for part, own in self.shared(z)], dim=-1), self.base)

    def lookup(self, tokens: Tensor) -> Tensor:
        digits = to_digits(tokens, self.base).unbind(dim=-1)
        return torch.cat([part.lookup(own) for part, own in zip(self.parts, digits, strict=True)], dim=-1)

    def shared(self, z: Tensor) -> list[tuple[Quantizer, Tensor]]:
        """Each codebook with its share of z."""
        return list(zip(self.parts, z.chunk(len(self.base), dim=-1), strict=True))


CLASSES = {
    "cosine_ema": CosineQuantizer, "vq": VectorQuantizer, "vq_ema": AveragingVectorQuantizer, "fsq": FiniteScalarQuantizer,
}  # fmt: skip


def make_quantizer(config: QuantizerConfig) -> Quantizer:
    """The quantizer of a config. Raises BadInput if its sizes do not fit together."""
    return ProductQuantizer(config) if config.codebooks > 1 else CLASSES[config.kind](config)
