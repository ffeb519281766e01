"""Actions of any space as choices: each factor of an action is one of a few."""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space

from envs.config import BINS
from envs.errors import BadInput
from envs.images import is_bounded, short
from envs.spaces import times

MOST = 2**16  # choices of all factors together: each has a row of an embedding, and a logit


class Reading(NamedTuple):
    """How an action space is read.

    Attributes:
        names: of the choices of each factor.
        to_env: choices [F] int64 -> an action of the space, of the type of `space.sample()`.
        text: for people.
        rest: the choices that do least, for when a person does nothing: of a Box the values next to
            0, or else the middle ones; otherwise the first ones.
    """

    names: tuple[tuple[str, ...], ...]
    to_env: Callable[[np.ndarray], Any]
    text: str
    rest: tuple[int, ...]


class ChooseActions(gymnasium.ActionWrapper):
    """An environment whose actions are choices, MultiDiscrete.

    A Discrete space is one factor; any other has one per dimension. MultiDiscrete and MultiBinary
    factorise as they are. Each dimension of a bounded Box becomes `bins` values at equal
    distances, both bounds among them.

    Attributes:
        names, text, rest: see `Reading`.

    Raises:
        BadInput: the space is none of these, a Box without bounds, or too large.
    """

    def __init__(self, env: gymnasium.Env, bins: int = BINS):
        super().__init__(env)
        meanings = None
        with suppress(Exception):  # whatever a stranger's raises
            own = env.unwrapped
            meanings = getattr(own, "action_meanings", None) or own.get_action_meanings()
        self.names, self._to_env, self.text, self.rest = read(env.action_space, bins, meanings)
        self.action_space = MultiDiscrete([len(names) for names in self.names])

    def action(self, action: np.ndarray) -> Any:
        return self._to_env(np.ravel(action))

    def label(self, action: np.ndarray) -> str:
        """What an action `[F]` is called."""
        chosen = zip(self.names, np.ravel(action), strict=True)
        return ", ".join(names[choice] for names, choice in chosen)


def read(space: Space, bins: int, meanings: Any = None) -> Reading:
    """Read a space for `ChooseActions`.

    Args:
        meanings: what the environment calls its actions; ignored unless a list of names.
    """
    factors = _values(space, bins)
    values, sizes = np.concatenate(factors), [len(factor) for factor in factors]
    first = np.cumsum([0, *sizes[:-1]])  # index in `values` of each factor's first one
    is_number = isinstance(space, Discrete) or (space.shape == () and space.dtype.kind != "f")

    def to_env(choices: np.ndarray) -> Any:
        action = values[first + choices].reshape(space.shape).astype(space.dtype)
        return action[()] if is_number else action

    text = f"{short(space)}: {len(factors)} factor{'s' * (len(factors) != 1)} of {times(sizes)}"
    rest = (0,) * len(factors)
    if isinstance(space, Discrete):
        are_names = isinstance(meanings, tuple | list) and len(meanings) == space.n
        named = meanings if are_names else [f"action {value}" for value in values]
        return Reading((tuple(map(str, named)),), to_env, text, rest)
    texts = [[str(value) for value in factor] for factor in factors]
    if isinstance(space, MultiBinary):
        texts = [["off", "on"]] * len(factors)
    elif isinstance(space, Box):
        texts = [[f"{value:+.4g}" for value in factor] for factor in factors]
        rest = tuple(
            int(np.abs(factor).argmin()) if factor[0] <= 0 <= factor[-1] else len(factor) // 2
            for factor in factors
        )
        text += f" values (env.bins={bins})"
    names = tuple(tuple(f"{i}: {text}" for text in factor) for i, factor in enumerate(texts))
    return Reading(names, to_env, text, rest)


def _values(space: Space, bins: int) -> list[np.ndarray]:
    """The values of each factor, in the order of its choices."""
    starts: Any = 0
    if isinstance(space, Discrete):
        counts, starts = [int(space.n)], [int(space.start)]
    elif isinstance(space, MultiDiscrete):
        counts, starts = space.nvec.ravel().tolist(), np.ravel(space.start)
    elif isinstance(space, MultiBinary):
        counts = [2] * math.prod(space.shape)
    elif isinstance(space, Box) and is_bounded(space):
        counts = [bins] * space.low.size
    else:
        counts = []
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
    if space.dtype.kind != "f":
        factors = [np.unique(np.rint(factor)) for factor in factors]
    return factors
