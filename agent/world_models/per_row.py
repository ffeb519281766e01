"""Many imagined episodes as one batch, each with its own age: they begin and end at any step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from agent.nets.noise import KeyedGumbelMax, split
from agent.nets.transformer import Cache
from agent.segment import Segment
from agent.world_models.base import World
from envs.spaces import Spaces


class PerRowState(NamedTuple):
    """Where N imagined episodes stand. Allocated once; `start` and `step` write in place.

    Attributes:
        latent: At the newest frame of each.
        cache: The transformer's keys and values, each row from its own beginning.
        ages: [N] int64, steps before the newest frame that were seen or imagined.
        keys: [N] int64, from which all that the episode draws follows.
        clocks: [N] int64, steps since the episode's start.
    """

    latent: tuple[Tensor, ...]
    cache: Cache
    ages: Tensor
    keys: Tensor
    clocks: Tensor


class Outcome(NamedTuple):
    """What came of a step.

    Attributes:
        frames: [N, C, H, W] uint8, the next observations.
        tokens: [N, K] int64, those that led to them.
        rewards: [N] float32.
        ends: [N] bool.
    """

    frames: Tensor
    tokens: Tensor
    rewards: Tensor
    ends: Tensor


class PerRowWorld:
    """A world whose rows are started one by one. Without gradient.

    A row computes the same as `World.start` and `step` would for it alone, up to rounding.
    """

    def __init__(self, world: World, spaces: Spaces) -> None:
        self.world, self.spaces = world, spaces

    @torch.no_grad()
    def empty(self, rows: int) -> PerRowState:
        """The state of so many rows, none of which was started yet."""
        transformer = self.world.dynamics.transformer
        with torch.device(transformer.positions.weight.device):
            frames = torch.zeros(rows, *self.spaces.frame_shape, dtype=torch.uint8)
            numbers = [torch.zeros(rows, dtype=torch.int64) for _ in range(3)]
        return PerRowState(self.world.look(frames), transformer.empty_cache(rows), *numbers)

    @torch.no_grad()
    def start(self, state: PerRowState, rows: Tensor, segment: Segment, keys: Tensor) -> Tensor:
        """Begin new episodes in some rows, from real frames; the others go on undisturbed.

        Args:
            rows: [M] int64, each once.
            segment: [M, T]; a row's episode begins at its last frame, the one after its last step
                (`mask`; no padding before it), and has seen the frames and actions before.
            keys: [M] int64.

        Returns:
            That frame as the world shows it, [M, C, H, W] uint8.
        """
        transformer, ages = self.world.dynamics.transformer, segment.mask.sum(dim=1)
        past, latent = self.world.encode_history(segment, ages)
        for own, new in zip(state.latent, latent, strict=True):
            own[rows] = new.to(own.dtype)
        state.ages[rows], state.keys[rows], state.clocks[rows] = ages, keys, torch.zeros_like(keys)
        # Entries after a row's last frame are filled too, and overwritten before anyone reads them.
        if read := past.shape[1]:
            cache = transformer.empty_cache(len(rows))
            transformer(past, cache, transformer.row_positions(torch.ones_like(ages), read))
            for own, started in zip(state.cache, cache, strict=True):
                own[:, rows, :, : read + 1] = started[..., : read + 1, :]
        return self.world.frames(latent)

    @torch.no_grad()
    def step(self, state: PerRowState, actions: Tensor) -> Outcome:
        """actions: [N, F] int64. A row draws by its key and its clock."""
        select = KeyedGumbelMax(split(state.keys, state.clocks))
        imagined, latent = self.world.step_rows(
            state.latent, actions, state.cache, state.ages, select
        )
        rewards, ends = self.world.outcome(imagined.action_features, select)
        for own, new in zip(state.latent, latent, strict=True):
            own.copy_(new)
        state.ages.add_(1)
        state.clocks.add_(1)
        return Outcome(self.world.frames(latent), imagined.tokens, rewards, ends)
