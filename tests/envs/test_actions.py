"""Any action space as choices: what arrives at the environment, and what cannot be read."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from envs.actions import ChooseActions
from envs.errors import BadInput
from envs.spaces import Spaces


class Recorder(gymnasium.Env):
    """Remembers what it was given."""

    observation_space = Box(0, 255, (4, 4, 3), np.uint8)

    def __init__(self, space):
        self.action_space = space

    def step(self, action):
        self.given = action
        return None, 0.0, False, False, {}


def wrap(space, bins=5) -> ChooseActions:
    return ChooseActions(Recorder(space), bins)


def all_choices(env) -> list[np.ndarray]:
    return [np.array(choice) for choice in np.ndindex(*env.action_space.nvec)]


def kind(action) -> tuple:
    return type(action), action.dtype, action.shape


def given_for(env, choices) -> object:
    env.step(choices)
    return env.unwrapped.given


SPACES = [
    Discrete(9, start=-5), Discrete(1), Discrete(3, start=250, dtype=np.uint8),
    MultiDiscrete([2, 1, 4]), MultiDiscrete(np.array([[2, 3], [1, 2]]), start=[[0, 1], [-2, 5]]),
    MultiDiscrete([2, 3], dtype=np.int32, start=[1, 2]), MultiBinary(4), MultiBinary((2, 2)),
    Box(-1, 1, (2, 2)), Box(9, 10.5, ()), Box(-1, 1, (1,), np.float16), Box(0, 5, (), np.int64),
    Box(np.array([-1, 0, 0]), np.array([1, 1, 1]), dtype=np.float64), Box(0, 2, (2,), np.int32),
    Box(0, 255, (2,), np.uint8), Box(0, 1, (2,), np.bool_), Box(-1e29, 1e29, (1,), np.float64),
    Box(-(2**53) + 1, 2**53 - 1, (1,), np.int64),
]  # fmt: skip


@pytest.mark.parametrize("bins", [2, 5])
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_every_choice_is_an_action_of_the_space(space, bins) -> None:
    """All different, and all of them for spaces that have finitely many."""
    env = wrap(space, bins)
    assert isinstance(env.action_space, MultiDiscrete) and env.action_space.dtype == np.int64
    choices = all_choices(env)[:500]
    given = [given_for(env, choice) for choice in choices]
    assert all(space.contains(action) for action in given)
    assert set(map(kind, given)) == {kind(space.sample())}
    assert len({np.asarray(action).tobytes() for action in given}) == len(choices)
    assert len({env.label(choice) for choice in choices}) == len(choices)


def test_discrete_keeps_its_offset() -> None:
    env = wrap(Discrete(3, start=-1))
    assert env.action_space == MultiDiscrete([3])
    assert [given_for(env, c) for c in all_choices(env)] == [-1, 0, 1]
    assert [env.label(c) for c in all_choices(env)] == ["action -1", "action 0", "action 1"]


def test_a_box_gets_both_bounds_and_equal_distances() -> None:
    env = wrap(Box(np.array([-1, 0], np.float32), np.array([1, 10], np.float32)), bins=3)
    assert env.action_space == MultiDiscrete([3, 3])
    np.testing.assert_array_equal(given_for(env, np.array([0, 0])), [-1, 0])
    np.testing.assert_array_equal(given_for(env, np.array([1, 2])), [0, 10])
    assert given_for(env, np.array([2, 1])).dtype == np.float32
    assert env.label(np.array([0, 1])) == "0: -1, 1: +5"


def test_a_fixed_dimension_and_few_integers() -> None:
    fixed = Box(np.array([2.0, 0.0]), np.array([2.0, 1.0]), dtype=np.float64)
    assert wrap(fixed).action_space == MultiDiscrete([1, 5])
    assert wrap(Box(0, 2, (1,), np.int64), bins=9).action_space == MultiDiscrete([3])


def test_names_that_the_environment_gives() -> None:
    env = Recorder(Discrete(2))
    env.action_meanings = ("left", "right")
    assert ChooseActions(env).label(np.array([1])) == "right"
    for others in (("left",), None, lambda: ("left", "right")):  # not of these actions, or no names
        env.action_meanings = others
        assert ChooseActions(env).label(np.array([1])) == "action 1"
    env.action_meanings = None
    env.get_action_meanings = lambda: ["NOOP", "FIRE"]  # as ALE's
    assert ChooseActions(env).label(np.array([0])) == "NOOP"


def test_doing_nothing() -> None:
    """The value next to 0, or else the middle one."""
    env = wrap(Box(np.float32([-1, 0, 2, -4, -1, -5]), np.float32([1, 1, 4, -2, 3, 0])))
    np.testing.assert_array_equal(given_for(env, np.array(env.rest)), [0, 0, 3, -3, 0, 0])
    assert wrap(Discrete(3, start=5)).rest == (0,)
    assert wrap(MultiBinary(2)).rest == wrap(MultiDiscrete([2, 3])).rest == (0, 0)


def test_the_text_of_many_factors_is_short() -> None:
    env, few = wrap(Box(-1, 1, (2000,))), "5 × 5 × 5 × 5 × 5 × 5 × 5 × 5 × …"
    expected = f"Box(-1, 1, (2000,), float32): 2000 factors of {few} values (env.bins=5)"
    assert env.text == expected
    assert str(Spaces.of(env)) == f"frames 4×4×3, actions {few} (2000 factors)"


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (Box(0, np.inf, (2,)), "finite bounds"),
        (Box(-3.4e38, 3.4e38, (2,)), "finite bounds"),
        (Box(-1.7e308, 1.7e308, (2,), np.float64), "finite bounds"),
        (Box(-(2**63), 2**63 - 1, (2,), np.int64), "finite bounds"),
        (Box(0, 2**64 - 1, (2,), np.uint64), "finite bounds"),
        (Discrete(10**9), "1,000,000,000 choices"),
        (MultiDiscrete([2**62, 2**62, 2**62]), "choices"),
        (MultiBinary(10**6), "2,000,000 choices"),
        (Tuple([Discrete(2), Discrete(3)]), "MultiDiscrete"),
        (Dict({"a": Discrete(2)}), "MultiDiscrete"),
    ],
)
def test_what_cannot_be_read(space, said) -> None:
    with pytest.raises(BadInput, match=f"{said}.*wrap it"):
        wrap(space)


def test_spaces_of_an_environment() -> None:
    spaces = Spaces.of(wrap(MultiDiscrete([2, 3])))
    assert spaces == Spaces(3, 4, (2, 3)) and spaces.frame_shape == (3, 4, 4)
    assert str(spaces) == "frames 4×4×3, actions 2 × 3"
