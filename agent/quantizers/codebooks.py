"""Quantizers that look for the nearest of the codes that they keep."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.config.quantizers import CodebookConfig, CosineEmaConfig, VqConfig, VqEmaConfig
from agent.quantizers.base import Quantizer, QuantizerOutput, float32, straight_through


def rotate(z: Tensor, codes: Tensor) -> Tensor:
    """Rotate and stretch z onto its codes (the rotation trick, Fifty et al. 2024, section 4.2).

    λ (I − 2 r rᵀ + 2 q̂ ẑᵀ) z, where r is the unit vector between ẑ and q̂, and λ = |q| / |z|; the
    factors are constants. The values are the codes'; the gradient keeps with z the angle that it
    had with the code.

    z, codes: [..., dim] -> [..., dim]
    """
    with torch.no_grad():
        z_hat, q_hat = F.normalize(z, dim=-1), F.normalize(codes, dim=-1)
        r = F.normalize(z_hat + q_hat, dim=-1)
        stretch = codes.norm(dim=-1, keepdim=True) / z.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    reflected = z - 2 * r * (r * z).sum(dim=-1, keepdim=True)
    return stretch * (reflected + 2 * q_hat * (z_hat * z).sum(dim=-1, keepdim=True))


def first_codes(config: CodebookConfig) -> Tensor:
    """[size, dim], uniform, small."""
    return torch.empty(config.size, config.dim).uniform_(-1, 1) / config.size


def one_hot(tokens: Tensor, size: int) -> Tensor:
    """[N] int64 -> [N, size] float32."""
    return (tokens[:, None] == torch.arange(size, device=tokens.device)).float()


class CodebookQuantizer(Quantizer):
    """Nearest of the codes in `codebook` [size, dim] (van den Oord et al. 2017, equation 1)."""

    config: CodebookConfig
    codebook: Tensor

    def forward(self, z: Tensor) -> QuantizerOutput:
        with float32(z):
            z = self.prepare(z.float())
            tokens = self.nearest(z)
            codes = self.lookup(tokens)
            commitment = self.commitment(z, codes)
            vectors = (rotate if self.config.gradient == "rotation" else straight_through)(z, codes)
            if self.training:
                # A NaN, which the learner will report, must not stay in the codes.
                self._move(z.detach().flatten(0, -2).nan_to_num(), tokens.flatten())
        return QuantizerOutput(vectors, tokens, commitment)

    def nearest(self, z: Tensor) -> Tensor:
        with float32(z):
            # |z − e|² without |z|², which is the same for every code.
            distances = self.codebook.square().sum(dim=-1) - 2 * z.float() @ self.codebook.T
            return distances.argmin(dim=-1)

    def lookup(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.codebook)

    def prepare(self, z: Tensor) -> Tensor:
        """What is compared with the codes."""
        return z

    def commitment(self, z: Tensor, codes: Tensor) -> Tensor:
        """The loss besides the reconstruction's."""
        return self.config.commitment * F.mse_loss(z, codes.detach())

    def _move(self, z: Tensor, tokens: Tensor) -> None:
        """What an update does besides the gradient. z: [N, dim], tokens: [N] their codes."""
        self._count(tokens)


class CosineQuantizer(CodebookQuantizer):
    """Nearest code by dot product, with a codebook of exponential moving averages.

    The first update makes the codes unit vectors; from then on the dot product is the cosine.

    Sources: van den Oord et al. 2017, appendix A.1; l2-normalised codes of Yu et al. 2022; revival
    of unused codes as in Δ-IRIS.
    """

    config: CosineEmaConfig

    def __init__(self, config: CosineEmaConfig) -> None:
        super().__init__(config)
        self.register_buffer("codebook", first_codes(config))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def prepare(self, z: Tensor) -> Tensor:
        return F.normalize(z, dim=-1)

    def nearest(self, z: Tensor) -> Tensor:
        with float32(z):
            return (z.float() @ self.codebook.T).argmax(dim=-1)

    @torch.no_grad()
    def _move(self, z: Tensor, tokens: Tensor) -> None:
        c = self.config
        assigned = one_hot(tokens, c.size)
        self._follow(assigned.mean(dim=0))
        # The mean of a code that nobody chose is 0: the code shrinks, and normalising undoes that.
        mean = F.normalize(assigned.T @ z, dim=-1)
        moved = F.normalize(self.codebook.lerp(mean, 1 - c.decay), dim=-1)

        entropy = self.usage_entropy()
        revive = entropy < math.log2(c.size) - 2
        if c.revival_updates is not None:
            revive = revive & (self.updates < c.revival_updates)
        revive = revive | (entropy < min(1, math.log2(c.size) / 2))
        dead = revive & (self.usage < 0.1 / c.size)
        random_rows = z[torch.randint(z.shape[0], (c.size,), device=z.device)]
        self.codebook.copy_(torch.where(dead[:, None], random_rows, moved))
        self.usage.copy_(torch.where(dead, 1 / c.size, self.usage))
        self.updates.add_(1)


class VectorQuantizer(CodebookQuantizer):
    """VQ-VAE whose codes learn by gradient: |sg(z) − e|² + β |z − sg(e)|².

    Means over the dimensions (van den Oord et al. 2017, equation 3).
    """

    def __init__(self, config: VqConfig) -> None:
        super().__init__(config)
        self.codebook = nn.Parameter(first_codes(config))

    def commitment(self, z: Tensor, codes: Tensor) -> Tensor:
        return super().commitment(z, codes) + F.mse_loss(codes, z.detach())


class AveragingVectorQuantizer(CodebookQuantizer):
    """VQ-VAE whose codes are moving averages of the vectors that choose them.

    The averages start at 0, so the first vectors decide where a code goes.

    Source: van den Oord et al. 2017, appendix A.1, equations 6 to 8.
    """

    config: VqEmaConfig

    def __init__(self, config: VqEmaConfig) -> None:
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
        # Of a code that nobody chooses both shrink alike, and it stays; never 0 / 0.
        counts = self.counts[:, None]
        self.codebook.copy_(torch.where(counts > 1e-12, self.sums / counts, self.codebook))
