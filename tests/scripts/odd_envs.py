"""Environments that an agent cannot play, or that trouble it. Found as odd_envs:<name>-v0 from the folder they lie in."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Odd(gymnasium.Env):
    """Episodes of four steps of noise."""

    observation_space = Box(0, 255, (32, 32, 3), np.uint8)
    action_space = Discrete(3)
    reward = 0.0

    def _observation(self):
        return self.np_random.integers(0, 256, self.observation_space.shape).astype(self.observation_space.dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {}

    def step(self, action):
        self.steps += 1
        return self._observation(), self.reward, self.steps == 4, False, {}


class Continuous(Odd):
    action_space = Box(-1, 1, (2,))


class FromOne(Odd):
    action_space = Discrete(3, start=1)


class Unbounded(Odd):
    """Numbers, and pictures in a window only."""

    observation_space = Box(-np.inf, np.inf, (32, 32, 3), np.float32)
    metadata = {"render_modes": ["human"]}


class Broken(Odd):
    def __init__(self):
        raise OSError("its data are missing")


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
        self.end = self.np_random.integers(5, 40)  # long, so that hardly ever all of them have just ended
        return result

    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, self.steps >= self.end, truncated, info


for env in (Odd, Continuous, FromOne, Unbounded, Broken, NotANumber, Unseeded):
    gymnasium.register(f"{env.__name__}-v0", entry_point=env)
