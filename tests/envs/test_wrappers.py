import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import BadInput
from envs.games.catch import CatchEnv
from envs.games.crafter import CrafterEnv
from envs.vector import Environments
from envs.wrappers import SeededEpisodes, episode_seed


def test_gymnasium_accepts_it():
    check_env(SeededEpisodes(CatchEnv, 0), skip_render_check=True)


def test_episode_seeds_stay_what_they_are():
    """A run that was stored finds its worlds again in later versions."""
    seeds = [episode_seed(0, 0), episode_seed(0, 1), episode_seed(7, 0)]
    assert seeds == [3757552657, 673228719, 1201125462]


def test_episodes_depend_on_seed_and_number_alone():
    env = SeededEpisodes(CrafterEnv, 5)
    assert env.episode == -1
    worlds = [env.reset()[0] for _ in range(3)]
    assert env.episode == 2
    # However long the episodes before were.
    played = SeededEpisodes(CrafterEnv, 5)
    for world in worlds:
        np.testing.assert_array_equal(played.reset()[0], world)
        for _ in range(7):
            played.step(played.action_space.sample())
    assert not np.array_equal(worlds[0], worlds[1])
    assert not np.array_equal(worlds[0], SeededEpisodes(CrafterEnv, 6).reset()[0])
    # However it was to go on, a seed starts over.
    played.resume_from = (9, 9, [0])
    np.testing.assert_array_equal(played.reset(seed=5)[0], worlds[0])
    assert (played.seed, played.episode, played.resume_from) == (5, 0, None)


def test_a_negative_seed_is_refused():
    with pytest.raises(BadInput, match="-1"):
        SeededEpisodes(CatchEnv, -1)


def test_resumed_in_the_middle():
    """The uninterrupted run and the resumed one see the same, into the next episode."""
    whole, resumed = (SeededEpisodes(lambda: CrafterEnv(length=60), 1) for _ in "ab")
    for _ in range(3):  # interrupted in episode 2
        whole.reset()
    actions = np.random.default_rng(0).integers(17, size=80).tolist()
    for action in actions[:40]:
        observation, *_, info = whole.step(action)
    resumed.resume_from = (2, 2, actions[:40])
    again, info_again = resumed.reset()
    np.testing.assert_array_equal(observation, again)
    assert info == info_again
    assert (resumed.position, resumed.resume_from) == (whole.position, None)
    for action in actions[40:]:  # the step after an episode's end is a reset
        step, step_again = whole.step(action), resumed.step(action)
        np.testing.assert_array_equal(step[0], step_again[0])
        assert step[1:] == step_again[1:]
    assert resumed.episode == 3


def test_a_replay_stops_where_the_episode_ends():
    """An environment that its seed does not decide may end before the actions do."""
    env = SeededEpisodes(CatchEnv, 0)
    env.resume_from = (4, 4, [1] * 12)
    env.reset()
    assert env.position == (4, 4, [1] * 9)
    env.reset()
    assert env.position == (5, 5, [])


class Lives(gymnasium.Env):
    """Three lives of one to four steps, drawn by the seed; frames show game, life and step."""

    observation_space = gymnasium.spaces.Box(0, 255, (3,), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None or self.lives == 0:
            self.lives, self.of = 3, self.np_random.integers(256)
        self.left, self.acted = self.np_random.integers(1, 5), 0
        return self._frame(), {}

    def step(self, action):
        self.left, self.acted = self.left - 1, 2 * self.acted + action
        over = bool(self.left == 0)
        self.lives -= over
        return self._frame(), 1.0, over, False, {"game_continues": over and self.lives > 0}

    def _frame(self):
        return np.array([self.of, self.lives, self.acted % 256], np.uint8)


def test_a_game_goes_on_over_several_episodes():
    """Only its first episode is seeded; the position holds all of its actions."""
    env = SeededEpisodes(Lives, 3)
    began = []
    for _ in range(9):
        env.reset()
        began.append((env.position[0], int(env.env.of)))
        while not env.step(1)[2]:
            pass
    games = [game for game, _ in began]
    assert games == [0, 0, 0, 3, 3, 3, 6, 6, 6]
    assert len(set(began)) == 3 and len({of for _, of in began}) == 3
    later = SeededEpisodes(Lives, 3)
    later.resume_from = (3, 3, [])
    later.reset()
    assert later.env.of == began[3][1]


@settings(deadline=None, max_examples=50)
@given(steps=st.integers(0, 40), seed=st.integers(0, 2**40))
def test_a_game_of_several_episodes_comes_back_from_any_step(steps: int, seed: int):
    """After the step that ends a life, after the reset that follows, and everywhere between."""
    actions = np.random.default_rng(seed).integers(2, size=80).tolist()
    whole, resumed = (Environments([SeededEpisodes(Lives, seed)]) for _ in "ab")
    seen = whole.reset()[0]
    for action in actions[:steps]:
        seen = whole.step(np.array([action]))[0]
    resumed.set_attr("resume_from", whole.get_attr("position"))
    np.testing.assert_array_equal(resumed.reset()[0], seen)
    assert resumed.get_attr("position") == whole.get_attr("position")
    for action in actions[steps:]:
        step, again = whole.step(np.array([action])), resumed.step(np.array([action]))
        for value, value_again in zip(step[:4], again[:4], strict=True):
            np.testing.assert_array_equal(value, value_again)
