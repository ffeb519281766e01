"""Many imagined episodes as one batch, each with an age of its own: they end and begin again at different steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from agent.nets.noise import KeyedGumbelMax, split
from agent.nets.transformer import Cache
from agent.segment import Segment, untold
from agent.world_models.tokens import TokenWorld
from envs.spaces import Spaces


class StaggeredState(NamedTuple):
    """Where N imagined episodes stand. Allocated once; `start` and `step` write in place, so that either can be captured.

    moment: at the newest frame of each
    cache:  the transformer's keys and values; each row from its own beginning, at `OwnPlaces`
    ages:   [N] int64, steps before the newest frame that were seen or imagined
    keys:   [N] int64, from which all that the episode draws follows
    clocks: [N] int64, steps since the episode's start
    """

    moment: tuple[Tensor, ...]
    cache: Cache
    ages: Tensor
    keys: Tensor
    clocks: Tensor


class Outcome(NamedTuple):
    """What came of a step.

    frames:  [N, C, H, W] uint8, the next observations
    tokens:  [N, K] int64, those that led to them
    rewards: [N] float32
    ends:    [N] bool
    """

    frames: Tensor
    tokens: Tensor
    rewards: Tensor
    ends: Tensor


class StaggeredWorld:
    """A world whose rows are started one by one. Without gradient.

    A row computes what `TokenWorld.start` and `step` compute of it alone: step for step the same, up to rounding.
    """

    def __init__(self, world: TokenWorld, spaces: Spaces) -> None:
        """spaces: of the environment that the world is one of"""
        self.world, self.spaces = world, spaces

    @torch.no_grad()
    def empty(self, rows: int) -> StaggeredState:
        """The state of so many rows, none of which was started yet."""
        transformer = self.world.dynamics.transformer
        number = transformer.positions.weight.new_zeros(3, rows, dtype=torch.int64)
        black = number.new_zeros(1, 1, *self.spaces.frame_shape, dtype=torch.uint8)
        actions, mask = number.new_zeros(1, 1, len(self.spaces.actions)), number.new_zeros(1, 1, dtype=torch.bool)
        _, of_one = self.world.recall(untold(black, actions, mask), 0)
        moment = of_one._make(x.repeat(rows, *[1] * (x.ndim - 1)) for x in of_one)
        return StaggeredState(moment, transformer.empty_cache(rows), number[0].clone(), number[1].clone(), number[2].clone())

    @torch.no_grad()
    def start(self, state: StaggeredState, rows: Tensor, segment: Segment, keys: Tensor) -> Tensor:
        """Begin new episodes in some rows, from real frames; the others go on undisturbed.

        rows:    [M] int64, each once
        segment: [M, T]; a row's episode begins at the last frame that it shows, which is the one after its last step
                 (`mask`; no padding before it), having seen the frames and actions before
        keys:    [M] int64
        -> that frame as the world shows it, [M, C, H, W] uint8
        """
        transformer, ages = self.world.dynamics.transformer, segment.mask.sum(dim=1)
        past, moment = self.world.recall(segment, ages)
        for own, new in zip(state.moment, moment, strict=True):
            own[rows] = new.to(own.dtype)
        state.ages[rows], state.keys[rows], state.clocks[rows] = ages, keys, torch.zeros_like(keys)
        # What stands behind a row's last frame is written, too, and no one sees it before it is written anew.
        if read := past.shape[1]:
            cache = transformer.empty_cache(len(rows))
            transformer(past, cache, transformer.own_places(torch.ones_like(ages), read))
            for own, started in zip(state.cache, cache, strict=True):
                own[:, rows, :, : read + 1] = started[..., : read + 1, :]
        return self.world.frames(moment)

    @torch.no_grad()
    def step(self, state: StaggeredState, actions: Tensor) -> Outcome:
        """actions: [N, F] int64. A row draws by its key and its clock."""
        select = KeyedGumbelMax(split(state.keys, state.clocks))
        imagined, moment = self.world.advance(state.moment, actions, state.cache, state.ages, select)
        rewards, ends = self.world.outcome(imagined.outlook, select)
        for own, new in zip(state.moment, moment, strict=True):
            own.copy_(new)
        state.ages.add_(1)
        state.clocks.add_(1)
        return Outcome(self.world.frames(moment), imagined.tokens, rewards, ends)
