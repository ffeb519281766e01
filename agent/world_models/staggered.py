"""Many imagined episodes as one batch, each with an age of its own: they end and begin again at different steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from agent.nets.noise import KeyedGumbelMax, split
from agent.nets.transformer import Cache
from agent.segment import Segment
from agent.world_models.delta import DeltaWorld
from envs.errors import BadInput
from envs.spaces import Spaces


class StaggeredState(NamedTuple):
    """Where N imagined episodes stand. Allocated once; `start` and `step` write in place, so that either can be captured.

    frames:  [N, C, H, W] uint8, the newest observation of each
    pending: [N, 1, width] the newest Δ-token, which the transformer has not read yet; anything where there is no past
    cache:   the transformer's keys and values; each row from its own beginning, at `OwnPlaces`
    ages:    [N] int64, steps before the newest frame that the cache remembers
    keys:    [N] int64, from which all that the episode draws follows
    clocks:  [N] int64, steps since the episode's start
    """

    frames: Tensor
    pending: Tensor
    cache: Cache
    ages: Tensor
    keys: Tensor
    clocks: Tensor


class Outcome(NamedTuple):
    """What came of a step.

    frames:  [N, C, H, W] uint8, the next observations
    tokens:  [N, K] int64, the changes that led to them
    rewards: [N] float32
    ends:    [N] bool
    """

    frames: Tensor
    tokens: Tensor
    rewards: Tensor
    ends: Tensor


class StaggeredWorld:
    """A world whose rows are started one by one. Without gradient.

    A row computes what `DeltaWorld` computes of it alone: step for step the same, up to rounding.
    """

    def __init__(self, world: DeltaWorld, spaces: Spaces) -> None:
        """spaces: of the environment that the world is one of

        Raises BadInput for another world than Δ-IRIS's.
        """
        if not isinstance(world, DeltaWorld):
            raise BadInput(
                "Dream-v0 and its benchmark know the world of agent=delta_iris only, so far; give a run of that, or watch this "
                "one's dream by scripts/play.py."
            )
        self.world, self.dynamics, self.spaces = world, world.dynamics, spaces

    @torch.no_grad()
    def empty(self, rows: int) -> StaggeredState:
        """The state of so many rows, none of which was started yet."""
        transformer = self.dynamics.transformer
        weight = transformer.positions.weight
        number = weight.new_zeros(3, rows, dtype=torch.int64)
        return StaggeredState(
            frames=weight.new_zeros(rows, *self.spaces.frame_shape, dtype=torch.uint8),
            pending=weight.new_zeros(rows, 1, weight.shape[1]),
            cache=transformer.empty_cache(rows),
            ages=number[0].clone(), keys=number[1].clone(), clocks=number[2].clone(),
        )  # fmt: skip

    @torch.no_grad()
    def start(self, state: StaggeredState, rows: Tensor, segment: Segment, keys: Tensor) -> None:
        """Begin new episodes in some rows, from real frames; the others go on undisturbed.

        rows:    [M] int64, each once
        segment: [M, T]; a row's episode begins at the last frame that it shows, which is the one after its last step
                 (`mask`; no padding before it), having seen the frames and actions before
        keys:    [M] int64
        """
        steps = segment.actions.shape[1]
        self.world.check_past(steps)
        each, ages = torch.arange(len(rows), device=rows.device), segment.mask.sum(dim=1)
        state.frames[rows] = segment.frames[each, ages]
        state.ages[rows], state.keys[rows], state.clocks[rows] = ages, keys, torch.zeros_like(keys)
        if steps == 1:
            return
        # What stands behind a row's last frame is written, too, and no one sees it before it is written anew.
        transformer, tokens = self.dynamics.transformer, self.world.tokenizer.tokens_of(segment)
        blocks = self.dynamics.embed(segment.frames[:, :-1], segment.actions[:, :-1], tokens)
        cache, read = transformer.empty_cache(len(rows)), blocks.shape[1] - 1
        transformer(blocks[:, :-1], cache, transformer.own_places(torch.ones_like(ages), read))
        for own, started in zip(state.cache, cache, strict=True):
            own[:, rows, :, : read + 1] = started[..., : read + 1, :]
        last = (ages * self.dynamics.positions_per_step - 1).clamp(min=0)
        state.pending[rows, 0] = blocks[each, last].to(state.pending.dtype)

    @torch.no_grad()
    def step(self, state: StaggeredState, actions: Tensor) -> Outcome:
        """actions: [N, F] int64. A row draws by its key and its clock.

        Where the context is full, what came before the newest I-token is forgotten.
        """
        per_step, context = self.dynamics.positions_per_step, self.dynamics.config.context
        ages = state.ages % context
        # The pending input stands at place age × positions a step: nowhere, where there is no past.
        places = self.dynamics.transformer.own_places(ages * per_step, per_step)
        select = KeyedGumbelMax(split(state.keys, state.clocks))
        frames, tokens, outlook, pending = self.world.imagine(
            state.frames, actions, state.pending, state.cache, places, select
        )
        rewards, ends = self.world.outcome(outlook, select)
        state.frames.copy_(frames)
        state.pending.copy_(pending)
        state.ages.copy_(ages + 1)
        state.clocks.add_(1)
        return Outcome(frames, tokens, rewards, ends)
