import hashlib
import subprocess
import sys

import crafter
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
for _ in range(1000):
    observation, reward, terminated, truncated, info = env.step(actions.integers(17))
    digest.update(observation.tobytes() + repr((reward, info)).encode())
    if terminated or truncated:
        digest.update(env.reset()[0].tobytes())
        episodes += 1
print(digest.hexdigest(), episodes)
"""


def test_gymnasium_accepts_it():
    check_env(CrafterEnv(size=63, render_mode="rgb_array"))


@pytest.mark.slow
def test_a_seed_decides_every_pixel_in_every_process(tmp_path):
    """Without the ordered chunks these processes part after some hundred steps."""
    first, second = (
        subprocess.check_output([sys.executable, "-c", PLAY, filler], cwd=tmp_path, text=True)
        for filler in ("0", "54321")
    )
    assert first == second and int(first.split()[1]) >= 3


def test_a_reset_without_seed_goes_on_to_other_worlds():
    env, again = CrafterEnv(), CrafterEnv()
    worlds = [env.reset(seed=1)[0], env.reset()[0]]
    np.testing.assert_array_equal(worlds, [again.reset(seed=1)[0], again.reset()[0]])
    assert not np.array_equal(*worlds)
    assert not np.array_equal(worlds[0], env.reset(seed=2)[0])


@pytest.mark.parametrize("length", [2, 5])
def test_death_terminates(length: int):
    """At the limit of steps, too."""
    env = CrafterEnv(length=length)
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


@pytest.mark.parametrize("arguments", [{"length": 0}, {"size": 8}])
def test_what_is_refused(arguments):
    with pytest.raises(BadInput, match="Crafter was given"):
        CrafterEnv(**arguments)


def test_achievements_are_counted_per_episode():
    env = CrafterEnv()
    _, info = env.reset(seed=0)
    assert tuple(info["achievements"]) == CRAFTER_ACHIEVEMENTS
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
    assert counts == [1, 2] and rewards == [1.0, 0.0]  # only the first unlocks
    assert sum(info["achievements"].values()) == 2 and set(info) == {"achievements"}
    assert set(env.reset()[1]["achievements"].values()) == {0}


def test_a_picture_is_large_and_changes_nothing():
    """At night the package draws noise from the generator that moves the creatures."""
    digests = []
    for watched in (False, True):
        env = CrafterEnv(render_mode="rgb_array")
        env.reset(seed=0)
        env._game._step = 200  # night
        digest = hashlib.sha256()
        for _ in range(15):
            digest.update(env.step(0)[0].tobytes())
            assert env._game._world.daylight < 0.5
            if watched:
                picture = env.render()
        digests.append(digest.hexdigest())
    assert digests[0] == digests[1]
    assert picture.shape == (576, 576, 3) and picture.dtype == np.uint8 and picture.std() > 5


def test_games_are_imported_when_they_are_made():
    """Also: none warns."""
    script = (
        "import sys, warnings; warnings.simplefilter('error'); import envs, gymnasium\n"
        "assert not {'ale_py', 'PIL', 'crafter', 'numba', 'torch'} & set(sys.modules)\n"
        "gymnasium.make('deltadream/Catch-v0').reset(seed=0)\n"
        "gymnasium.make('deltadream/Atari-v0', game='Pong').reset(seed=0)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
