"""Actions of any space as choices: each factor of an action is one of a few."""

import itertools
from collections.abc import Callable, Sized
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
LABEL = 40  # letters of an action's name


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
        names: tuples of strings, what the choices of each factor are called.
        text: how the actions are read, a sentence's worth for people.
        rest: see `Reading`

    Raises:
        BadInput: the space is none of these, a Box without bounds, or too large.
    """

    def __init__(self, env: gymnasium.Env, bins: int = BINS):
        super().__init__(env)
        self.names, self._to_env, self.text, self.rest = read(
            env.action_space, bins, _meanings(env.unwrapped)
        )
        self.action_space = MultiDiscrete([len(names) for names in self.names])

    def action(self, action: np.ndarray) -> Any:
        return self._to_env(np.ravel(action))

    def label(self, action: np.ndarray) -> str:
        """What an action `[F]` is called."""
        return ", ".join(
            names[choice] for names, choice in zip(self.names, np.ravel(action), strict=True)
        )


def _meanings(env: gymnasium.Env) -> Any:
    """What an environment calls its actions: an attribute, or a method as ALE has it."""
    with suppress(Exception):  # whatever a stranger's raises
        return getattr(env, "action_meanings", None) or env.get_action_meanings()


def read(space: Space, bins: int, meanings: Any = None) -> Reading:
    """Read a space for `ChooseActions`.

    Args:
        meanings: what the environment calls its actions; ignored unless a list of names.
    """
    if isinstance(space, Discrete):
        count, first = int(space.n), int(space.start)
        _check_number(space, count)
        told = isinstance(meanings, tuple | list) and len(meanings) == count
        named = (
            tuple(map(_short, meanings))
            if told
            else tuple(f"action {first + i}" for i in range(count))
        )
        number = space.dtype.type
        text = f"{space}: one of {count}"
        return Reading((named,), lambda a: number(first + int(a[0])), text, (0,))
    if isinstance(space, MultiDiscrete):
        sizes, first = space.nvec.ravel(), np.ravel(space.start)
        _check_number(space, sum(map(int, sizes)))
        names = tuple(
            tuple(f"{i}: {start + j}" for j in range(n))
            for i, (n, start) in enumerate(zip(sizes, first, strict=True))
        )
        text = f"{short(space)}: {_counted(sizes)}"
        return Reading(
            names,
            lambda a: (a + first).reshape(space.shape).astype(space.dtype),
            text,
            (0,) * len(names),
        )
    if isinstance(space, MultiBinary):
        count = int(np.prod(space.shape))
        _check_number(space, 2 * count)
        names = tuple((f"{i}: off", f"{i}: on") for i in range(count))
        text = f"{space}: {_counted(names)} of two"
        return Reading(
            names, lambda a: a.reshape(space.shape).astype(space.dtype), text, (0,) * count
        )
    if isinstance(space, Box):
        return _read_box(space, bins)
    raise BadInput(
        f"The environment's action space is {short(space)}, but Discrete, MultiDiscrete, "
        "MultiBinary and a bounded Box are accepted: wrap it so that its actions are one of these."
    )


def _read_box(space: Box, bins: int) -> Reading:
    if not is_bounded(space) or space.low.size == 0:
        raise BadInput(
            f"The environment's action space is {short(space)}, whose bounds are not finite, or "
            "are the ends of its type: wrap it (gymnasium.wrappers.RescaleAction, say) so that "
            "each dimension has a least and a greatest value."
        )
    _check_number(space, bins * space.low.size)
    low, high = (np.ravel(bound).astype(np.float64) for bound in (space.low, space.high))
    values = [
        np.linspace(least, most, bins if most > least else 1)
        for least, most in zip(low, high, strict=True)
    ]
    is_whole = not np.issubdtype(space.dtype, np.floating)
    if is_whole:
        values = [np.unique(np.rint(axis)) for axis in values]
    names = tuple(tuple(f"{i}: {text}" for text in _written(axis)) for i, axis in enumerate(values))
    padded = np.array(list(itertools.zip_longest(*values, fillvalue=0.0)))  # [bins, F]
    columns = np.arange(len(values))

    def to_env(choices: np.ndarray) -> Any:
        action = padded[choices, columns].reshape(space.shape).astype(space.dtype)
        return action[()] if is_whole else action  # without axes: a number, as of sample()

    return Reading(
        names,
        to_env,
        f"{short(space)}: {_counted(values)} of {times([len(axis) for axis in values])} values "
        f"(env.bins={bins})",
        tuple(
            int(np.abs(axis).argmin()) if axis[0] <= 0 <= axis[-1] else len(axis) // 2
            for axis in values
        ),
    )


def _check_number(space: Space, choices: int) -> None:
    if choices > MOST:
        raise BadInput(
            f"The environment's action space is {short(space)}, which has {choices:,} choices, "
            f"but {MOST:,} of all factors together are accepted: wrap it so that it has fewer."
        )


def _short(name: Any) -> str:
    text = " ".join(str(name).split())
    return text if len(text) <= LABEL else f"{text[: LABEL - 1]}…"


def _counted(factors: Sized) -> str:
    return f"{len(factors)} factor{'s' * (len(factors) != 1)}"


def _written(values: np.ndarray) -> list[str]:
    """With as few digits as tell them apart, two at least; 17 tell any two apart."""
    for digits in range(2, 18):
        texts = [f"{value:+.{digits}g}" for value in values]
        if len(set(texts)) == len(set(values.tolist())):
            break
    return texts
