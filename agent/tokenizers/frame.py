"""The per-frame VQ-VAE: frame <-> K tokens (IRIS, section 2.1 and appendix A; DART, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from einops import rearrange
from torch import Tensor

from agent.nets.conv import ConvConfig, Decoder, Encoder, pixels, to_frames
from agent.quantizers.make import make_quantizer
from agent.quantizers.quantizer import QuantizerConfig
from agent.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from agent.segment import Segment, masked_mean, real_frames
from envs.spaces import Spaces

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""Reconstructions and frames, [N, C, H, W] float near 0..1 -> how unlike they look, [N], weight included."""


def four_halvings() -> ConvConfig:
    """64×64 -> 4×4, with attention at 16×16 and 8×8."""
    return ConvConfig(base=64, mult=[1, 1, 1, 1], down=[1, 1, 1, 1], blocks=2, attention=2)


def published_codes() -> QuantizerConfig:
    """Codes that learn by gradient, and a commitment term of the same weight."""
    return QuantizerConfig(kind="vq", size=512, dim=512, commitment=1.0)


@dataclass
class FrameTokenizerConfig(TokenizerConfig):
    """conv: of the encoder and the decoder; each place of the encoder's map is one token
    l1, l2: weights of the reconstruction terms. As published there is the first and a perceptual one, which sees small
            things; L1 alone paints them over, as most pixels are right without them
    """

    kind: str = "frame"
    conv: ConvConfig = field(default_factory=four_halvings)
    quantizer: QuantizerConfig = field(default_factory=published_codes)
    l1: float = 1.0
    l2: float = 0.0


class FrameTokenizer(Tokenizer):
    """Codes each frame on its own."""

    def __init__(self, config: FrameTokenizerConfig, spaces: Spaces) -> None:
        super().__init__()
        self.config = config
        conv = config.conv.fitted(spaces.size, "agent.tokenizer.conv")
        self.map_size = conv.output_size(spaces.size)
        self.tokens = self.map_size**2  # a frame, K
        self.encoder = Encoder(conv, channels=spaces.channels, latent=config.quantizer.vector_dim)
        self.quantizer = make_quantizer(config.quantizer)
        self.decoder = Decoder(conv, latent=config.quantizer.vector_dim, channels=spaces.channels)

    def encode_vectors(self, frames: Tensor) -> Tensor:
        """frames: [N, C, H, W] uint8 -> what is quantised, [N, K, dim], the map's rows one after another."""
        return rearrange(self.encoder(pixels(frames)), "n d h w -> n (h w) d")

    def encode(self, frames: Tensor) -> Tensor:
        """frames: [..., C, H, W] uint8 -> tokens [..., K] int64."""
        return self.quantizer.nearest(self.encode_vectors(frames.flatten(0, -4))).unflatten(0, frames.shape[:-3])

    def tokens_of(self, segment: Segment) -> Tensor:
        """Of a segment [B, T] the tokens [B, T, K] of its frames."""
        return self.encode(segment.frames)

    def reconstruction(self, segment: Segment) -> Tensor:
        """Every frame but the first, of its tokens. [B, T] -> [B, T − 1, C, H, W] uint8."""
        return self.decode(self.encode(segment.frames[:, 1:]))

    def embed(self, tokens: Tensor) -> Tensor:
        """tokens: [..., K] int64 -> their codes, [..., K, dim]: what the decoder sees, and a policy that needs no frames."""
        return self.quantizer.lookup(tokens)

    def reconstruct(self, vectors: Tensor) -> Tensor:
        """The decoder as it is trained. vectors: [N, K, dim] -> [N, C, H, W] float, near 0..1."""
        return self.decoder(rearrange(vectors, "n (h w) d -> n d h w", h=self.map_size))

    def decode(self, tokens: Tensor) -> Tensor:
        """tokens: [..., K] int64 -> frames [..., C, H, W] uint8."""
        return to_frames(self.reconstruct(self.embed(tokens.flatten(0, -2)))).unflatten(0, tokens.shape[:-1])

    def loss(self, segment: Segment, perceptual: Perceptual | None = None) -> dict[str, Tensor]:
        """The terms of the loss over the segment's real frames, weights included, and their sum as "loss".

        The commitment term, the codes' own with it, is over all frames, padded ones too.

        perceptual: a term besides, as published that of a pretrained network (Johnson et al. 2016); here there is
                    none by default, as no such network comes with the package
        """
        frames, real = segment.frames.flatten(0, 1), real_frames(segment.mask).flatten()
        quantized = self.quantizer(self.encode_vectors(frames))
        reconstruction, seen = self.reconstruct(quantized.vectors).float(), pixels(frames)
        absolute = (reconstruction - seen).abs().flatten(1)
        losses = {
            "reconstruction_l1": self.config.l1 * masked_mean(absolute.mean(dim=1), real),
            "reconstruction_l2": self.config.l2 * masked_mean(absolute.square().mean(dim=1), real),
            "commitment": quantized.commitment,
        }
        if perceptual is not None:
            losses["perceptual"] = masked_mean(perceptual(reconstruction, seen), real)
        return {"loss": sum(losses.values()), **losses}
