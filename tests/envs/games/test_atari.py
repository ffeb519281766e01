import functools
import subprocess
import sys

import ale_py
import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.seeding import np_random
from PIL import Image

from envs.errors import BadInput
from envs.games.atari import AtariEnv, games
from envs.scores import RANDOM_AND_HUMAN

BREAKOUT = {"game": "Breakout", "noops": 1}
UNLIMITED = {**BREAKOUT, "end_on_life_loss": False}

# Plays random actions through lost lives and ends; prints a digest of all that is seen.
PLAY = """
import hashlib, gymnasium, numpy as np
def play(env, steps=200):
    actions, seen = np.random.default_rng(0), [env.reset(seed=3)]
    for _ in range(steps):
        seen.append(env.step(actions.integers(env.action_space.n)))
        if seen[-1][2] or seen[-1][3]:
            seen.append(env.reset())
    assert len(seen) >= steps + 4
    return hashlib.sha256(b"".join(s[0].tobytes() + repr(s[1:]).encode() for s in seen)).hexdigest()
if __name__ == "__main__":
    game = {"game": "Breakout", "max_frames": 600, "sticky_actions": 0.25}
    print(play(gymnasium.make("envs:deltadream/Atari-v0", **game)))
"""


def load(game: str, sticky: float = 0.0, seed: int = 0) -> ale_py.ALEInterface:
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", sticky)
    ale.setInt("random_seed", seed)
    ale.loadROM(ale_py.roms.get_rom_path(games()[game]))
    return ale


class ByHand:
    """The game frame by frame; every raw screen is kept."""

    def __init__(self, ale: ale_py.ALEInterface, noops: int = 1, size: int = 64):
        self.ale, self.size = ale, size
        self.start(noops)

    def start(self, noops: int) -> None:
        self.ale.reset_game()
        self.screens, self.over = [self.ale.getScreenRGB()], False
        self.act(0, noops)

    def act(self, action: int, times: int) -> int:
        """Returns how many frames were played before the game was over; `reward` is their sum."""
        self.reward = 0.0
        for played in range(times):
            if self.over:
                return played
            self.reward += self.ale.act(action)
            self.screens.append(self.ale.getScreenRGB())
            self.over = self.ale.game_over()
        return times

    def picture(self, frame: int = -1) -> np.ndarray:
        """One frame, resized."""
        size = self.size, self.size
        return np.array(Image.fromarray(self.screens[frame]).resize(size, Image.BILINEAR))

    def observation(self, played: int = 4) -> np.ndarray:
        """What is seen after a step of so many frames."""
        return self.picture() if played == 1 else np.maximum(self.picture(-2), self.picture())

    def info(self, game_continues: bool = False) -> dict:
        return {
            "lives": self.ale.lives(),
            "frames": self.ale.getEpisodeFrameNumber(),
            "game_continues": game_continues,
        }


@functools.cache
def until(what: str, **arguments) -> tuple[list[int], tuple]:
    """Random actions until a life is lost, or the game is over -> the actions, the last step."""
    env, actions, random = AtariEnv(**arguments), [], np.random.default_rng(0)
    lives = env.reset(seed=0)[1]["lives"]
    for _ in range(3000):
        actions.append(int(random.integers(env.action_space.n)))
        step = env.step(actions[-1])
        if step[2] if what == "over" else 0 < step[4]["lives"] < lives:
            return actions, step
        lives = step[4]["lives"]
    raise AssertionError("it did not come")


def again(actions: list[int], **arguments) -> tuple[AtariEnv, tuple]:
    """The same actions in another environment, none but the last of which may end the episode."""
    env = AtariEnv(**arguments)
    env.reset(seed=0)
    for action in actions[:-1]:
        assert env.step(action)[2:4] == (False, False)
    return env, env.step(actions[-1])


def test_gymnasium_accepts_it(recwarn):
    env = gymnasium.make("envs:deltadream/Atari-v0", game="Breakout", render_mode="rgb_array")
    check_env(env.unwrapped)
    assert not recwarn.list


@pytest.mark.parametrize("game", RANDOM_AND_HUMAN)
def test_every_game(game: str):
    """Those of the benchmark, to a small limit."""
    hand = ByHand(load(game))
    env = AtariEnv(game=game, noops=1, max_frames=20, end_on_life_loss=False)
    assert env.action_space.n == len(hand.ale.getMinimalActionSet())
    observation, info = env.reset(seed=0)
    np.testing.assert_array_equal(observation, hand.picture())
    assert info == hand.info() and info["frames"] == 1
    ends = [env.step(step % env.action_space.n)[2:4] for step in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]


