"""Environments that fail, in this process: the vector environment stops or restarts them."""

import numpy as np
import pytest

from envs.config import EnvConfig
from envs.errors import BadInput, EnvironmentFailed
from envs.failures import Restarts
from envs.make import make_single
from envs.vector import make_vector
from tests.envs.misbehaving import FRAMES, REWARDS

RAISING = ("raise", "raise in reset", "SystemExit")
BREAKING = (*REWARDS, *FRAMES, "action space")


def config(fault: str | None, after: int = 10, **settings) -> EnvConfig:
    return EnvConfig(id="Misbehaving-v0", kwargs={"fault": fault, "after": after}, **settings)


def play(envs, steps: int) -> list[tuple]:
    """Rows of (frames, rewards, terminated, truncated, info), that of the reset first."""
    frames, info = envs.reset()
    rows = [(frames, None, None, None, info)]
    for _ in range(steps):
        rows.append(envs.step(np.zeros((envs.num_envs, 1), np.int64)))
    return rows


def check_restarted(rows: list[tuple], fault: str, told: str) -> None:
    """The episode ends with the step before, truncated; the next row begins another.

    Episode 1 takes 7 steps and a reset. The next fails at its step 4; if the failure is one in a
    reset, it is the reset behind that one.
    """
    whole = play(make_vector(config(None), [0]), 16)
    reset = fault.endswith("reset")
    first = next(i for i, row in enumerate(rows) if "failures" in row[4])
    assert first == (16 if reset else 12)
    for row, other in zip(rows[:first], whole, strict=False):
        np.testing.assert_array_equal(row[0], other[0])
        assert row[1:4] == other[1:4]
    frames, rewards, terminated, truncated, info = rows[first]
    (sentence,) = info["failures"][0]
    assert told in sentence and sentence.endswith("it is restarted.")
    if reset:
        assert not terminated[0] and not truncated[0]
    else:
        assert (rewards[0], terminated[0], truncated[0]) == (0.0, False, True)
        np.testing.assert_array_equal(frames, rows[first - 1][0])
        frames = rows[first + 1][0]
    # What begins is an episode that its number decides: the one behind the broken one.
    single = make_single(config(None), 0)
    expected = [single.reset()[0] for _ in range(4)][3 if reset else 2]
    np.testing.assert_array_equal(frames[0], expected)


@pytest.mark.parametrize("fault", [*RAISING, *BREAKING])
def test_it_stops_or_is_restarted(fault: str):
    where = "at step 4 of its episode 2"
    if fault.endswith("reset"):
        where = "in the reset that begins its episode 3"
    with pytest.raises(EnvironmentFailed if fault in RAISING else BadInput) as stop:
        play(make_vector(config(fault), [0]), 40)
    text = str(stop.value)
    assert "Misbehaving-v0" in text and where in text and text.endswith(".") and "\n" not in text
    if fault in RAISING:
        assert "env.on_error=restart" in text and "misbehave()" in stop.value.trace
    check_restarted(play(make_vector(config(fault, on_error="restart"), [0]), 20), fault, where)


@pytest.mark.parametrize("fault", ["raise", "raise in reset"])
def test_only_so_often(fault: str):
    often = config(fault, after=0, on_error="restart", max_restarts=3)
    with pytest.raises(EnvironmentFailed, match=r"after 3 restarts within 1000 steps .*restarts=3"):
        play(make_vector(often, [0, 1]), 40)


def test_restarts_long_ago_do_not_count():
    restarts = Restarts(config(None, on_error="restart", max_restarts=2), "X")
    for steps in (0, 0, 1000, 1500, 2000):
        told = restarts.accept(KeyError("a"), "at step 3", steps)
        assert told == "The environment X failed at step 3: KeyError: 'a'; it is restarted."
    with pytest.raises(EnvironmentFailed):
        restarts.accept(KeyError("a"), "at step 3", 2000)


def test_the_others_notice_nothing():
    alone = play(make_vector(config(None), [0, 1]), 30)
    failing = make_vector(EnvConfig(id="Misbehaving-v0", on_error="restart"), [0, 1])
    failing.envs[0].unwrapped.fault = "raise"
    rows = play(failing, 30)
    assert any("failures" in row[4] for row in rows)
    for row, other in zip(rows, alone, strict=True):
        np.testing.assert_array_equal(row[0][1], other[0][1])
        assert not row[4].get("_failures", [False, False])[1]


def test_a_person_is_not_a_failure():
    """In this process KeyboardInterrupt is Ctrl-C, whoever raises it."""
    with pytest.raises(KeyboardInterrupt):
        play(make_vector(config("KeyboardInterrupt", on_error="restart"), [0]), 20)


def test_a_limit_of_steps():
    rows = play(make_vector(config("endless"), [0], max_steps=4), 10)
    assert [bool(row[3][0]) for row in rows[1:]] == [False, False, False, True, False] * 2


@pytest.mark.parametrize("steps", range(9, 20))
@pytest.mark.parametrize("fault", ["raise", "raise in reset"])
def test_it_comes_back_where_it_stood(fault: str, steps: int):
    """Around a failure too: its position leads there, without the failure."""
    whole = make_vector(config(fault, on_error="restart"), [3])
    rows = play(whole, steps)
    position = whole.get_attr("position")[0]
    resumed = make_vector(config(None), [3])
    resumed.set_attr("resume_from", [position])
    frames, _ = resumed.reset()
    if position[0] <= position[1]:
        np.testing.assert_array_equal(frames, rows[-1][0])
    assert resumed.get_attr("position")[0] == position
    if fault == "raise" and (rows[-1][2] | rows[-1][3])[0]:  # the next step is a reset
        action = np.zeros((1, 1), np.int64)
        np.testing.assert_array_equal(resumed.step(action)[0], whole.step(action)[0])
        assert resumed.get_attr("position") == whole.get_attr("position")
