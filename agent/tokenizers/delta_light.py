"""The Δ-autoencoder with what makes it learn in few updates; not published (docs/laptop.md)."""

from __future__ import annotations

import torch
from torch import Tensor

from agent.config.tokenizers import DeltaLightTokenizerConfig
from agent.nets.conv import pixels
from agent.nets.initialization import STD
from agent.segment import Segment, masked_mean
from agent.tokenizers.delta import DeltaTokenizer, transitions
from envs.spaces import Spaces


class DeltaLightTokenizer(DeltaTokenizer):
    """Extends `DeltaTokenizer` by a decoder that may add to the previous frame, by errors weighted
    by how rarely a pixel changes, and by learning from frames that it decoded itself."""

    config: DeltaLightTokenizerConfig

    def __init__(self, config: DeltaLightTokenizerConfig, spaces: Spaces) -> None:
        super().__init__(config, spaces)
        if config.change_weighting > 1:
            self.register_buffer("changes", torch.ones(spaces.size, spaces.size))
        if config.pushforward_after is not None:
            self.register_buffer("updates", torch.tensor(0))
        actions = [self.encoder_action, self.decoder_action] if config.action else []
        with torch.no_grad():
            for module in (self.from_code, *actions):
                module.weight.mul_(config.embedding_std / STD)
        if config.residual:  # a copy at first: a decoder that must unlearn noise is slower
            self.decoder.zero_output()

    def reconstruct(
        self, frames: Tensor, actions: Tensor, cells: Tensor, features: Tensor | None = None
    ) -> Tensor:
        decoded = super().reconstruct(frames, actions, cells, features)
        return pixels(frames) + decoded if self.config.residual else decoded

    def loss(self, segment: Segment) -> dict[str, Tensor]:
        frames, actions, next_frames = transitions(segment)
        real = segment.mask[:, :-1].flatten()
        quantized = self.quantizer(self.vectors(frames, actions, next_frames))
        previous = frames
        if self.config.pushforward_after is not None:
            tokens = quantized.tokens.unflatten(0, (segment.mask.shape[0], -1))
            decoded, _ = self.pushforward(segment[:, :-1], tokens[:, :-1], first=1)
            # No branch: an update must be one graph.
            started = self.updates >= self.config.pushforward_after
            previous = torch.where(started, decoded.flatten(0, 1), frames)
            self.updates.add_(self.training)
        decoded = self.reconstruct(previous, actions, self.from_code(quantized.vectors))
        weights: Tensor | float = 1.0
        if self.config.change_weighting > 1:
            weights = self.pixel_weights(frames, next_frames, real)
        return self.loss_of(decoded, next_frames, quantized, real, weights)

    @torch.no_grad()
    def pushforward(self, segment: Segment, tokens: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """The frames of a segment [B, T], from `first` on each decoded of the one before.

        An episode that begins later starts from one real frame.

        Args:
            tokens: [B, T − 1, K] that led to the frames.
            first: Number of real frames at the beginning.

        Returns:
            Frames [B, T, C, H, W] uint8, and their features [B, T, c, h, w].
        """
        steps = segment.mask.shape[1]
        real = segment.frames[:, : min(first, steps)]
        features_of = self.frame_features(real.flatten(0, 1)).unflatten(0, real.shape[:2])
        frames, features = list(real.unbind(dim=1)), list(features_of.unbind(dim=1))
        for t in range(len(frames), steps):
            actions = segment.actions[:, t - 1]
            decoded = self.decode(frames[-1], actions, tokens[:, t - 1], features[-1])
            # Padding leads nowhere: what follows it is an episode's first frame, or padding.
            follows = segment.mask[:, t - 1, None, None, None]
            frames.append(torch.where(follows, decoded, segment.frames[:, t]))
            features.append(self.frame_features(frames[-1]))
        return torch.stack(frames, dim=1), torch.stack(features, dim=1)

    def pixel_weights(self, frames: Tensor, next_frames: Tensor, real: Tensor) -> Tensor:
        """How much each error counts, [N, C H W]; 1 on average over `real` transitions, [N] bool.

        In training, the record of how often each pixel changes moves a hundredth of the way.
        """
        changed = (frames != next_frames).any(dim=1)
        if self.training:
            share = (changed & real[:, None, None]).sum(dim=0) / real.sum().clamp(min=1)
            self.changes.lerp_(share, 0.01)
        rarity = (1 / self.changes).clamp(max=self.config.change_weighting)
        weights = torch.where(changed, rarity, 1.0)
        weights = weights / masked_mean(weights.mean(dim=(1, 2)), real)
        return weights.unsqueeze(1).expand_as(frames).flatten(1)
