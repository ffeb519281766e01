import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import ale_py
import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.seeding import np_random
from PIL import Image

from envs.config import EnvConfig
from envs.errors import BadInput
from envs.games.atari import ATARI_100K, AtariEnv
from envs.scores import RANDOM_AND_HUMAN
from envs.vector import make_vector

BREAKOUT = {"game": "Breakout", "noops": 1}
UNLIMITED = {**BREAKOUT, "end_on_life_loss": False}

# Plays random actions through lost lives and ends; prints a digest of all that is seen and the
# number of ends.
PLAY = """
import hashlib, sys
import gymnasium, numpy as np
def play(env, steps=250):
    actions = np.random.default_rng(0)
    observation, info = env.reset(seed=3)
    digest, ends = hashlib.sha256(observation.tobytes() + repr(info).encode()), 0
    for _ in range(steps):
        observation, *rest = env.step(actions.integers(env.action_space.n))
        digest.update(observation.tobytes() + repr(rest).encode())
        if rest[1] or rest[2]:
            observation, info = env.reset()
            digest.update(observation.tobytes() + repr(info).encode())
            ends += 1
    return digest.hexdigest(), ends
if __name__ == "__main__":
    for stick in (0.0, 0.25):
        game = {"game": "Breakout", "max_frames": 900, "sticky_actions": stick}
        env = gymnasium.make("envs:deltadream/Atari-v0", **game)
        print(*play(env))
"""


def rom(game: str) -> Path:
    """`MsPacman` -> `.../ms_pacman.bin`."""
    snake = "".join("_" + letter.lower() if letter.isupper() else letter for letter in game).strip(
        "_"
    )
    return Path(ale_py.__file__).parent / "roms" / f"{snake}.bin"


def load(game: str, sticky: float = 0.0, seed: int = 0) -> ale_py.ALEInterface:
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", sticky)
    ale.setInt("random_seed", seed)
    ale.loadROM(rom(game))
    return ale


class ByHand:
    """The game frame by frame; every raw screen is kept."""

    def __init__(
        self, ale: ale_py.ALEInterface, noops: int, size: int = 64, grayscale: bool = False
    ):
        self.ale, self.size, self.grayscale = ale, size, grayscale
        self.start(noops)

    def start(self, noops: int) -> None:
        self.ale.reset_game()
        self.screens, self.over = [self.screen()], False
        self.act(0, noops)

    def act(self, action: int, times: int) -> int:
        """Returns how many frames were played before the game was over; `reward` is their sum."""
        self.reward = 0.0
        for played in range(times):
            if self.over:
                return played
            self.reward += self.ale.act(action)
            self.screens.append(self.screen())
            self.over = self.ale.game_over()
        return times

    def screen(self) -> np.ndarray:
        return self.ale.getScreenGrayscale() if self.grayscale else self.ale.getScreenRGB()

    def picture(self, frame: int = -1) -> np.ndarray:
        """One frame, resized."""
        picture = np.array(
            Image.fromarray(self.screens[frame]).resize((self.size, self.size), Image.BILINEAR)
        )
        return np.stack([picture] * 3, axis=2) if self.grayscale else picture

    def observation(self, played: int = 4) -> np.ndarray:
        """What is seen after a step of so many frames."""
        return self.picture() if played == 1 else np.maximum(self.picture(-2), self.picture())

    def info(self, game_continues: bool = False) -> dict:
        return {
            "lives": self.ale.lives(),
            "frames": self.ale.getEpisodeFrameNumber(),
            "game_continues": game_continues,
        }


def until(env: AtariEnv, end, seed: int = 0, steps: int = 3000) -> tuple[list[int], tuple]:
    """Random actions until `end(lives before, the step)` -> the actions, and the last step."""
    actions, random = [], np.random.default_rng(0)
    lives = env.reset(seed=seed)[1]["lives"]
    for _ in range(steps):
        actions.append(int(random.integers(env.action_space.n)))
        step = env.step(actions[-1])
        if end(lives, step):
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


def loses_a_life(lives: int, step: tuple) -> bool:
    return 0 < step[4]["lives"] < lives


def is_over(lives: int, step: tuple) -> bool:
    return step[2]


def test_gymnasium_accepts_it(recwarn):
    check_env(
        gymnasium.make(
            "envs:deltadream/Atari-v0", game="Breakout", render_mode="rgb_array"
        ).unwrapped
    )
    assert not recwarn.list


