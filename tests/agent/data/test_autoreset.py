"""From a vector environment to the segments learned from.

No frame of another episode stands among an episode's own.
"""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, MultiDiscrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from agent.config import ReplayConfig
from agent.data.collect import Collector
from agent.data.replay import Replay
from agent.data.sampler import SampleSpec
from envs.actions import ChooseActions
from tests.agent.conftest import SIZE, SPACES

LIMIT = 6


class Counting(gymnasium.Env):
    """Frames show the episode above and the step below; every third episode terminates."""

    observation_space = Box(0, 255, (SIZE, SIZE, 3), np.uint8)
    action_space = MultiDiscrete(SPACES.actions)

    def __init__(self) -> None:
        self.episode = 0

    def reset(self, *, seed=None, options=None):
        self.episode, self.steps = (self.episode + 1) % 256, 0
        return self._frame(), {}

    def step(self, action):
        self.steps += 1
        return (
            self._frame(),
            float(self.steps),
            self.episode % 3 == 0 and self.steps == 4,
            False,
            {},
        )

    def _frame(self):
        frame = np.full((SIZE, SIZE, 3), self.episode, np.uint8)
        frame[SIZE // 2 :] = self.steps
        return frame


def test_episodes_stay_apart(agent):
    envs = SyncVectorEnv(
        [lambda: TimeLimit(ChooseActions(Counting()), LIMIT)] * 3,
        autoreset_mode=AutoresetMode.NEXT_STEP,
    )
    replay = Replay(ReplayConfig(capacity=5000), 3, SPACES, seed=0)
    ended = Collector(envs, agent, replay, 0.0).collect(400, random=True)
    assert {(e.length, e.total_reward) for e in ended} == {(4, 10.0), (6, 21.0)}
    segment = replay.sample("tokenizer", SampleSpec(300, 9, "around"))
    episode, step = segment.frames[:, :, 0, 0, 0], segment.frames[:, :, 0, -1, 0]
    mask = segment.mask
    rows, slots = mask[:, :-1].nonzero(as_tuple=True)
    assert len(rows) and (episode[rows, slots + 1] == episode[rows, slots]).all()
    assert (step[rows, slots + 1] == step[rows, slots] + 1).all()
    assert (segment.rewards[mask] == step[mask] + 1).all()
    dies = episode % 3 == 0
    assert (segment.terminated == (mask & dies & (step == 3))).all() and segment.terminated.any()
    assert (
        segment.truncated == (mask & ~dies & (step == LIMIT - 1))
    ).all() and segment.truncated.any()
    # What follows a last frame is padding, and not the next episode's first one.
    last = ~mask[:, :-1] & (step[:, :-1] > 0)
    assert (segment.frames[:, 1:][last] == 0).all()
