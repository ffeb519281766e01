from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from envs.config import EnvConfig
from envs.errors import BadInput
from envs.preflight import try_out


class Trying(gymnasium.Env):
    """One fault, or none: episodes of eight steps that count them in their pixels."""

    observation_space = Box(0, 255, (32, 32, 3), np.uint8)
    action_space = Discrete(2)

    def __init__(self, fault=None, reward=1.0, render_mode=None):
        self.fault, self.reward, self.render_mode = fault, reward, render_mode
        self.metadata = {"render_modes": ["rgb_array"] if fault == "dark" else []}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=None if self.fault == "unseeded" else seed)
        self.steps, self.color = 0, self.np_random.integers(256)
        return self._seen(), {}

    def step(self, action):
        self.steps += 1
        if self.fault == "fails" and self.steps == 5:
            raise IndexError("there is no fifth level")
        return self._seen(), self.reward, self.steps == 8 and self.fault != "endless", False, {}

    def render(self):
        return np.full((64, 64, 3), self.color, np.uint8)

    def _seen(self):
        image = np.zeros((32, 32, 3), np.uint8)
        if self.fault != "still":
            image[self.steps % 32] = 9 if self.fault == "dark" else 255
            image[:, 31] = 0 if self.fault == "dark" else self.color
        return image[1:] if self.fault == "shape" and self.steps == 3 else image


gymnasium.register("Trying-v0", Trying)


def trial(steps: int = 20, max_episode_steps: int | None = None, **kwargs):
    limit = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
    return try_out(EnvConfig(id="Trying-v0", kwargs=kwargs | limit), 0, steps)


def test_nothing_wrong():
    found = trial()
    assert found.warnings() == []
    assert (found.steps, found.lengths, found.terminated, found.differs_at) == (20, (8, 8), 2, None)
    assert len(found.frames) == 23 and found.rewards.tolist() == [1.0] * 20


def test_a_limit_truncates():
    """Gymnasium's, given as an argument: no death."""
    found = trial(max_episode_steps=5)
    assert (found.lengths, found.terminated, found.limit) == ((5, 5, 5, 5), 0, 5)


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"fault": "still"}, ["frames are equal"]), ({"fault": "dark"}, ["only 0 to 9 of 0 to 255", "env.pixels=render"]),
        ({"fault": "unseeded"}, ["Its seed does not decide it (step 0 "]), ({"fault": "endless"}, ["No episode ended", "max_episode_steps"]),
        ({"reward": 0.0}, ["No reward was other than 0"]),
    ],
)  # fmt: skip
def test_what_is_wrong(kwargs, named):
    (warning,) = trial(**kwargs).warnings()
    assert all(part in warning for part in named)


def test_an_end_that_is_known_to_come():
    assert trial(fault="endless", max_episode_steps=100).warnings() == []


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (
            "fails",
            "failed at step 5 of its episode 1: IndexError: there is no fifth level; correct it",
        ),
        ("shape", r"step 3 of its episode 1 .* the shape \(31, 32, 3\)"),
    ],
)
def test_what_is_refused(fault, named):
    with pytest.raises(BadInput, match=named):
        trial(fault=fault)


def test_failures_that_are_accepted():
    """With env.on_error=restart: said, and no reason to refuse."""
    found = try_out(EnvConfig(id="Trying-v0", kwargs={"fault": "fails"}, on_error="restart"), 0, 12)
    assert found.lengths == (5, 5) and found.terminated == 0
    (doubt,) = found.doubts()
    assert "It failed 2 times in 12 steps" in doubt and "there is no fifth level" in doubt


def test_a_world_of_single_steps():
    found = trial()
    assert not any("first step" in warning for warning in found.warnings())
    assert "All 3 episodes ended at their first step" in " ".join(
        replace(found, lengths=(1, 1, 1)).warnings()
    )
