import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from envs.config import EnvConfig
from envs.errors import BadInput
from envs.games.catch import CatchEnv
from envs.make import make_rendered, make_single
from envs.scores import CRAFTER_ACHIEVEMENTS
from envs.vector import make_vector

CATCH = EnvConfig(id="deltadream/Catch-v0")


def test_one_environment_for_each_seed():
    env = make_vector(CATCH, [4, 5, 6])
    observations, _ = env.reset()
    assert observations.shape == (3, 32, 32, 3)
    assert observations.dtype == np.uint8
    assert env.get_attr("seed") == (4, 5, 6)
    for observation, seed in zip(observations, (4, 5, 6)):
        np.testing.assert_array_equal(observation, make_single(CATCH, seed).reset()[0])
    env.close()


def test_an_ended_episode_is_reset_by_the_next_step():
    env = make_vector(CATCH, [0])
    assert env.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.NEXT_STEP
    env.reset()
    for _ in range(9):
        last, rewards, terminated, truncated, _ = env.step(np.array([1]))
    assert rewards[0] in (-1, 1)
    assert (terminated[0], truncated[0]) == (True, False)
    assert last[0, 29].max() == 255  # the ball is seen at the bottom
    first, rewards, terminated, truncated, _ = env.step(np.array([0]))
    assert (rewards[0], terminated[0], truncated[0]) == (0, False, False)
    again = make_single(CATCH, 0)
    again.reset()
    np.testing.assert_array_equal(first[0], again.reset()[0])  # episode 1, the action ignored
    env.close()


def test_achievements_arrive_with_the_last_step_of_an_episode():
    env = make_vector(EnvConfig(kwargs={"length": 80}), [0, 1])
    single = make_single(EnvConfig(kwargs={"length": 80}), 1)
    env.reset()
    single.reset()
    actions = np.random.default_rng(0)
    for _ in range(80):
        action = actions.integers(17, size=2)
        _, _, _, truncated, infos = env.step(action)
        *_, info = single.step(action[1])
    assert truncated.tolist() == [True, True]
    assert infos["_achievements"].tolist() == [True, True]
    counts = {name: infos["achievements"][name] for name in CRAFTER_ACHIEVEMENTS}
    assert all(count.shape == (2,) and count.dtype == np.int64 for count in counts.values())
    assert {name: count[1] for name, count in counts.items()} == info["achievements"]
    assert sum(info["achievements"].values()) > 0
    infos = env.step(np.array([0, 0]))[4]  # the reset
    assert all(infos["achievements"][name].tolist() == [0, 0] for name in CRAFTER_ACHIEVEMENTS)
    env.close()


class Telling(CatchEnv):
    """Says in its infos what the other copies cannot be merged with."""

    told = iter(99 * [
        {"time_to_goal": 3, "share": 1, "_own": 1, "of": {"a": 1}, "failures": 3},
        {"time_to_goal": float("nan"), "share": 0.5, "own": "x", "of": 2},
        {"time_to_goal": [1], "share": 2**70, "achievements": {"wood": np.zeros(3)}},
    ])  # fmt: skip

    def reset(self, **arguments):
        return super().reset(**arguments)[0], next(self.told)

    def step(self, action):
        assert type(action) is np.int64
        return *super().step(action)[:4], next(self.told)


def test_infos_that_cannot_be_merged():
    gymnasium.register("Telling-v0", Telling)
    env = make_vector(EnvConfig(id="Telling-v0"), [0, 1, 2])
    assert env.reset()[1] == {}
    assert all(env.step(np.array([0, 1, 2]))[4] == {} for _ in range(12))


def test_arguments_reach_the_game():
    config = EnvConfig(kwargs={"length": 2, "render_mode": "rgb_array"})
    env = make_single(config, 0)
    env.reset()
    env.step(0)
    assert env.step(0)[3]
    assert env.render().shape == (576, 576, 3)


SCRIPT = """
import gymnasium, numpy, os, torch
from envs.games.catch import CatchEnv
from envs.vector import make_vector
from envs.config import EnvConfig

class Drawing(CatchEnv):
    def reset(self, **arguments):
        observation, info = super().reset(**arguments)
        os.write(1, f'{numpy.random.random()}\\n'.encode())  # whole, beside the others'
        return observation, info

gymnasium.register("Drawing-v0", "__main__:Drawing")
if __name__ == "__main__":
    envs = make_vector(EnvConfig(id="Drawing-v0", parallel=True), [0, 1, 2])
    envs.reset()
    envs.close()
"""