@pytest.mark.parametrize(
    "game, arguments, loses_lives",
    [
        ("Breakout", {}, True),
        ("Seaquest", {"full_action_space": True}, True),
        ("MsPacman", {"end_on_life_loss": False, "frame_skip": 3}, False),
        ("Breakout", {"frame_skip": 1, "size": 48}, True),
    ],
    ids=str,
)
def test_a_game_stepped_by_hand(game: str, arguments: dict, loses_lives: bool):
    """Pixels, rewards, lives, frames and ends; after a lost life the game goes on."""
    env = AtariEnv(game=game, **arguments)
    frame_skip = env.frame_skip
    observation, info = env.reset(seed=2)
    hand = ByHand(load(game), info["frames"], env.size)
    full = arguments.get("full_action_space", False)
    actions = hand.ale.getLegalActionSet() if full else hand.ale.getMinimalActionSet()
    assert env.action_space.n == len(actions)
    np.testing.assert_array_equal(observation, hand.picture())
    random, rewards, lives_lost, differ = np.random.default_rng(0), 0.0, 0, 0
    for _ in range(700 // frame_skip):
        action, lives = random.integers(env.action_space.n), hand.ale.lives()
        observation, reward, terminated, truncated, info = env.step(action)
        played = hand.act(actions[action], frame_skip)
        lost = env.end_on_life_loss and 0 < hand.ale.lives() < lives
        np.testing.assert_array_equal(observation, hand.observation(played))
        assert (reward, terminated, truncated) == (hand.reward, hand.over or lost, False)
        assert info == hand.info(game_continues=lost)
        rewards, lives_lost = rewards + abs(reward), lives_lost + lost
        differ += not np.array_equal(observation, hand.picture())
        if terminated:
            observation, info = env.reset()
            if lost:
                hand.act(0, frame_skip)
                np.testing.assert_array_equal(observation, hand.observation(frame_skip))
            else:
                hand.start(info["frames"])
                np.testing.assert_array_equal(observation, hand.picture())
            assert info == hand.info()
    assert rewards > 0
    assert (lives_lost > 0) == loses_lives
    assert (differ > 0) == (frame_skip > 1)


def test_the_end_within_a_step():
    """The last two frames that were played are seen, and nothing is played after them."""
    actions, (seen, *_) = until("over", **UNLIMITED, frame_skip=30)
    env, (observation, reward, terminated, truncated, info) = again(
        actions, **UNLIMITED, frame_skip=30
    )
    assert (terminated, truncated) == (True, False)
    hand = ByHand(load("Breakout"))
    minimal = hand.ale.getMinimalActionSet()
    played = [hand.act(minimal[action], 30) for action in actions]
    assert played[:-1] == [30] * (len(actions) - 1) and 2 < played[-1] < 29
    np.testing.assert_array_equal(observation, hand.observation())
    np.testing.assert_array_equal(observation, seen)
    assert (reward, info["frames"]) == (hand.reward, 1 + sum(played))
    late = env.step(0)
    np.testing.assert_array_equal(late[0], observation)
    assert late[1:] == (0.0, True, False, info)
    # A game that is over at its last frame is terminated; one frame before that it is truncated.
    frames = info["frames"]
    for limit, end in ((frames, (True, False)), (frames - 1, (False, True))):
        _, last = again(actions, **UNLIMITED, frame_skip=30, max_frames=limit)
        assert last[2:4] == end and last[4]["frames"] == limit


def test_the_number_of_noops():
    env = AtariEnv(game="Pong", noops=5)
    env.reset(seed=0)
    assert {env.reset()[1]["frames"] for _ in range(40)} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_the_limit_truncates_within_a_step(frames: int):
    env = AtariEnv(game="Freeway", noops=1, max_frames=41 + frames)
    env.reset()
    hand = ByHand(load("Freeway"))
    for _ in range(10):
        assert env.step(0)[2:4] == (False, False)
    observation, _, terminated, truncated, info = env.step(0)
    hand.act(0, 40 + frames)
    np.testing.assert_array_equal(observation, hand.observation(frames))
    assert not np.array_equal(hand.picture(-2), hand.picture())  # cars drive
    assert (terminated, truncated) == (False, True)
    assert info == {"lives": 0, "frames": 41 + frames, "game_continues": False}
    assert env.reset()[1]["frames"] == 1


def test_a_lost_life_at_the_limit():
    """Both ends at once: the game cannot go on.

    Nor can it if the no-op after a lost life reaches the limit.
    """
    actions, (_, _, terminated, truncated, info) = until("life", **BREAKOUT)
    frames = info["frames"]
    assert (terminated, truncated, info["game_continues"]) == (True, False, True)
    for limit, continues, lives, next_frames in (
        (frames, False, 5, 1),
        (frames + 4, True, 5, 1),
        (frames + 5, True, 4, frames + 4),
    ):
        env, (*_, terminated, truncated, info) = again(actions, **BREAKOUT, max_frames=limit)
        assert (terminated, truncated) == (True, not continues)
        assert info == {"lives": 4, "frames": frames, "game_continues": continues}
        assert env.reset()[1] == {"lives": lives, "frames": next_frames, "game_continues": False}
        assert env.step(0)[2] is False


def test_when_a_game_goes_on():
    """Only at a reset without seed, right after a lost life."""
    actions, (*_, info) = until("life", **BREAKOUT)
    env, _ = again(actions, **BREAKOUT)
    assert env.reset(seed=0)[1] == {"lives": 5, "frames": 1, "game_continues": False}
    env, _ = again(actions, **BREAKOUT)
    assert env.reset()[1]["frames"] == info["frames"] + 4
    assert env.reset()[1]["frames"] == 1  # before an end
    env, _ = again(actions, **BREAKOUT)
    env.step(0)
    assert env.reset()[1]["frames"] == 1  # no longer at the end


def test_sticky_actions_are_ales():
    """The seed is the generator's first number, and holds for the games that follow."""
    env = AtariEnv(**UNLIMITED, sticky_actions=0.3)
    hand = ByHand(load("Breakout", sticky=0.3, seed=int(np_random(5)[0].integers(2**31))))
    minimal, actions = hand.ale.getMinimalActionSet(), np.random.default_rng(0)
    observation, _ = env.reset(seed=5)
    for _ in range(2):
        np.testing.assert_array_equal(observation, hand.picture())
        for _ in range(30):
            action = actions.integers(4)
            hand.act(minimal[action], 4)
            np.testing.assert_array_equal(env.step(action)[0], hand.observation())
        observation, _ = env.reset()
        hand.start(noops=1)


def test_later_games_start_as_ale_starts_them():
    """Assault begins otherwise each time; after a seed it is the first again."""
    env, hand, starts = AtariEnv(game="Assault", noops=1), ByHand(load("Assault")), set()
    first, _ = env.reset(seed=0)
    observation = first
    for _ in range(3):
        np.testing.assert_array_equal(observation, hand.picture())
        starts.add(observation.tobytes())
        observation, _ = env.reset()
        hand.start(noops=1)
    assert len(starts) > 1
    np.testing.assert_array_equal(env.reset(seed=1)[0], first)


def test_a_seed_decides_everything_in_every_process(tmp_path):
    """Here after another game, and beside another environment; there in a fresh process."""
    module = {"__name__": "play"}
    exec(PLAY, module)
    (tmp_path / "play.py").write_text(PLAY)
    there = subprocess.check_output([sys.executable, "play.py"], cwd=tmp_path, text=True)
    env = AtariEnv(game="Breakout", max_frames=600, sticky_actions=0.25)
    neighbour, step = AtariEnv(game="Pong", sticky_actions=0.5), env.step
    until("life", **BREAKOUT)
    neighbour.reset(seed=1)

    def step_both(action):
        neighbour.step(0)
        return step(action)

    env.step = step_both
    assert there.strip() == module["play"](env)


def test_the_raw_screen():
    env = AtariEnv(**BREAKOUT, render_mode="rgb_array")
    env.reset()
    env.step(1)
    ale = load("Breakout")
    for action in (0, 1, 1, 1, 1):
        ale.act(action)
    np.testing.assert_array_equal(env.render(), ale.getScreenRGB())
    assert env.render().shape == (210, 160, 3) and env.metadata["render_fps"] == 15
    assert AtariEnv(**BREAKOUT).render() is None


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"game": None}, "game=None.*env.game=Breakout"),
        ({"game": "Brekout"}, "game='Brekout'.*env.game=Breakout"),
        ({"game": "ms_pacman"}, "game='ms_pacman'.*env.game=MsPacman"),
        ({"game": "Combat"}, "game='Combat'.*give the name of a game"),  # for two
        ({"noops": 0}, ".*noops=0.*from 1 on"),
        ({"sticky_actions": 1.0}, ".*sticky_actions=1.0; .*probability"),
    ],
    ids=str,
)
def test_bad_input(arguments: dict, words: str):
    with pytest.raises(BadInput, match=f"^Atari was given {words}"):
        AtariEnv(**{"game": "Breakout", **arguments})
