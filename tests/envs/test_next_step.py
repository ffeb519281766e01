import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from envs.errors import BadInput
from envs.next_step import next_step


class Counting(gymnasium.Env):
    """Its pixels show episode and step; an episode's last step is a death or a limit."""

    observation_space = Box(0, 255, (2,), np.uint8)
    action_space = Discrete(9)

    def __init__(self, length: int, dies: bool) -> None:
        self.length, self.dies, self.episode = length, dies, 0

    def reset(self, *, seed=None, options=None):
        self.episode, self.steps = self.episode + 1, 0
        return self._seen(), {"achievements": {"steps": 0}, "of": self.steps}

    def step(self, action):
        self.steps += 1
        over = self.steps == self.length
        info = {"steps": self.steps} | ({"acted": int(action)} if over else {})
        others = (
            {"of": np.zeros(self.steps)} if self.length == 1 else {}
        )  # which cannot be merged, and is not
        return (
            self._seen(),
            float(self.steps),
            over and self.dies,
            over and not self.dies,
            {"achievements": info} | others,
        )

    def _seen(self):
        return np.array([self.episode, self.steps], np.uint8)


MAKERS = [
    lambda n=n, dies=dies: Counting(n, dies)
    for n, dies in ((1, True), (2, False), (5, True), (9, False))
]


@pytest.mark.parametrize("vector", [SyncVectorEnv, AsyncVectorEnv])
def test_both_modes_show_the_same(vector):
    """But for the episode's number: one that resets at once plays some that nobody sees."""
    ours = next_step(vector(MAKERS, autoreset_mode=AutoresetMode.SAME_STEP))
    plain = SyncVectorEnv(MAKERS, autoreset_mode=AutoresetMode.NEXT_STEP)
    assert ours.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP and next_step(plain) is plain
    try:
        (seen, infos), (expected, expected_infos) = ours.reset(), plain.reset()
        episodes, ends = seen[:, 0].tolist(), 0
        for t in range(60):
            assert np.array_equal(seen[:, 1], expected[:, 1])
            infos, expected_infos = infos["achievements"], expected_infos["achievements"]
            assert (
                infos["steps"].tolist() == expected_infos["steps"].tolist() == seen[:, 1].tolist()
            )
            action = np.full(4, t % 9)
            before = seen
            seen, rewards, terminated, truncated, infos = ours.step(action)
            expected, *rest, expected_infos = plain.step(action)
            for value, other in zip((rewards, terminated, truncated), rest, strict=True):
                assert np.array_equal(value, other)
            over = terminated | truncated
            told = infos["achievements"]
            assert told.get("_acted", np.zeros(4, bool)).tolist() == over.tolist()
            assert all(told["acted"][over] == t % 9)
            # An episode's last frame is its own.
            moved = seen[:, 1] > before[:, 1]
            assert np.array_equal(seen[moved, 0], before[moved, 0])
            ends += int(over.sum())
        assert ends == sum(60 // (n + 1) + (60 % (n + 1) == n) for n in (1, 2, 5, 9))
        assert episodes == [1] * 4
    finally:
        ours.close()
        plain.close()


def test_one_that_does_not_reset_itself():
    with pytest.raises(BadInput, match="NEXT_STEP and SAME_STEP are accepted"):
        next_step(SyncVectorEnv(MAKERS, autoreset_mode=AutoresetMode.DISABLED))