@pytest.mark.slow
def test_an_environment_of_a_script(tmp_path):
    """Each process imports it, and its modules; yet each draws its own random numbers."""
    (tmp_path / "script.py").write_text(SCRIPT)
    paths = {"PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | paths,
    )
    assert len(set(result.stdout.split())) == 3, result.stderr


def test_processes_know_what_only_this_one_has_registered():
    id = "python/Short-v0"
    gymnasium.register(id, entry_point=lambda: CatchEnv())  # which no other process can import
    config = EnvConfig(id=id, kwargs={"max_episode_steps": 4}, parallel=True)
    env = make_vector(config, [0, 1])
    env.reset()
    ends = [env.step(np.array([1, 1]))[3].tolist() for _ in range(4)]
    env.close()
    gymnasium.registry.pop(id)
    assert ends == [[False, False]] * 3 + [[True, True]]


@pytest.mark.parametrize(
    ("id", "named"),
    [
        ("deltadream/Crafer-v1", "'deltadream/Crafer-v1': did you mean deltadream/Crafter-v1"),
        ("CARTPOLE-V1", "did you mean CartPole-v1"),
        ("zzzzzzzz-v0", r"'zzzzzzzz-v0'; gymnasium.pprint_registry\(\) lists"),
        ("no_such_module:Game-v0", "no_such_module .* cannot be imported: ModuleNotFoundError"),
        ("./games/mine.py:Mine-v0", "names a file; .*env.id=mine:Mine-v0"),
        ("Taxi-v3", "Please use `Taxi-v4` instead; change env.id"),
        ("PongNoFrameskip-v4", r"Atari's Pong \(env.id=deltadream/Atari-v0 env.game=Pong\)"),
        ("montezuma_revenge", "did you mean Atari's MontezumaRevenge "),
        ("ALE/Pong-v5", r"did you mean ale_py:ALE/Pong-v5\?"),
        ("MiniGrid-Empty-5x5-v0", r"did you mean minigrid:MiniGrid-Empty-5x5-v0\?"),
        ("MinAtar/Breakout-v1", r"did you mean minatar.gym:MinAtar/Breakout-v1\?"),
    ],
)
def test_a_name_that_is_not_known(id, named, monkeypatch):
    """As it is mistyped, or as another package's documentation writes it."""
    monkeypatch.delitem(gymnasium.registry, id, raising=False)  # another test may have imported it
    with pytest.raises(BadInput, match=named):
        make_single(EnvConfig(id=id), 0)


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"lenght": 3}, "unexpected keyword argument 'lenght'"),
        ({"length": 0}, "^Crafter was given length=0"),
    ],
)
def test_arguments_are_refused(kwargs, named):
    with pytest.raises(BadInput, match=named):
        make_vector(EnvConfig(kwargs=kwargs), [0])


def test_no_seed_is_refused():
    with pytest.raises(BadInput, match="seed"):
        make_vector(CATCH, [])


class Painter(CatchEnv):
    """Has a picture of it, or says so and cannot be made so."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, **kwargs):
        if kwargs.get("refuses") and "render_mode" in kwargs:
            raise TypeError("an unexpected keyword argument 'render_mode'")
        super().__init__()
        self.render_mode = kwargs.get("render_mode")


@pytest.mark.parametrize("refuses", [False, True])
def test_rendered_for_people_if_it_can_be(refuses: bool):
    gymnasium.registry.pop("Painter-v0", None)
    gymnasium.register("Painter-v0", Painter)
    env = make_rendered(EnvConfig(id="Painter-v0", kwargs={"refuses": refuses}), 0)
    assert env.render_mode == (None if refuses else "rgb_array") and env.episode == -1


def test_a_module_that_registers_when_it_is_asked(tmp_path, monkeypatch):
    (tmp_path / "asked_for.py").write_text(
        "import gymnasium\ndef register_envs():\n"
        "    gymnasium.register('Asked-v0', 'envs.games.catch:CatchEnv')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert make_single(EnvConfig(id="asked_for:Asked-v0"), 0).action_space.nvec.tolist() == [3]
    with pytest.raises(BadInput, match="did you mean asked_for:Asked-v0"):
        make_single(EnvConfig(id="asked_for:Askd-v0"), 0)


@pytest.mark.parametrize("name", ["envs", "json"])
def test_a_module_of_another_name_is_not_taken_for_it(tmp_path, monkeypatch, name):
    """One of ours, or Python's, where the working directory has one of the same name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.py").write_text("raise AssertionError\n")
    with pytest.raises(
        BadInput,
        match=rf"^env.id={name}:Mine-v0 would take {name} from .*, and not from {tmp_path}; "
        rf"give that another name.$",
    ):
        make_single(EnvConfig(id=f"{name}:Mine-v0"), seed=0)
