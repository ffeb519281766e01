import hashlib
import subprocess
import sys

import crafter
import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.errors import BadInput
from envs.games.crafter import CrafterEnv
from envs.scores import CRAFTER_ACHIEVEMENTS

# Plays random actions and prints a digest of all that is seen, and the number of episodes. What
# it is given shifts memory addresses, on which the package's own order of creatures depends.
PLAY = """
import hashlib, sys
import gymnasium, numpy as np
class Filler: pass
filler = [Filler() for _ in range(int(sys.argv[1]))][::2]
env = gymnasium.make("envs:deltadream/Crafter-v1")
actions = np.random.default_rng(0)
digest, episodes = hashlib.sha256(env.reset(seed=3)[0].tobytes()), 1
for _ in range(1500):
    observation, reward, terminated, truncated, info = env.step(actions.integers(17))
    digest.update(observation.tobytes() + repr((reward, info)).encode())
    if terminated or truncated:
        digest.update(env.reset()[0].tobytes())
        episodes += 1
print(digest.hexdigest(), episodes)
"""


def test_gymnasium_accepts_it():
    check_env(CrafterEnv(render_mode="rgb_array"))


def test_spaces():
    env = CrafterEnv()
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    assert env.action_space == gymnasium.spaces.Discrete(17)


def test_cells_of_whole_pixels():
    """63 pixels are the paper's 64 without their black rest: nine cells of seven."""
    paper, exact = (CrafterEnv(size=size).reset(seed=3)[0] for size in (64, 63))
    assert (paper[:63, :63] == exact).all()
    assert paper[63].max() == paper[:, 63].max() == 0
    assert CrafterEnv(size=63).observation_space.shape == exact.shape


@pytest.mark.slow
def test_a_seed_decides_every_pixel_in_every_process(tmp_path):
    """Without the ordered chunks these processes part after some hundred steps."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PLAY, filler], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        for filler in ("0", "1001", "54321")
    ]
    outputs = [run.communicate()[0] for run in runs]
    assert len(set(outputs)) == 1
    assert int(outputs[0].split()[1]) >= 3


def test_a_reset_without_seed_goes_on_to_other_worlds():
    env, again = CrafterEnv(), CrafterEnv()
    worlds = [env.reset(seed=1)[0], env.reset()[0], env.reset()[0]]
    repeated = [again.reset(seed=1)[0], again.reset()[0], again.reset()[0]]
    np.testing.assert_array_equal(worlds, repeated)
    assert not np.array_equal(worlds[0], worlds[1])
    assert not np.array_equal(worlds[1], worlds[2])
    assert not np.array_equal(worlds[0], env.reset(seed=2)[0])


def test_death_terminates():
    env = CrafterEnv(length=5)
    env.reset(seed=0)
    assert env.step(0)[2:4] == (False, False)
    env._game._player.health = 0
    _, reward, terminated, truncated, _ = env.step(0)
    assert (terminated, truncated) == (True, False)
    assert reward == pytest.approx(-0.9)  # nine points of health lost


def test_the_limit_truncates():
    env = CrafterEnv(length=3)
    env.reset(seed=0)
    assert [env.step(0)[2:4] for _ in range(3)] == [(False, False)] * 2 + [(False, True)]
    env.reset()  # the count starts again
    assert env.step(0)[2:4] == (False, False)


def test_death_at_the_limit_terminates():
    env = CrafterEnv(length=1)
    env.reset(seed=0)
    env._game._player.health = 0
    assert env.step(0)[2:4] == (True, False)


@pytest.mark.parametrize("length", [0, -1, 2.5, True, None])
def test_length_is_refused(length):
    with pytest.raises(BadInput, match="length"):
        CrafterEnv(length=length)


def test_achievements_are_counted_per_episode():
    env = CrafterEnv()
    _, info = env.reset(seed=0)
    assert tuple(info["achievements"]) == CRAFTER_ACHIEVEMENTS
    assert tuple(crafter.constants.achievements) == CRAFTER_ACHIEVEMENTS
    player = env._game._player
    player.inventory["sapling"] = 2
    plant = crafter.constants.actions.index("place_plant")
    counts, rewards = [], []
    for facing in ((0, 1), (0, -1)):
        player.facing = facing
        env._game._world[player.pos + np.array(facing)] = "grass"
        _, reward, _, _, info = env.step(plant)
        counts.append(info["achievements"]["place_plant"])
        rewards.append(reward)
    assert counts == [1, 2]
    assert rewards == [1.0, 0.0]  # only the first unlocks
    assert sum(info["achievements"].values()) == 2
    assert set(info) == {"achievements"}
    _, info = env.reset()
    assert set(info["achievements"].values()) == {0}


def test_a_picture_is_large_and_changes_nothing():
    """At night the package draws noise from the generator that moves the creatures."""
    digests = []
    for watched in (False, True):
        env = CrafterEnv(render_mode="rgb_array")
        env.reset(seed=0)
        env._game._step = 200  # night
        digest = hashlib.sha256()
        for _ in range(30):
            digest.update(env.step(0)[0].tobytes())
            assert env._game._world.daylight < 0.5
            if watched:
                picture = env.render()
        digests.append(digest.hexdigest())
    assert digests[0] == digests[1]
    assert picture.shape == (576, 576, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 5


def test_numba_is_in_effect():
    """Worlds are made an order of magnitude slower without it."""
    from opensimplex.internals import _noise3

    assert hasattr(_noise3, "py_func")


def test_registered_in_a_fresh_process(tmp_path):
    script = """
import sys, warnings
warnings.simplefilter("error")
import envs, gymnasium
assert not {"ale_py", "PIL", "crafter", "numba", "torch"} & set(sys.modules), "not light"
envs.register_environments()
gymnasium.make("deltadream/Crafter-v1").reset(seed=0)
gymnasium.make("deltadream/Catch-v0").reset(seed=0)
gymnasium.make("deltadream/Atari-v0", game="Pong").reset(seed=0)
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
