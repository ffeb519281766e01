"""The per-frame VQ-VAE: frame <-> K tokens.

Sources: IRIS, section 2.1 and appendix A; DART, section 3.1.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from agent.config.tokenizers import FrameTokenizerConfig
from agent.nets.conv import Decoder, Encoder, pixels, to_frames
from agent.quantizers.make import make_quantizer
from agent.segment import Segment, masked_mean, real_frames
from agent.tokenizers.base import Tokenizer
from envs.spaces import Spaces


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
        """What is quantized, row by row of the map. [N, C, H, W] uint8 -> [N, K, dim]."""
        return rearrange(self.encoder(pixels(frames)), "n d h w -> n (h w) d")

    def encode(self, frames: Tensor) -> Tensor:
        """frames: [..., C, H, W] uint8 -> tokens [..., K] int64."""
        tokens = self.quantizer.nearest(self.encode_vectors(frames.flatten(0, -4)))
        return tokens.unflatten(0, frames.shape[:-3])

    def tokens_of(self, segment: Segment) -> Tensor:
        """Of a segment [B, T] the tokens [B, T, K] of its frames."""
        return self.encode(segment.frames)

    def reconstruction(self, segment: Segment) -> Tensor:
        return self.decode(self.encode(segment.frames[:, 1:]))

    def embed(self, tokens: Tensor) -> Tensor:
        """The codes, for the decoder or a policy without frames. [..., K] -> [..., K, dim]."""
        return self.quantizer.lookup(tokens)

    def reconstruct(self, vectors: Tensor) -> Tensor:
        """The decoder as it is trained. [N, K, dim] -> [N, C, H, W] float, near 0..1."""
        return self.decoder(rearrange(vectors, "n (h w) d -> n d h w", h=self.map_size))

    def decode(self, tokens: Tensor) -> Tensor:
        """tokens: [..., K] int64 -> frames [..., C, H, W] uint8."""
        frames = to_frames(self.reconstruct(self.embed(tokens.flatten(0, -2))))
        return frames.unflatten(0, tokens.shape[:-1])

    def loss(self, segment: Segment) -> dict[str, Tensor]:
        """As in `Tokenizer`; the commitment is over all frames, padded ones too."""
        frames, real = segment.frames.flatten(0, 1), real_frames(segment.mask).flatten()
        quantized = self.quantizer(self.encode_vectors(frames))
        decoded = self.reconstruct(quantized.vectors).float()
        absolute = (decoded - pixels(frames)).abs().flatten(1)
        losses = {
            "reconstruction_l1": self.config.l1 * masked_mean(absolute.mean(dim=1), real),
            "reconstruction_l2": self.config.l2 * masked_mean(absolute.square().mean(dim=1), real),
            "commitment": quantized.commitment,
        }
        return {"loss": sum(losses.values()), **losses}  # type: ignore[dict-item]
