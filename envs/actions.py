"""Actions of any space as choices: each factor of an action is one of a few."""

import math
from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space

from envs.config import BINS
from envs.errors import BadInput
from envs.images import is_bounded, short
from envs.spaces import times

MOST = 2**16  # choices of all factors together: each has a row of an embedding, and a logit


class ChooseActions(gymnasium.ActionWrapper):
    """An environment whose actions are choices, MultiDiscrete.

    A Discrete space is one factor; any other has one per dimension. MultiDiscrete and MultiBinary
    factorise as they are. Each dimension of a bounded Box becomes `bins` values at equal
    distances, both bounds among them. The environment gets actions of the type of
    `space.sample()`.

    Attributes:
        names: of the choices of each factor.
        text: how the actions are read, for people.
        rest: the choices that do least, for when a person does nothing: of a Box the values next to
            0, or else the middle ones; otherwise the first ones.

    Raises:
        BadInput: the space is none of these, a Box without bounds, or too large.
    """

    def __init__(self, env: gymnasium.Env, bins: int = BINS):
        super().__init__(env)
        space = env.action_space
        factors = _values(space, bins)
        sizes = [len(factor) for factor in factors]
        self.action_space = MultiDiscrete(sizes)
        self.names = _names(space, factors, env.unwrapped)
        self.text = f"{short(space)}: {len(factors)} factor{'s' * (len(factors) != 1)} of "
        self.text += times(sizes)
        self.rest = (0,) * len(factors)
        if isinstance(space, Box):
            self.text += f" values (env.bins={bins})"
            self.rest = tuple(
                int(np.abs(factor).argmin()) if factor[0] <= 0 <= factor[-1] else len(factor) // 2
                for factor in factors
            )
        self._values = np.concatenate(factors)
        self._first = np.cumsum([0, *sizes[:-1]])  # where in `_values` a factor begins

    def action(self, action: np.ndarray) -> Any:
        """An action of the space, of choices `[F]`."""
        space: Any = self.env.action_space
        values = self._values[self._first + np.ravel(action)]
        values = values.reshape(space.shape).astype(space.dtype)
        is_array = space.shape or np.issubdtype(space.dtype, np.floating)  # as of sample()
        return values if is_array else values[()]

    def label(self, action: np.ndarray) -> str:
        """What an action `[F]` is called."""
        chosen = zip(self.names, np.ravel(action), strict=True)
        return ", ".join(names[choice] for names, choice in chosen)


def _names(space: Space, factors: list[np.ndarray], env: Any) -> tuple[tuple[str, ...], ...]:
    """What the choices of each factor are called."""
    if isinstance(space, Discrete):
        meanings = None
        with suppress(Exception):  # whatever a stranger's raises
            meanings = getattr(env, "action_meanings", None) or env.get_action_meanings()
        if isinstance(meanings, tuple | list) and len(meanings) == space.n:
            return (tuple(map(str, meanings)),)
        return (tuple(f"action {value}" for value in factors[0]),)
    form = "{}: {:+.4g}" if isinstance(space, Box) else "{}: {}"
    if isinstance(space, MultiBinary):
        factors = [np.array(["off", "on"])] * len(factors)
    return tuple(tuple(form.format(i, v) for v in factor) for i, factor in enumerate(factors))


def _values(space: Space, bins: int) -> list[np.ndarray]:
    """The values of each factor, in the order of its choices."""
    counts: list[int] = []
    starts: Any = 0
    if isinstance(space, Discrete):
        counts, starts = [int(space.n)], [int(space.start)]
    elif isinstance(space, MultiDiscrete):
        counts, starts = space.nvec.ravel().tolist(), np.ravel(space.start)
    elif isinstance(space, MultiBinary):
        counts = [2] * math.prod(space.shape)
    elif isinstance(space, Box) and is_bounded(space):
        counts = [bins] * space.low.size
    if not counts:
        raise BadInput(
            f"The environment's action space is {short(space)}, but Discrete, MultiDiscrete, "
            "MultiBinary and a Box with finite bounds are accepted: wrap it "
            "(gymnasium.wrappers.RescaleAction, say) so that its actions are one of these."
        )
    if sum(counts) > MOST:
        raise BadInput(
            f"The environment's action space is {short(space)}, which has {sum(counts):,} choices, "
            f"but {MOST:,} of all factors together are accepted: wrap it so that it has fewer."
        )
    if not isinstance(space, Box):
        starts = np.broadcast_to(starts, len(counts))
        return [start + np.arange(n) for start, n in zip(starts, counts, strict=True)]
    bounds = np.float64(space.low).ravel(), np.float64(space.high).ravel()
    factors = [
        np.linspace(*ends, bins if ends[0] < ends[1] else 1) for ends in zip(*bounds, strict=True)
    ]
    if not np.issubdtype(space.dtype, np.floating):
        factors = [np.unique(np.rint(factor)) for factor in factors]
    return factors
