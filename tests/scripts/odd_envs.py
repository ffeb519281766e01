"""Environments that an agent cannot play, or that trouble it.

Found as odd_envs:<name>-v0 from the folder they lie in.
"""

import multiprocessing
import sys

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

TELLS = (
    {"time_to_goal": 3, "share": 1, "_own": 2, "achievements": ["none"]},
    {"time_to_goal": float("nan"), "share": 0.5, "failures": 7},
)


class Odd(gymnasium.Env):
    """Episodes of four steps of noise. Its copies tell in their infos what cannot be merged."""

    observation_space = Box(0, 255, (32, 32, 3), np.uint8)
    action_space = Discrete(3)
    reward = 0.0

    def _observation(self):
        return self.np_random.integers(0, 256, self.observation_space.shape).astype(
            self.observation_space.dtype
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.tells = 0, TELLS[self.np_random.integers(2)]
        return self._observation(), self.tells

    def step(self, action):
        self.steps += 1
        assert type(action) is type(self.action_space.sample())
        return self._observation(), self.reward, self.steps == 4, False, self.tells


class Broken(Odd):
    def __init__(self):
        raise OSError("its data are missing")


class Strange(Odd):
    """A small view of four floats a pixel among other things, and a limit to its episodes."""

    action_space = MultiDiscrete([2, 3])

    def __init__(self, side=12, length=7):
        self.camera, self.length = Box(-1, 1, (4, side, 9), np.float32), length
        self.observation_space = Dict(
            view=Dict(camera=self.camera), speed=Box(-np.inf, np.inf, (2,))
        )

    def _observation(self):
        image = self.np_random.uniform(-1, 1, self.camera.shape).astype(np.float32)
        return {"view": {"camera": image}, "speed": np.zeros(2, np.float32)}

    def step(self, action):
        self.steps += 1
        assert self.action_space.contains(action)
        return self._observation(), float(action[0]), False, self.steps == self.length, self.tells


class Unfilmed(Odd):
    """Says that it can be rendered, and cannot be made so."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self):
        pass


class NotANumber(Odd):
    """Its rewards are none after some steps."""

    def __init__(self, sound_steps=0):
        self.sound_steps = sound_steps

    def step(self, action):
        self.sound_steps -= 1
        self.reward = 0.0 if self.sound_steps >= 0 else float("nan")
        return super().step(action)


class Unseeded(Odd):
    """Not decided by its seed: nor are the lengths of its episodes."""

    def reset(self, *, seed=None, options=None):
        result = super().reset()
        self.end = self.np_random.integers(5, 40)  # so that they hardly ever end together
        return result

    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, self.steps >= self.end, truncated, info


class Apart(Odd):
    """Says what its process has imported, and draws without a seed of its own."""

    def reset(self, *, seed=None, options=None):
        if multiprocessing.current_process().daemon:  # one of several, each with an environment
            with open("apart", "a") as file:
                file.write(f"{'torch' in sys.modules} {np.random.random()}\n")
        return super().reset(seed=seed)


for env in (Odd, Broken, Strange, Unfilmed, NotANumber, Unseeded, Apart):
    gymnasium.register(f"{env.__name__}-v0", entry_point=env)
