"""Actions of any space as choices: each factor of an action is one of a few."""

import itertools
from collections.abc import Callable, Sized
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space

from envs.errors import BadInput
from envs.images import short

BINS = 5  # docs/actions.md: on CarRacing more of them bring nothing


class Reading(NamedTuple):
    """How an action space is read.

    names: of the choices of each factor
    to_env: choices [F] int64 -> an action of the space
    text: for people
    """

    names: tuple[tuple[str, ...], ...]
    to_env: Callable[[np.ndarray], Any]
    text: str


class ChooseActions(gymnasium.ActionWrapper):
    """An environment whose actions are choices, MultiDiscrete: one for Discrete, one a dimension otherwise.

    MultiDiscrete and MultiBinary factorise as they are. Of a bounded Box each dimension becomes `bins`
    values at equal distances, both bounds among them.

    Attributes:
        names: tuples of strings, what the choices of each factor are called.
        text: how the actions are read, a sentence's worth for people.

    Raises:
        BadInput: the space is none of these, or a Box without bounds.
    """

    def __init__(self, env: gymnasium.Env, bins: int = BINS):
        super().__init__(env)
        self.names, self._to_env, self.text = read(env.action_space, bins, getattr(env.unwrapped, "action_meanings", None))
        self.action_space = MultiDiscrete([len(names) for names in self.names])

    def action(self, action: np.ndarray) -> Any:
        return self._to_env(np.ravel(action))

    def label(self, action: np.ndarray) -> str:
        """What an action `[F]` is called."""
        return ", ".join(names[choice] for names, choice in zip(self.names, np.ravel(action), strict=True))


def read(space: Space, bins: int, meanings: Any = None) -> Reading:
    """How `ChooseActions` reads a space; meanings: what the environment calls its actions, if that is a list of names."""
    if isinstance(space, Discrete):
        count, first = int(space.n), int(space.start)
        told = isinstance(meanings, tuple | list) and len(meanings) == count
        named = tuple(map(str, meanings)) if told else tuple(f"action {first + i}" for i in range(count))
        return Reading((named,), lambda a: first + int(a[0]), f"{space}: one of {count}")
    if isinstance(space, MultiDiscrete):
        sizes, first = space.nvec.ravel(), np.ravel(space.start)
        names = tuple(
            tuple(f"{i}: {start + j}" for j in range(n)) for i, (n, start) in enumerate(zip(sizes, first, strict=True))
        )
        return Reading(
            names, lambda a: (a + first).reshape(space.shape).astype(space.dtype), f"{short(space)}: {_counted(sizes)}"
        )
    if isinstance(space, MultiBinary):
        count = int(np.prod(space.shape))
        names = tuple((f"{i}: off", f"{i}: on") for i in range(count))
        return Reading(names, lambda a: a.reshape(space.shape).astype(space.dtype), f"{space}: {_counted(names)} of two")
    if isinstance(space, Box):
        return _read_box(space, bins)
    raise BadInput(
        f"The environment's action space is {space}, but Discrete, MultiDiscrete, MultiBinary and a bounded Box are "
        "accepted: wrap it so that its actions are one of these."
    )


def _read_box(space: Box, bins: int) -> Reading:
    if not space.is_bounded() or space.low.size == 0:
        raise BadInput(
            f"The environment's action space is {space}, whose bounds are not finite: wrap it "
            "(gymnasium.wrappers.RescaleAction, say) so that each dimension has a least and a greatest value."
        )
    low, high = (np.ravel(bound).astype(np.float64) for bound in (space.low, space.high))
    values = [np.linspace(least, most, bins if most > least else 1) for least, most in zip(low, high, strict=True)]
    if not np.issubdtype(space.dtype, np.floating):
        values = [np.unique(np.rint(axis)) for axis in values]
    names = tuple(tuple(f"{i}: {text}" for text in _written(axis)) for i, axis in enumerate(values))
    padded = np.array(list(itertools.zip_longest(*values, fillvalue=0.0)))  # [bins, F]
    columns = np.arange(len(values))
    return Reading(
        names,
        lambda a: padded[a, columns].reshape(space.shape).astype(space.dtype),
        f"{short(space)}: {_counted(values)} of {' × '.join(str(len(axis)) for axis in values)} values (env.bins={bins})",
    )


def _counted(factors: Sized) -> str:
    return f"{len(factors)} factor{'s' * (len(factors) != 1)}"


def _written(values: np.ndarray) -> list[str]:
    """With as few digits as tell them apart, two at least; 17 tell any two apart."""
    for digits in range(2, 18):
        texts = [f"{value:+.{digits}g}" for value in values]
        if len(set(texts)) == len(set(values.tolist())):
            break
    return texts
