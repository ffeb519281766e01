import ale_py
import gymnasium
import pytest
from gymnasium.spaces import Discrete, MultiBinary, MultiDiscrete

import envs  # noqa: F401
from envs.actions import ChooseActions
from envs.errors import BadInput
from envs.keys import ATARI, KeyMap, action_names, key_map, keys_of


def check_every_action_has_keys(keys: KeyMap) -> None:
    """Its own, told from every other's, however they are pressed."""
    assert len(set(map(frozenset, keys.combinations))) == len(keys.names) == len(keys.combinations)
    for action, combination in enumerate(keys.combinations):
        assert keys.action(combination) == keys.action(combination[::-1]) == action
    legend = keys.legend()
    assert [name for _, name in legend] == list(keys.names) and all(held for held, _ in legend)
    assert sum("no key" in held for held, _ in legend) == 1 and "no key" in legend[keys.rest][0]


def test_crafter():
    import crafter

    names = action_names(ChooseActions(gymnasium.make("deltadream/Crafter-v1")))
    assert list(names) == crafter.constants.actions
    keys = key_map(names)
    check_every_action_has_keys(keys)
    assert names[keys.action([])] == "noop"
    assert names[keys.action(["space"])] == "do"
    assert names[keys.action(["a"])] == names[keys.action(["left"])] == "move_left"
    assert (
        names[keys.action(["up", "left"])] == "move_left"
        and names[keys.action(["left", "up"])] == "move_up"
    )
    assert names[keys.action(["x", "return"])] == "noop"


@pytest.mark.slow
def test_all_atari_action_sets():
    """Of every game of ALE for one player, and all 18 actions."""
    games = [
        s.kwargs["game"]
        for id, s in gymnasium.registry.items()
        if id.startswith("ALE/") and id.endswith("-v5")
    ]
    ale = ale_py.ALEInterface()
    ale.loadROM(ale_py.roms.get_rom_path("pong"))
    full = tuple(action.name for action in ale.getLegalActionSet())
    assert set(full) == set(ATARI) and len(full) == 18
    action_sets = {full}
    for game in games:
        ale.loadROM(ale_py.roms.get_rom_path(game))
        action_sets.add(tuple(action.name for action in ale.getMinimalActionSet()))
    assert len(action_sets) > 20
    for names in action_sets:
        keys = key_map(names)
        check_every_action_has_keys(keys)
        parts = {"UP": "up", "DOWN": "down", "LEFT": "left", "RIGHT": "right", "FIRE": "space"}
        for name, combination in zip(names, keys.combinations, strict=True):
            assert set(combination) == {key for part, key in parts.items() if part in name}


def test_the_environment_names_ales_actions():
    env = ChooseActions(gymnasium.make("deltadream/Atari-v0", game="Pong"))
    assert action_names(env) == ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
    assert (
        len(
            action_names(
                ChooseActions(
                    gymnasium.make("deltadream/Atari-v0", game="Pong", full_action_space=True)
                )
            )
        )
        == 18
    )


def test_a_box_without_a_key_is_in_the_middle():
    env = ChooseActions(gymnasium.make("CarRacing-v3"), bins=3)
    keys = keys_of(env)
    check_every_action_has_keys(keys)
    assert (
        keys.names[keys.action([])] == "0: +0, 1: +0, 2: +0"
        and ("9 or no key", keys.names[9]) in keys.legend()
    )


def test_more_keys_than_a_game_knows():
    keys = key_map(("NOOP", "FIRE", "UP", "LEFT"))
    assert (
        keys.action(["up", "space"]) == 1 and keys.action(["space", "up"]) == 2
    )  # no UPFIRE: what came last
    assert keys.action(["a", "d"]) == 3


def test_actions_without_names():
    class Unnamed(gymnasium.Env):
        def __init__(self, space):
            self.action_space = space

    names = action_names(ChooseActions(Unnamed(Discrete(12))))
    keys = key_map(names)
    check_every_action_has_keys(keys)
    assert names[11] == "action 11"
    held = [], ["0"], ["9"], ["a"], ["b"], ["x"], ["1", "2"]
    assert list(map(keys.action, held)) == [0, 0, 9, 10, 11, 0, 2]
    for space in (Discrete(37), MultiBinary(6)):
        with pytest.raises(BadInput, match="(37|64) actions.*36.*by=agent"):
            action_names(ChooseActions(Unnamed(space)))
    assert action_names(ChooseActions(Unnamed(MultiDiscrete([2, 3]))))[4] == "0: 1, 1: 1"
