"""An environment that misbehaves in one way, after so many steps."""

import os
import signal
import time

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Misbehaving(gymnasium.Env):
    """Episodes of seven steps with rewards of 1; frames show the episode and the step.

    Args:
        fault: What it does wrong; None: nothing.
        after: Steps until it does.
        pids: A file to which it adds the number of its process.
    """

    observation_space = Box(0, 1, (32, 32, 3), np.float32)
    action_space = Discrete(3)
    length = 7

    def __init__(self, fault=None, after=10, pids=None):
        self.fault, self.left, self.steps, self.color = fault, after, 0, 0.0
        if pids:
            with open(pids, "a") as file:
                file.write(f"{os.getpid()}\n")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.color = 0, float(self.np_random.uniform(0.1, 1))
        if self.left <= 0 and self.fault in ("raise in reset", "hang in reset", "die in reset"):
            self.misbehave()
        return self.frame(), {}

    def step(self, action):
        self.left -= 1
        self.steps += 1
        reward = 1.0
        if self.fault == "slow":
            time.sleep(0.2)
        if self.fault == "by seed" and self.steps == 4 and self.color > 0.7:
            raise ValueError("what its seed decides")
        if self.left < 0 and self.fault == "action space":
            self.action_space = Discrete(2)
        if self.left < 0 and self.fault in REWARDS:
            reward = REWARDS[self.fault]
        elif (
            self.left < 0
            and self.fault not in (None, "by seed", "slow")
            and not self.fault.endswith("reset")
        ):
            self.misbehave()
        ends = (self.steps == self.length and self.fault != "endless") or self.fault == "at once"
        return self.frame(), reward, ends, False, {}

    def frame(self):
        frame = np.full((32, 32, 3), self.color, np.float32)
        frame[self.steps % 32] = 0
        if self.left < 0 and self.fault in FRAMES:
            return FRAMES[self.fault](frame)
        return frame

    def misbehave(self):
        if self.fault.startswith("raise"):
            raise KeyError(f"level {self.steps}")
        elif self.fault.startswith("hang"):
            time.sleep(1000)
        elif self.fault.startswith("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.fault == "_exit":
            os._exit(3)
        elif self.fault == "SystemExit":
            raise SystemExit(0)
        elif self.fault == "KeyboardInterrupt":
            raise KeyboardInterrupt


REWARDS = {"nan": float("nan"), "infinite": float("inf"), "huge": 1e300, "none": None}
FRAMES = {
    "nan frame": lambda frame: frame * np.float32("nan"),
    "shape": lambda frame: frame[1:],
    "dtype": lambda frame: frame.astype(complex),
}
gymnasium.register("Misbehaving-v0", Misbehaving)
