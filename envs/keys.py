"""Which keys of a keyboard are which action."""

import itertools
import math
import string
from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium
import numpy as np

from envs.errors import BadInput

# Keys by pygame's names. Crafter's are those of its own window, Atari's those of ALE, with arrows.
CATCH = {"left": ("left",), "stay": (), "right": ("right",)}
CRAFTER = {
    "noop": (),
    "move_left": ("left",), "move_right": ("right",), "move_up": ("up",), "move_down": ("down",),
    "do": ("space",), "sleep": ("tab",),
    "place_stone": ("r",), "place_table": ("t",), "place_furnace": ("f",), "place_plant": ("p",),
    "make_wood_pickaxe": ("1",), "make_stone_pickaxe": ("2",), "make_iron_pickaxe": ("3",),
    "make_wood_sword": ("4",), "make_stone_sword": ("5",), "make_iron_sword": ("6",),
}  # fmt: skip
ATARI = {
    height + side + fire or "NOOP": tuple(
        key for key in (height.lower(), side.lower(), fire and "space") if key
    )
    for height in ("", "UP", "DOWN") for side in ("", "LEFT", "RIGHT") for fire in ("", "FIRE")
}  # fmt: skip
OTHERS = string.digits + string.ascii_lowercase  # for actions of which nothing is known
SAME_AS = {"w": "up", "a": "left", "s": "down", "d": "right"}


@dataclass(frozen=True)
class KeyMap:
    """Which keys are which action.

    Attributes:
        names: of the actions, in their order.
        combinations: the keys to hold for each.
        rest: the action while no key is held.
    """

    names: tuple[str, ...]
    combinations: tuple[tuple[str, ...], ...]
    rest: int

    def action(self, held: Sequence[str]) -> int:
        """The action of the keys that are held, in the order in which they were pressed.

        Of the actions whose keys are all among them the one with the most keys; of two the one
        that was pressed last. W, A, S and D are arrows, where there are arrows.
        """
        if any("left" in keys for keys in self.combinations):
            held = [SAME_AS.get(key, key) for key in held]

        def rank(action: int) -> tuple[int, list[int]]:
            keys = self.combinations[action]
            return len(keys), sorted(map(held.index, keys), reverse=True)

        possible = [a for a, keys in enumerate(self.combinations) if set(keys) <= set(held)]
        return max(possible, key=rank, default=self.rest)

    def legend(self) -> list[tuple[str, str]]:
        """(keys, name) of each action, to be read by a person."""
        keys = [" + ".join(keys) for keys in self.combinations]
        keys[self.rest] = f"{keys[self.rest]} or no key" if keys[self.rest] else "no key"
        return list(zip(keys, self.names, strict=True))


def action_names(env: gymnasium.Env) -> tuple[str, ...]:
    """The names of the actions of an environment of `make_single`, in the order of its factors.

    Raises:
        BadInput: there are too many for a keyboard.
    """
    factors = env.get_wrapper_attr("names")
    number = math.prod(map(len, factors))
    if number > len(OTHERS):
        raise BadInput(
            f"The environment has {number} actions, but a keyboard has keys here for "
            f"{len(OTHERS)}: give by=agent, or a lower env.bins where actions are continuous."
        )
    return tuple(map(", ".join, itertools.product(*factors)))


def keys_of(env: gymnasium.Env) -> KeyMap:
    """The keys for an environment of `make_single`. Raises BadInput as `action_names`."""
    sizes = [len(names) for names in env.get_wrapper_attr("names")]
    rest = np.ravel_multi_index(env.get_wrapper_attr("rest"), sizes)
    return key_map(action_names(env), int(rest))


def key_map(names: Sequence[str], rest: int = 0) -> KeyMap:
    """The keys for at most 36 actions: a game's own where they are known, else 0 to 9, a to z.

    Args:
        names: of the actions.
        rest: the action without a key, where each has one.
    """
    combinations: list[tuple[str, ...]] = [(key,) for key in OTHERS[: len(names)]]
    for known in (CATCH, CRAFTER, ATARI):
        if set(names) <= set(known):
            combinations = [known[name] for name in names]
    rest = combinations.index(()) if () in combinations else rest
    return KeyMap(tuple(names), tuple(combinations), rest)
