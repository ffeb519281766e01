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
        names: Of the actions, in their order.
        combinations: The keys to hold for each; none: the action of a moment without keys.
        default: That action, where each has keys.
    """

    names: tuple[str, ...]
    combinations: tuple[tuple[str, ...], ...]
    default: int = 0

    def action(self, held: Sequence[str]) -> int:
        """The action of the keys that are held, in the order in which they were pressed.

        Of the actions whose keys are all among them the one with the most keys; of two the one
        that was pressed last. W, A, S and D are arrows, where there are arrows.
        """
        arrows = any("left" in keys for keys in self.combinations)
        pressed = [SAME_AS.get(key, key) if arrows else key for key in held]
        order = {key: i for i, key in enumerate(pressed)}
        possible = [a for a, keys in enumerate(self.combinations) if set(keys) <= set(pressed)]
        found = [
            (sorted((order[k] for k in self.combinations[a]), reverse=True), a) for a in possible
        ]
        return max(found, key=lambda x: (len(x[0]), x[0]), default=([], self.rest))[1]

    @property
    def rest(self) -> int:
        """The action of a moment without keys: the one that needs none, or else the default."""
        return self.combinations.index(()) if () in self.combinations else self.default

    def legend(self) -> list[tuple[str, str]]:
        """(keys, name) of each action, to be read by a person."""
        lines = []
        for action, (name, keys) in enumerate(zip(self.names, self.combinations, strict=True)):
            ways = [" + ".join(keys)] if keys else []
            lines.append((" or ".join([*ways, "no key"] if action == self.rest else ways), name))
        return lines


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
            f"{len(OTHERS)}: give by=agent" + (", or a lower env.bins." if factors[1:] else ".")
        )
    return tuple(map(", ".join, itertools.product(*factors)))


def keys_of(env: gymnasium.Env) -> KeyMap:
    """The keys for an environment of `make_single`. Raises BadInput as `action_names`."""
    sizes = [len(names) for names in env.get_wrapper_attr("names")]
    rest = np.ravel_multi_index(env.get_wrapper_attr("rest"), sizes)
    return key_map(action_names(env), int(rest))


def key_map(names: Sequence[str], default: int = 0) -> KeyMap:
    """The keys for at most 36 actions: a game's own where they are known, else 0 to 9, a to z."""
    for known in (CATCH, CRAFTER, ATARI):
        if set(names) <= set(known):
            return KeyMap(tuple(names), tuple(known[name] for name in names), default)
    return KeyMap(tuple(names), tuple((key,) for key in OTHERS[: len(names)]), default)
