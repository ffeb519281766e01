"""The Δ-autoencoder: (frame, action, next frame) <-> K tokens (Δ-IRIS, section 2.1)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn

from agent.nets.actions import ActionEmbedding
from agent.nets.conv import ConvConfig, Decoder, Encoder, pixels, to_frames, token_grid
from agent.nets.initialization import initialize_like_gpt, rescale
from agent.quantizers.make import make_quantizer
from agent.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from agent.segment import Segment, masked_mean
from envs.errors import BadInput
from envs.spaces import Spaces


@dataclass
class DeltaTokenizerConfig(TokenizerConfig):
    """conv: of the Δ-encoder and the decoder
    frame_conv:      of the previous frame's own encoder; must reduce as much as `conv`
    tokens:          Δ-tokens a step, K
    latent:          channels of the Δ-encoder's output
    frame_latent:    channels in which the decoder sees the previous frame
    action:          whether encoder and decoder see the action; false is an ablation of the paper's
    action_channels: maps in which the decoder sees it
    residual:        whether the decoder's output, nothing at first, is added to the previous frame; not as published, but
                     a decoder that starts from a copy is sharp after hundreds of updates, not thousands
    embedding_std:   of the weights that bring codes and actions to the networks, to begin with. 0.02, as published (GPT-2's), leaves them
                     fifty times fainter than the frames beside them, and what an action does is learned late; 1: as loud
    l1, l2, worst:   weights of the reconstruction terms
    rare:            where a pixel changes, its errors count as many times as steps it takes to change once on average, but at most
                     so many times: a number that changes once in a hundred steps is drawn before a cow that moves at each. On average
                     errors count once, those of `worst` always. 1, as published: all do
    decoded_after:   updates after which the decoder sees of a sequence only the first frame as it was, and every other as it decodes it
                     itself, of the one before, without gradient: it learns to mend in a dream what it did wrong a step before (the
                     pushforward trick of Brandstetter et al. 2022). null, as published: all frames are real
    """

    kind: str = "delta"
    conv: ConvConfig = field(default_factory=ConvConfig)
    frame_conv: ConvConfig = field(default_factory=ConvConfig)
    tokens: int = 4
    latent: int = 64
    frame_latent: int = 8
    action: bool = True
    action_channels: int = 4
    residual: bool = False
    embedding_std: float = 0.02
    l1: float = 0.1
    l2: float = 1.0
    worst: float = 0.01
    rare: float = 1.0
    decoded_after: int | None = None

    def check_steps(self, steps: int) -> None:
        if self.decoded_after is not None and steps < 3:
            raise BadInput(
                f"tokenizer.steps={steps} was given, and agent.tokenizer.decoded_after={self.decoded_after} needs a decoded frame that another follows; "
                "give 3 or more, or agent.tokenizer.decoded_after=null."
            )


class DeltaTokenizer(Tokenizer):
    """Codes what changed between two frames, given the action and the first of them."""

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
                f"{other}×{other}; "
                "give both the same reduction (patch, down)."
            )
        if self.map_size % self.grid[0] or self.map_size % self.grid[1]:
            raise BadInput(
                f"{config.tokens} tokens do not tile the encoder's {self.map_size}×{self.map_size} output; "
                "choose fewer tokens or an encoder that reduces less."
            )
        cell = config.latent * self.map_size**2 // config.tokens
        if config.action:
            self.encoder_action = ActionEmbedding(spaces.actions, spaces.size**2)
            self.decoder_action = ActionEmbedding(spaces.actions, config.action_channels * self.map_size**2)
        self.encoder = Encoder(conv, channels=2 * spaces.channels + config.action, latent=config.latent)
        self.frame_encoder = Encoder(frame_conv, channels=spaces.channels, latent=config.frame_latent)
        self.to_code = nn.Linear(cell, config.quantizer.vector_dim)
        self.quantizer = make_quantizer(config.quantizer)
        self.from_code = nn.Linear(config.quantizer.vector_dim, cell)
        latent = config.frame_latent + config.action * config.action_channels + config.latent
        self.decoder = Decoder(conv, latent=latent, channels=spaces.channels)
        if config.rare > 1:
            self.register_buffer("changes", torch.ones(spaces.size, spaces.size))
        if config.decoded_after is not None:
            self.register_buffer("updates", torch.tensor(0))
        self.apply(initialize_like_gpt)
        actions = [self.encoder_action, self.decoder_action] if config.action else []
        rescale([self.from_code, *actions], config.embedding_std)
        if config.residual:  # a copy to begin with: unlearning noise first, it would not see small changes for long
            self.decoder.say_nothing()

    def encode_map(self, frames: Tensor, actions: Tensor, next_frames: Tensor) -> Tensor:
        """frames, next_frames: [N, C, H, W] uint8; actions: [N, F] int64 -> [N, latent, h, w]."""
        maps = []
        if self.config.action:
            maps = [rearrange(self.encoder_action(actions), "n (h w) -> n 1 h w", h=self.image_size)]
        return self.encoder(torch.cat([pixels(frames), *maps, pixels(next_frames)], dim=1))

    def map_to_cells(self, z: Tensor) -> Tensor:
        """[N, C, h, w] -> [N, K, cell]: a grid of cells, each flattened in the order row, column, channel."""
        rows, columns = self.grid
        return rearrange(z, "n c (r h) (k w) -> n (r k) (h w c)", r=rows, k=columns)

    def cells_to_map(self, cells: Tensor) -> Tensor:
        """The inverse of `map_to_cells`."""
        rows, columns = self.grid
        h = self.map_size // rows
        return rearrange(cells, "n (r k) (h w c) -> n c (r h) (k w)", r=rows, k=columns, h=h, c=self.config.latent)

    def encode(self, frames: Tensor, actions: Tensor, next_frames: Tensor) -> Tensor:
        """frames, next_frames: [N, C, H, W] uint8; actions: [N, F] int64 -> tokens [N, K] int64."""
        cells = self.map_to_cells(self.encode_map(frames, actions, next_frames))
        return self.quantizer.nearest(self.to_code(cells))

    def tokens_of(self, segment: Segment) -> Tensor:
        """Of a segment [B, T] the tokens [B, T − 1, K] of the changes from each frame to the next."""
        frames, actions, next_frames = segment.frames[:, :-1], segment.actions[:, :-1], segment.frames[:, 1:]
        tokens = self.encode(frames.flatten(0, 1), actions.flatten(0, 1), next_frames.flatten(0, 1))
        return tokens.unflatten(0, frames.shape[:2])

    def reconstruction(self, segment: Segment) -> Tensor:
        """Every frame but the first, of the one before it, the action and the tokens. [B, T] -> [B, T − 1, C, H, W] uint8."""
        frames, actions = segment.frames[:, :-1].flatten(0, 1), segment.actions[:, :-1].flatten(0, 1)
        return self.decode(frames, actions, self.tokens_of(segment).flatten(0, 1)).unflatten(0, segment.frames[:, 1:].shape[:2])

    @torch.no_grad()
    def as_in_a_dream(self, segment: Segment, tokens: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """A segment [B, T] whose frames from `first` on are decoded, each of the one before it: what a dream would show of what happened.

        tokens: [B, T − 1, K] that led to them -> frames [B, T, C, H, W] uint8, views [B, T, C, h, w]
        """
        steps = segment.mask.shape[1]
        real = min(first, steps)
        frames = list(segment.frames[:, :real].unbind(dim=1))
        views = list(self.view(segment.frames[:, :real].flatten(0, 1)).unflatten(0, (-1, real)).unbind(dim=1))
        for t in range(real, steps):
            decoded = self.decode(frames[-1], segment.actions[:, t - 1], tokens[:, t - 1], views[-1])
            # Padding leads nowhere: what follows it is an episode's first frame, or padding.
            frames.append(torch.where(segment.mask[:, t - 1, None, None, None], decoded, segment.frames[:, t]))
            views.append(self.view(frames[-1]))
        return torch.stack(frames, dim=1), torch.stack(views, dim=1)

    def embed(self, tokens: Tensor) -> Tensor:
        """tokens: [N, K] int64 -> what the decoder sees of them, [N, K, cell]."""
        return self.from_code(self.quantizer.lookup(tokens))

    def view(self, frames: Tensor) -> Tensor:
        """How the decoder sees a previous frame: [N, C, H, W] uint8, or their `pixels` -> [N, frame_latent, h, w]."""
        return self.frame_encoder(pixels(frames))

    @property
    def view_shape(self) -> tuple[int, int, int]:
        """Of a frame's `view`."""
        return self.config.frame_latent, self.map_size, self.map_size

    def reconstruct(self, frames: Tensor, actions: Tensor, cells: Tensor, view: Tensor | None = None) -> Tensor:
        """The decoder as it is trained. cells: [N, K, cell]; view: of the frames, where it is known -> [N, C, H, W] float,
        near 0..1."""
        maps = []
        if self.config.action:
            maps = [rearrange(self.decoder_action(actions), "n (c h w) -> n c h w", h=self.map_size, w=self.map_size)]
        view = self.view(frames) if view is None else view
        decoded = self.decoder(torch.cat([view, *maps, self.cells_to_map(cells)], dim=1))
        return pixels(frames) + decoded if self.config.residual else decoded

    def decode(self, frames: Tensor, actions: Tensor, tokens: Tensor, view: Tensor | None = None) -> Tensor:
        """frames: [N, C, H, W] uint8, or their `pixels`; actions: [N, F]; tokens: [N, K]; view: of the frames, where it is
        known -> next frames, uint8."""
        return to_frames(self.reconstruct(frames, actions, self.embed(tokens), view))

    def loss(self, segment: Segment) -> dict[str, Tensor]:
        """The terms of the loss over the segment's real transitions, weights included, and their sum as "loss".

        As published, the commitment term is over all transitions, padded ones too, and in training mode the
        codebook moves towards all of them.
        """
        c = self.config
        frames, next_frames = segment.frames[:, :-1].flatten(0, 1), segment.frames[:, 1:].flatten(0, 1)
        actions, real = segment.actions[:, :-1].flatten(0, 1), segment.mask[:, :-1].flatten()

        quantized = self.quantizer(self.to_code(self.map_to_cells(self.encode_map(frames, actions, next_frames))))
        seen = frames
        if c.decoded_after is not None:
            tokens = quantized.tokens.unflatten(0, (-1, segment.mask.shape[1] - 1))
            decoded, _ = self.as_in_a_dream(segment[:, :-1], tokens[:, :-1], first=1)
            seen = torch.where(self.updates < c.decoded_after, frames, decoded.flatten(0, 1))  # no branch: updates are captured
            self.updates.add_(self.training)
        difference = self.reconstruct(seen, actions, self.from_code(quantized.vectors)) - pixels(next_frames)
        absolute = difference.float().abs().flatten(1)
        counts = self.counts(frames, next_frames, real) if c.rare > 1 else 1.0
        losses = {
            "reconstruction_l1": c.l1 * masked_mean((counts * absolute).mean(dim=1), real),
            "reconstruction_l2": c.l2 * masked_mean((counts * absolute.square()).mean(dim=1), real),
            "reconstruction_worst": c.worst * masked_mean(absolute.amax(dim=1).square(), real),
            "commitment": quantized.commitment,
        }
        return {"loss": sum(losses.values()), **losses}

    def counts(self, frames: Tensor, next_frames: Tensor, real: Tensor) -> Tensor:
        """How many times each error counts, over real transitions 1 on average. frames, next_frames: [N, C, H, W] uint8; real: [N] bool -> [N, C H W] float32

        In training mode the record of how often each pixel changes moves towards these, by a hundredth.
        """
        changed = (frames != next_frames).any(dim=1)
        if self.training:
            share = (changed & real[:, None, None]).sum(dim=0) / real.sum().clamp(min=1)
            self.changes.lerp_(share, 0.01)
        counts = torch.where(changed, (1 / self.changes).clamp(max=self.config.rare), 1.0)
        return (counts / masked_mean(counts.mean(dim=(1, 2)), real)).unsqueeze(1).expand_as(frames).flatten(1)
