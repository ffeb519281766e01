from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from envs.config import EnvConfig
from envs.errors import BadInput
from envs.trial import try_out


class Trying(gymnasium.Env):
    """One fault, or none: episodes of eight steps that count them in their pixels."""

    observation_space = Box(0, 255, (32, 32, 3), np.uint8)
    action_space = Discrete(2)

    def __init__(self, fault=None, reward=1.0):
        self.fault, self.reward = fault, reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=None if self.fault == "unseeded" else seed)
        self.steps, self.color = 0, self.np_random.integers(256)
        return self._seen(), {}

    def step(self, action):
        self.steps += 1
        if self.fault == "fails" and self.steps == 5:
            raise IndexError("there is no fifth level")
        return self._seen(), self.reward, self.steps == 8 and self.fault != "endless", False, {}

    def _seen(self):
        image = np.zeros((32, 32, 3), np.uint8)
        if self.fault != "still":
            image[self.steps % 32] = 9 if self.fault == "dark" else 255
            image[:, 31] = 0 if self.fault == "dark" else self.color
        return image[1:] if self.fault == "shape" and self.steps == 3 else image


gymnasium.register("Trying-v0", Trying)


def trial(steps: int = 20, on_error: str = "stop", **kwargs):
    return try_out(EnvConfig(id="Trying-v0", kwargs=kwargs, on_error=on_error), 0, steps)


def test_nothing_wrong():
    found = trial()
    assert found.warnings() == []
    assert (found.lengths, found.terminated, found.differs_at) == ((8, 8), 2, None)
    assert len(found.frames) == 23 and found.rewards.tolist() == [1.0] * 20


def test_a_limit_truncates():
    """Gymnasium's, given as an argument: no death."""
    found = trial(max_episode_steps=5)
    assert (found.lengths, found.terminated, found.limit) == ((5, 5, 5, 5), 0, 5)


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"fault": "still"}, "frames are equal"),
        ({"fault": "dark"}, "only 0 to 9 of 0 to 255.*env.pixels=render"),
        ({"fault": "unseeded"}, r"Its seed does not decide it \(step 0 "),
        ({"reward": 0.0}, "Each of 20 random steps had the reward 0: an agent"),
        (
            {"fault": "endless", "max_episode_steps": 100},
            "Each of 20 random steps had the reward 1: an agent",
        ),
    ],
)
def test_what_is_wrong(kwargs, named):
    (warning,) = trial(**kwargs).warnings()
    with pytest.raises(ValueError, match=named):
        raise ValueError(warning)


def test_an_end_that_does_not_come():
    assert "max_episode_steps" in trial(fault="endless").warnings()[0]


def test_a_world_of_single_steps():
    (warning,) = replace(trial(), lengths=(1, 1, 1)).warnings()
    assert "All 3 episodes ended at their first step" in warning


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (
            "fails",
            "failed at step 5 of its episode 1: IndexError: there is no fifth level; correct",
        ),
        ("shape", r"step 3 of its episode 1 .* the shape \(31, 32, 3\)"),
    ],
)
def test_what_is_refused(fault, named):
    with pytest.raises(BadInput, match=named):
        trial(fault=fault)


def test_failures_that_are_accepted():
    """With env.on_error=restart: said, and no reason to refuse."""
    found = trial(12, "restart", fault="fails")
    assert found.lengths == (5, 5) and found.terminated == 0
    (mistake,) = found.mistakes()
    assert "It failed in 12 steps" in mistake and "there is no fifth level" in mistake