def test_the_benchmark_has_26_games():
    assert len(ATARI_100K) == 26
    assert list(ATARI_100K) == sorted(RANDOM_AND_HUMAN)


@pytest.mark.parametrize("game", ATARI_100K)
def test_every_game(game: str):
    """Step to a small limit and reset; after a seed the same game comes, pixel for pixel."""
    hand = ByHand(load(game), noops=1)
    env = AtariEnv(game=game, noops=1, max_frames=60, end_on_life_loss=False)
    assert env.action_space.n == len(hand.ale.getMinimalActionSet())
    games = []
    for _ in range(2):
        observation, info = env.reset(seed=0)
        np.testing.assert_array_equal(observation, hand.picture())
        assert info == hand.info() and info["frames"] == 1
        seen, ends = [observation], []
        for step in range(15):
            observation, _, *end, info = env.step(step % env.action_space.n)
            seen.append(observation)
            ends.append(tuple(end))
        assert ends == [(False, False)] * 14 + [(False, True)]
        assert info["frames"] == 60
        games.append(seen)
    np.testing.assert_array_equal(*games)
    assert np.std(games[0]) > 5


@pytest.mark.parametrize(
    "game, arguments, loses_lives",
    [
        ("Breakout", {}, True),
        ("Pong", {}, False),
        ("MsPacman", {}, True),
        ("Seaquest", {}, True),
        ("Qbert", {}, True),
        ("Seaquest", {"grayscale": True, "full_action_space": True}, True),
        (
            "MsPacman",
            {"end_on_life_loss": False, "frame_skip": 3, "full_action_space": True},
            False,
        ),
        ("Breakout", {"frame_skip": 1, "size": 48}, True),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else str(value),
)
def test_a_game_stepped_by_hand(game: str, arguments: dict, loses_lives: bool):
    """Pixels, rewards, lives, frames and ends; after a lost life the game goes on."""
    env = AtariEnv(game=game, **arguments)
    frame_skip = arguments.get("frame_skip", 4)
    observation, info = env.reset(seed=2)
    hand = ByHand(
        load(game), info["frames"], arguments.get("size", 64), arguments.get("grayscale", False)
    )
    full = arguments.get("full_action_space", False)
    actions = hand.ale.getLegalActionSet() if full else hand.ale.getMinimalActionSet()
    assert env.action_space.n == len(actions)
    np.testing.assert_array_equal(observation, hand.picture())
    random, rewards, lives_lost, differ = np.random.default_rng(0), 0.0, 0, 0
    for _ in range(1000 // frame_skip):
        action, lives = random.integers(env.action_space.n), hand.ale.lives()
        observation, reward, terminated, truncated, info = env.step(action)
        played = hand.act(actions[action], frame_skip)
        lost = env.end_on_life_loss and 0 < hand.ale.lives() < lives
        np.testing.assert_array_equal(observation, hand.observation(played))
        assert (observation.shape, observation.dtype) == (env.observation_space.shape, np.uint8)
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
    env = AtariEnv(**UNLIMITED, frame_skip=30)
    actions, (observation, reward, terminated, truncated, info) = until(env, is_over)
    assert (terminated, truncated) == (True, False)
    hand = ByHand(load("Breakout"), noops=1)
    minimal = hand.ale.getMinimalActionSet()
    played = [hand.act(minimal[action], 30) for action in actions]
    assert played[:-1] == [30] * (len(actions) - 1) and 2 < played[-1] < 29
    np.testing.assert_array_equal(observation, hand.observation())
    assert (reward, info["frames"]) == (hand.reward, 1 + sum(played))
    late = env.step(0)
    np.testing.assert_array_equal(late[0], observation)
    assert late[1:] == (0.0, True, False, info)


@pytest.mark.parametrize("most", [1, 5, 30])
def test_the_number_of_noops(most: int):
    env = AtariEnv(game="Pong", noops=most)
    env.reset(seed=0)
    counts = np.bincount([env.reset()[1]["frames"] for _ in range(100)], minlength=most + 1)
    assert len(counts) == most + 1 and counts[0] == 0
    assert (counts[1:] > 0).sum() >= 0.9 * most
    assert counts.max() < 3 * 100 / most + 1


def test_a_game_that_ends_during_its_noops_starts_again():
    env, hand = AtariEnv(game="Pong", noops=30, max_frames=10), ByHand(load("Pong"), noops=9)
    env.reset(seed=0)
    seen = set()
    for _ in range(60):
        observation, info = env.reset()
        np.testing.assert_array_equal(observation, hand.picture(info["frames"]))
        seen.add(info["frames"])
    assert seen == set(
        range(10)
    )  # the 10th frame ends the game, as does the 20th, and 0 is the next one's start


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_the_limit_truncates_within_a_step(frames: int):
    env = AtariEnv(game="Freeway", noops=1, max_frames=41 + frames)
    env.reset()
    hand = ByHand(load("Freeway"), noops=1)
    for _ in range(10):
        assert env.step(0)[2:4] == (False, False)
    observation, _, terminated, truncated, info = env.step(0)
    hand.act(0, 40 + frames)
    np.testing.assert_array_equal(observation, hand.observation(frames))
    assert not np.array_equal(hand.picture(-2), hand.picture())  # cars drive
    assert (terminated, truncated) == (False, True)
    assert info == {"lives": 0, "frames": 41 + frames, "game_continues": False}
    assert env.reset()[1]["frames"] == 1
    assert env.step(0)[2:4] == (False, False)


def test_the_limit_counts_the_whole_game():
    env, random = AtariEnv(**BREAKOUT, max_frames=700), np.random.default_rng(0)
    _, info = env.reset(seed=0)
    truncated, lives_lost = False, 0
    while not truncated:
        frames = info["frames"]
        _, _, terminated, truncated, info = env.step(random.integers(4))
        assert info["frames"] == min(frames + 4, 700)
        if terminated and not truncated:
            frames, lives_lost = info["frames"], lives_lost + 1
            _, info = env.reset()
            assert info["frames"] == frames + 4
    assert info["frames"] == 700 and lives_lost >= 2
    assert env.reset()[1] == {"lives": 5, "frames": 1, "game_continues": False}


def test_the_end_at_the_limit():
    """A game that is over at its last frame is terminated; a frame before it is truncated."""
    actions, step = until(AtariEnv(**UNLIMITED), is_over)
    frames = step[4]["frames"]
    before = actions[: (frames - 3) // 4 + 1]  # the first frame is a no-op; of the rest, one fewer
    for limit, played, end in (
        (frames + 1, actions, (True, False)),
        (frames, actions, (True, False)),
        (frames - 1, before, (False, True)),
    ):
        _, last = again(played, **UNLIMITED, max_frames=limit)
        assert last[2:4] == end
        assert last[4]["frames"] == min(limit, frames)


def test_a_lost_life_at_the_limit():
    """Both ends at once: the game cannot go on.

    Nor can it if the no-op after a lost life reaches the limit.
    """
    actions, (_, _, terminated, truncated, info) = until(AtariEnv(**BREAKOUT), loses_a_life)
    frames = info["frames"]
    assert (terminated, truncated, info["game_continues"]) == (True, False, True)
    for limit, continues, next_frames in (
        (frames, False, 1),
        (frames + 1, True, 1),
        (frames + 4, True, 1),
        (frames + 5, True, frames + 4),
    ):
        env, (_, _, terminated, truncated, info) = again(actions, **BREAKOUT, max_frames=limit)
        assert (terminated, truncated) == (True, not continues)
        assert info == {"lives": 4, "frames": frames, "game_continues": continues}
        lives = 4 if next_frames > 1 else 5
        assert env.reset()[1] == {"lives": lives, "frames": next_frames, "game_continues": False}
        assert env.step(0)[2] is False


def test_when_a_game_goes_on():
    """Only at a reset without seed, right after a lost life."""
    env = AtariEnv(**BREAKOUT)
    actions, _ = until(env, loses_a_life)
    assert env.reset(seed=0)[1] == {"lives": 5, "frames": 1, "game_continues": False}
    for action in actions:
        *_, info = env.step(action)
    assert info["game_continues"]
    assert env.reset()[1]["frames"] == info["frames"] + 4
    assert env.reset()[1]["frames"] == 1  # before an end
    for action in actions:
        env.step(action)
    env.step(0)
    assert env.reset()[1]["frames"] == 1  # no longer at the end


def test_a_game_that_ends_while_nothing_is_done():
    """In RoadRunner the next life can be lost within a second of the last.

    The reset after a lost life then finds the game over.
    """
    env, random = AtariEnv(game="RoadRunner", noops=1, frame_skip=60), np.random.default_rng(0)
    _, first = env.reset(seed=0)
    new_games = 0
    for _ in range(100):
        *_, terminated, _, ended = env.step(random.integers(18))
        if terminated:
            _, info = env.reset()
            went_on = {"frames": ended["frames"] + 60, "lives": min(info["lives"], ended["lives"])}
            assert info == {**first, **went_on} or info == first
            new_games += ended["game_continues"] and info == first
    assert new_games > 0


def test_the_last_life_ends_nothing_before_its_game_does():
    """In BankHeist the lives are 0 while the last one is played."""
    env, random = AtariEnv(game="BankHeist", noops=1, frame_skip=20), np.random.default_rng(0)
    lives = [env.reset(seed=0)[1]["lives"]]
    while lives[-1] > 0:
        *_, terminated, truncated, info = env.step(random.integers(18))
        lives.append(info["lives"])
        assert (terminated, truncated) == (0 < lives[-1] < lives[-2], False)
        if terminated:
            env.reset()
    assert lives[-2] == 1


def test_lives_do_not_matter_if_they_are_not_to():
    env = AtariEnv(**UNLIMITED)
    _, step = until(env, loses_a_life)
    assert step[2:] == (
        False,
        False,
        {"lives": 4, "frames": step[4]["frames"], "game_continues": False},
    )
    assert env.reset()[1]["frames"] == 1


def test_sticky_actions_are_ales():
    """The seed is the generator's first number, and holds for the games that follow."""
    env = AtariEnv(**UNLIMITED, sticky_actions=0.3)
    hand = ByHand(load("Breakout", sticky=0.3, seed=int(np_random(5)[0].integers(2**31))), noops=1)
    minimal, actions = hand.ale.getMinimalActionSet(), np.random.default_rng(0)
    observation, _ = env.reset(seed=5)
    for _ in range(2):
        np.testing.assert_array_equal(observation, hand.picture())
        for _ in range(50):
            action = actions.integers(4)
            hand.act(minimal[action], 4)
            np.testing.assert_array_equal(env.step(action)[0], hand.observation())
        observation, _ = env.reset()
        hand.start(noops=1)


def test_later_games_start_as_ale_starts_them():
    """Assault begins otherwise each time; after a seed it is the first again."""
    env, hand, starts = AtariEnv(game="Assault", noops=1), ByHand(load("Assault"), noops=1), set()
    observation, _ = env.reset(seed=0)
    for _ in range(4):
        np.testing.assert_array_equal(observation, hand.picture())
        starts.add(observation.tobytes())
        observation, _ = env.reset()
        hand.start(noops=1)
    assert len(starts) > 1
    np.testing.assert_array_equal(env.reset(seed=1)[0], ByHand(load("Assault"), noops=1).picture())


@pytest.mark.parametrize("stick", [0.0, 0.25])
def test_seeds_and_sticky_actions(stick: float):
    """Without them, and with one no-op, all games are the same; with them each seed has its own."""

    def play(env: AtariEnv, seed: int | None) -> str:
        digest = hashlib.sha256(env.reset(seed=seed)[0].tobytes())
        for step in range(30):
            digest.update(env.step(step // 3 % 4)[0].tobytes())
        return digest.hexdigest()

    env = AtariEnv(**UNLIMITED, sticky_actions=stick)
    games = [play(env, seed) for seed in (0, 1, None, 0, None)]
    other = AtariEnv(**UNLIMITED, sticky_actions=stick)
    assert games[3:] == [play(other, 0), play(other, None)]
    assert games[0] == games[3]
    assert len(set(games)) == (4 if stick else 1)


def test_a_seed_decides_everything_in_every_process(tmp_path):
    """Here after another game, and beside another environment; there in a fresh process."""
    module = {"__name__": "play"}
    exec(PLAY, module)
    (tmp_path / "play.py").write_text(PLAY)
    process = subprocess.Popen(
        [sys.executable, "play.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    here = []
    for stick in (0.0, 0.25):
        env = AtariEnv(game="Breakout", max_frames=900, sticky_actions=stick)
        neighbour = AtariEnv(game="Pong", sticky_actions=0.5)
        until(env, loses_a_life, seed=7)
        neighbour.reset(seed=1)

        def step_both(action, neighbour=neighbour, step=env.step):
            neighbour.step(0)
            return step(action)

        env.step = step_both
        here.append(module["play"](env))
    there = [tuple(line.split()) for line in process.communicate()[0].splitlines()]
    assert there == [(digest, str(ends)) for digest, ends in here]
    assert all(ends >= 4 for _, ends in here)
    assert here[0] != here[1]


@pytest.mark.parametrize("parallel", [False, True])
def test_through_a_vector_environment(parallel: bool):
    config = EnvConfig(
        id="deltadream/Atari-v0",
        kwargs={**BREAKOUT, "size": 32, "max_frames": 500},
        parallel=parallel,
    )
    env = make_vector(config, [0, 1])
    try:
        assert env.single_action_space.nvec == [4]
        observations, infos = env.reset()
        assert (observations.shape, observations.dtype) == ((2, 32, 32, 3), np.uint8)
        assert set(infos) == {"game_continues", "_game_continues"}
        hand = ByHand(load("Breakout"), noops=1, size=32)
        minimal, terminated = hand.ale.getMinimalActionSet(), np.array([False, False])
        step = 0
        while not terminated[0]:  # until a life is lost
            observations, rewards, terminated, truncated, infos = env.step(np.array([step % 4, 0]))
            hand.act(minimal[step % 4], 4)
            np.testing.assert_array_equal(observations[0], hand.observation())
            assert rewards[0] == hand.reward
            assert infos["game_continues"].tolist() == terminated.tolist() == [terminated[0], False]
            assert not truncated.any()
            step += 1
    finally:
        env.close()


def test_the_raw_screen():
    env = AtariEnv(**BREAKOUT, render_mode="rgb_array", grayscale=True)
    env.reset()
    env.step(1)
    ale = load("Breakout")
    for action in (0, 1, 1, 1, 1):
        ale.act(action)
    np.testing.assert_array_equal(env.render(), ale.getScreenRGB())
    assert env.render().shape == (210, 160, 3)
    assert env.metadata["render_fps"] == 15
    assert AtariEnv(**BREAKOUT, frame_skip=1).metadata["render_fps"] == 60
    assert AtariEnv(**BREAKOUT).render() is None


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"game": "Brekout"}, "game='Brekout'.*Breakout.*ATARI_100K"),
        ({"game": "ms_pacman"}, "game='ms_pacman'.*MsPacman.*ATARI_100K"),
        ({"game": "Combat"}, "game='Combat'.*ATARI_100K"),  # for two
        ({"game": "Xyzzyx"}, "game='Xyzzyx'.*ATARI_100K"),
        ({"game": 3}, "game=3.*ATARI_100K"),
        ({"size": 0}, "size=0.*1 to 1024"),
        ({"size": 2000}, "size=2000.*1 to 1024"),
        ({"size": 64.0}, "size=64.0"),
        ({"frame_skip": 0}, "frame_skip=0.*1 to 60"),
        ({"frame_skip": True}, "frame_skip=True"),
        ({"noops": 0}, "noops=0"),
        ({"max_frames": 0}, "max_frames=0"),
        ({"max_frames": 2**31}, "max_frames=2147483648"),
        ({"end_on_life_loss": 1}, "end_on_life_loss=1.*True and False"),
        ({"sticky_actions": -0.1}, "sticky_actions=-0.1.*probability"),
        ({"sticky_actions": 1.0}, "sticky_actions=1.0.*probability"),
        ({"sticky_actions": float("nan")}, "sticky_actions=nan.*probability"),
        ({"sticky_actions": False}, "sticky_actions=False.*probability"),
        ({"render_mode": "human"}, "render_mode='human'.*'rgb_array'"),
    ],
    ids=str,
)
def test_bad_input(arguments: dict, words: str):
    with pytest.raises(BadInput, match=f"^Atari was given {words}") as refusal:
        AtariEnv(**{"game": "Breakout", **arguments})
    assert one_sentence(refusal)


def one_sentence(refusal) -> bool:
    message = str(refusal.value)
    return (
        message.endswith(".")
        and ". " not in message
        and "\n" not in message
        and "accepted" in message
    )


def test_a_missing_or_other_rom(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(BadInput, match="ROM of Breakout.*nowhere.*ALE_ROMS_DIR") as refusal:
        AtariEnv(game="Breakout")
    assert one_sentence(refusal)
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(BadInput, match="ROM of Breakout.*No such file.*breakout.bin") as refusal:
        AtariEnv(game="Breakout")
    assert one_sentence(refusal)
    (tmp_path / "breakout.bin").write_bytes(b"another")
    with pytest.raises(BadInput, match="ROM of Breakout.*hash") as refusal:
        AtariEnv(game="Breakout")
    assert one_sentence(refusal)
    shutil.copy(rom("Breakout"), tmp_path)
    AtariEnv(game="Breakout").reset()
    assert capfd.readouterr() == ("", "")


def test_games_without_the_name_of_a_benchmark():
    assert AtariEnv(game="SpaceInvaders").action_space == gymnasium.spaces.Discrete(6)
