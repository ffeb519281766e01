import gymnasium
import pytest
from gymnasium.spaces import Discrete, MultiBinary, MultiDiscrete

import envs  # noqa: F401
from envs.actions import ChooseActions
from envs.errors import BadInput
from envs.keys import ATARI, KeyMap, action_names, key_map, keys_of


class Unnamed(gymnasium.Env):
    def __init__(self, space):
        self.action_space = space


def names_of(id: str, **kwargs) -> tuple[str, ...]:
    return action_names(ChooseActions(gymnasium.make(id, **kwargs)))


def check_every_action_has_keys(keys: KeyMap) -> None:
    """Its own, different from every other's, however they are pressed."""
    assert len(set(map(frozenset, keys.combinations))) == len(keys.names) == len(keys.combinations)
    for action, combination in enumerate(keys.combinations):
        assert keys.action(combination) == keys.action(combination[::-1]) == action
    legend = keys.legend()
    assert [name for _, name in legend] == list(keys.names) and all(held for held, _ in legend)
    assert sum("no key" in held for held, _ in legend) == 1 and "no key" in legend[keys.rest][0]


def test_crafter():
    import crafter

    names = names_of("deltadream/Crafter-v1")
    assert list(names) == crafter.constants.actions
    keys = key_map(names)
    check_every_action_has_keys(keys)
    for held, name in [
        ([], "noop"), (["space"], "do"), (["a"], "move_left"), (["left"], "move_left"),
        (["up", "left"], "move_left"), (["left", "up"], "move_up"), (["x", "return"], "noop"),
    ]:  # fmt: skip
        assert names[keys.action(held)] == name


def test_atari():
    """All 18 actions, and any of them, as games have."""
    assert names_of("deltadream/Atari-v0", game="Pong") == (
        "NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE",
    )  # fmt: skip
    full = names_of("deltadream/Atari-v0", game="Pong", full_action_space=True)
    assert set(full) == set(ATARI) and len(full) == 18
    parts = {"UP": "up", "DOWN": "down", "LEFT": "left", "RIGHT": "right", "FIRE": "space"}
    for names in (full, full[1:], full[::-3]):
        keys = key_map(names)
        check_every_action_has_keys(keys)
        for name, combination in zip(names, keys.combinations, strict=True):
            assert set(combination) == {key for part, key in parts.items() if part in name}


def test_more_keys_than_a_game_knows():
    keys = key_map(("NOOP", "FIRE", "UP", "LEFT"))
    assert keys.action(["up", "space"]) == 1  # no UPFIRE: what came last
    assert keys.action(["space", "up"]) == 2
    assert keys.action(["a", "d"]) == 3


def test_a_box_without_a_key_is_in_the_middle():
    keys = keys_of(ChooseActions(gymnasium.make("CarRacing-v3"), bins=3))
    check_every_action_has_keys(keys)
    assert keys.names[keys.action([])] == "0: +0, 1: +0, 2: +0"
    assert ("9 or no key", keys.names[9]) in keys.legend()


def test_actions_without_names():
    names = action_names(ChooseActions(Unnamed(Discrete(12))))
    keys = key_map(names)
    check_every_action_has_keys(keys)
    assert names[11] == "action 11"
    held = [], ["0"], ["9"], ["a"], ["b"], ["x"], ["1", "2"]
    assert list(map(keys.action, held)) == [0, 0, 9, 10, 11, 0, 2]
    assert action_names(ChooseActions(Unnamed(MultiDiscrete([2, 3]))))[4] == "0: 1, 1: 1"


@pytest.mark.parametrize("space", [Discrete(37), MultiBinary(6)])
def test_too_many_actions(space):
    with pytest.raises(BadInput, match="(37|64) actions.*36.*by=agent"):
        action_names(ChooseActions(Unnamed(space)))
