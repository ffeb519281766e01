"""The Δ-autoencoder: (frame, action, next frame) <-> K tokens (Δ-IRIS, section 2.1)."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from agent.config.tokenizers import DeltaTokenizerConfig
from agent.nets.actions import ActionEmbedding
from agent.nets.conv import Decoder, Encoder, pixels, to_frames
from agent.nets.initialization import initialize_like_gpt
from agent.quantizers.base import QuantizerOutput
from agent.quantizers.make import make_quantizer
from agent.segment import Segment, masked_mean
from agent.tokenizers.base import Tokenizer
from envs.errors import BadInput
from envs.spaces import Spaces


def token_grid(tokens: int) -> tuple[int, int]:
    """Rows and columns of the tokens on a feature map: near square, never higher than wide."""
    rows = max(n for n in range(1, math.isqrt(tokens) + 1) if tokens % n == 0)
    return rows, tokens // rows


def transitions(segment: Segment) -> tuple[Tensor, Tensor, Tensor]:
    """A segment [B, T] -> frames, actions, next frames, each [B (T − 1), ...]."""
    frames, actions = segment.frames[:, :-1], segment.actions[:, :-1]
    return frames.flatten(0, 1), actions.flatten(0, 1), segment.frames[:, 1:].flatten(0, 1)


class DeltaTokenizer(Tokenizer):
    """Codes what changed between two frames, given the action and the first of them.

    Where nothing else is said, frames are [N, C, H, W] uint8 and actions [N, F] int64.

    Raises:
        BadInput: If sizes do not fit together.
    """

    def __init__(self, config: DeltaTokenizerConfig, spaces: Spaces) -> None:
        super().__init__()
        self.config = config
        self.image_size = spaces.size
        conv = config.conv.fitted(spaces.size, "agent.tokenizer.conv")
        frame_conv = config.frame_conv.fitted(spaces.size, "agent.tokenizer.frame_conv")
        self.map_size = conv.output_size(spaces.size)
        self.tokens = config.tokens
        self.grid = token_grid(config.tokens)
        if (other := frame_conv.output_size(spaces.size)) != self.map_size:
            raise BadInput(
                f"agent.tokenizer.conv gives {self.map_size}×{self.map_size} maps and frame_conv "
                f"{other}×{other}; give both the same reduction (patch, down)."
            )
        if self.map_size % self.grid[0] or self.map_size % self.grid[1]:
            raise BadInput(
                f"{config.tokens} tokens do not tile the encoder's {self.map_size}×{self.map_size} "
                "output; choose fewer tokens or an encoder that reduces less."
            )
        cell = config.latent * self.map_size**2 // config.tokens
        action_maps = config.action_channels if config.action else 0
        if config.action:
            self.encoder_action = ActionEmbedding(spaces.actions, spaces.size**2)
            self.decoder_action = ActionEmbedding(spaces.actions, action_maps * self.map_size**2)
        self.encoder = Encoder(conv, 2 * spaces.channels + config.action, config.latent)
        self.frame_encoder = Encoder(frame_conv, spaces.channels, config.frame_latent)
        self.to_code = nn.Linear(cell, config.quantizer.vector_dim)
        self.quantizer = make_quantizer(config.quantizer)
        self.from_code = nn.Linear(config.quantizer.vector_dim, cell)
        seen = config.frame_latent + action_maps + config.latent
        self.decoder = Decoder(conv, seen, spaces.channels)
        self.apply(initialize_like_gpt)

    def encode_map(self, frames: Tensor, actions: Tensor, next_frames: Tensor) -> Tensor:
        """The Δ-encoder. -> [N, latent, h, w]"""
        maps = []
        if self.config.action:
            action = self.encoder_action(actions)
            maps = [rearrange(action, "n (h w) -> n 1 h w", h=self.image_size)]
        return self.encoder(torch.cat([pixels(frames), *maps, pixels(next_frames)], dim=1))

    def map_to_cells(self, z: Tensor) -> Tensor:
        """[N, C, h, w] -> [N, K, cell]: a grid of cells, each flattened by row, column, channel."""
        rows, columns = self.grid
        return rearrange(z, "n c (r h) (k w) -> n (r k) (h w c)", r=rows, k=columns)

    def cells_to_map(self, cells: Tensor) -> Tensor:
        """The inverse of `map_to_cells`."""
        rows, columns = self.grid
        h, c = self.map_size // rows, self.config.latent
        return rearrange(cells, "n (r k) (h w c) -> n c (r h) (k w)", r=rows, k=columns, h=h, c=c)

    def vectors(self, frames: Tensor, actions: Tensor, next_frames: Tensor) -> Tensor:
        """What is quantized. -> [N, K, dim]"""
        return self.to_code(self.map_to_cells(self.encode_map(frames, actions, next_frames)))

    def encode(self, frames: Tensor, actions: Tensor, next_frames: Tensor) -> Tensor:
        """-> tokens [N, K] int64."""
        return self.quantizer.nearest(self.vectors(frames, actions, next_frames))

    def tokens_of(self, segment: Segment) -> Tensor:
        """Tokens [B, T − 1, K] of the changes between consecutive frames of a segment [B, T]."""
        return self.encode(*transitions(segment)).unflatten(0, (segment.mask.shape[0], -1))

    def reconstruction(self, segment: Segment) -> Tensor:
        """As in `Tokenizer`: of the frame before, the action and the tokens."""
        frames, actions, next_frames = transitions(segment)
        decoded = self.decode(frames, actions, self.encode(frames, actions, next_frames))
        return decoded.unflatten(0, (segment.mask.shape[0], -1))

    def embed(self, tokens: Tensor) -> Tensor:
        """What the decoder sees of tokens [N, K]. -> [N, K, cell]"""
        return self.from_code(self.quantizer.lookup(tokens))

    def frame_features(self, frames: Tensor) -> Tensor:
        """What the decoder sees of the previous frame. -> [N, frame_latent, h, w]"""
        return self.frame_encoder(pixels(frames))

    def reconstruct(
        self, frames: Tensor, actions: Tensor, cells: Tensor, features: Tensor | None = None
    ) -> Tensor:
        """The decoder as it is trained.

        Args:
            frames: uint8, or their `pixels`.
            cells: [N, K, cell], of `embed`.
            features: `frame_features` of the frames, where they are known.

        Returns:
            The next frames, float, near 0..1.
        """
        maps = []
        if self.config.action:
            action = self.decoder_action(actions)
            maps = [rearrange(action, "n (c h w) -> n c h w", h=self.map_size, w=self.map_size)]
        features = self.frame_features(frames) if features is None else features
        return self.decoder(torch.cat([features, *maps, self.cells_to_map(cells)], dim=1))

    def decode(
        self, frames: Tensor, actions: Tensor, tokens: Tensor, features: Tensor | None = None
    ) -> Tensor:
        """The decoder in use: as `reconstruct`, of tokens [N, K] -> next frames, uint8."""
        return to_frames(self.reconstruct(frames, actions, self.embed(tokens), features))

    def loss(self, segment: Segment) -> dict[str, Tensor]:
        """As in `Tokenizer`, over real transitions.

        As published, the commitment is over all transitions, padded ones too, and in training the
        codebook moves towards all of them.
        """
        frames, actions, next_frames = transitions(segment)
        quantized = self.quantizer(self.vectors(frames, actions, next_frames))
        decoded = self.reconstruct(frames, actions, self.from_code(quantized.vectors))
        return self.loss_of(decoded, next_frames, quantized, segment.mask[:, :-1].flatten())

    def loss_of(
        self,
        decoded: Tensor,
        next_frames: Tensor,
        quantized: QuantizerOutput,
        real: Tensor,
        weights: Tensor | float = 1.0,
    ) -> dict[str, Tensor]:
        """The terms of the loss (Δ-IRIS, appendix).

        Args:
            decoded: [N, C, H, W] float.
            real: [N] bool, no padding.
            weights: [N, C H W] of each error in the means.
        """
        c = self.config
        absolute = (decoded - pixels(next_frames)).float().abs().flatten(1)
        largest = absolute.amax(dim=1).square()
        losses = {
            "reconstruction_l1": c.l1 * masked_mean((weights * absolute).mean(dim=1), real),
            "reconstruction_l2": c.l2 * masked_mean((weights * absolute.square()).mean(1), real),
            "reconstruction_max": c.max_error_weight * masked_mean(largest, real),
            "commitment": quantized.commitment,
        }
        return {"loss": sum(losses.values()), **losses}  # type: ignore[dict-item]
