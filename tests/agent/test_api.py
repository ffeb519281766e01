"""Training and evaluation from Python, of an environment that only this process knows."""

import logging

import gymnasium
import numpy as np
import pytest

from agent import configure, evaluate, train
from agent.api import register
from envs.catch import CatchEnv
from envs.errors import BadInput
from tests.tiny import TINY

SMALL = tuple(s for s in TINY if not s.startswith("env.id"))


class Steered(CatchEnv):
    """Catch whose paddle is moved by a continuous action; one number sets the reward of a step."""

    def __init__(self, bonus: float = 0.0, render_mode: str | None = None):
        super().__init__(render_mode)
        self.bonus, self.action_space = bonus, gymnasium.spaces.Box(-1, 1, (1,))

    def step(self, action):
        assert self.action_space.contains(action)
        observation, reward, *rest = super().step(round(float(action[0])) + 1)
        return observation, reward + self.bonus, *rest


@pytest.mark.usefixtures("without_films")
def test_an_environment_of_this_process(tmp_path, capsys):
    folder = train(Steered, *SMALL, "env.bins=3", "env.kwargs.bonus=5", f"run={tmp_path / 'run'}")
    assert folder == tmp_path / "run" and (folder / "checkpoints").is_dir()
    said = capsys.readouterr().out
    assert logging.getLogger("torchrl").level == logging.WARNING  # its own lines would stand among them
    assert "horizon 4" in said and "γ 0.95" in said and "1 factor of 3 values" in said
    files = sorted(folder.rglob("*"))
    result = evaluate(folder, episodes=3)
    assert (result.returns > 40).all() and (result.lengths == 9).all()
    assert not np.array_equal(evaluate(folder, episodes=3, seed=5, random=True).recording.frames, result.recording.frames)
    assert sorted(folder.rglob("*")) == files


@pytest.mark.usefixtures("without_films")
def test_an_environment_of_a_module(tmp_path, monkeypatch):
    """It is imported where it is named, and nowhere else."""
    (tmp_path / "of_a_module.py").write_text(
        "import gymnasium\ngymnasium.register('OfAModule-v0', entry_point='envs.catch:CatchEnv')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder = train("of_a_module:OfAModule-v0", *SMALL, f"run={tmp_path / 'run'}")
    with pytest.raises(BadInput, match="if you trust it"):
        evaluate(folder, episodes=1)
    assert len(evaluate(folder, env_id="of_a_module:OfAModule-v0", episodes=2, max_steps=5).returns) == 2


def test_a_function_and_its_arguments():
    """Made anew under the same name, it replaces the older one."""
    for size in (3, 4):
        with pytest.raises(BadInput, match=f"only {size}"):

            def make(**kwargs):
                raise BadInput(f"only {size}; {kwargs}.")

            train(make, *SMALL)


def test_what_makes_an_environment():
    from functools import partial

    class Maker:
        def __call__(self):
            raise NotImplementedError

    assert register(partial(CatchEnv, 3)) == "python/CatchEnv-v0" and register(Maker()) == "python/Maker-v0"
    with pytest.raises(BadInput, match="give an id, or a class or function that makes one"):
        register(CatchEnv())


def test_bad_input(tmp_path):
    with pytest.raises(BadInput, match="did you mean CartPole-v1"):
        train("CartPol-v1", *SMALL)
    with pytest.raises(BadInput, match="polcy is not a key"):
        configure("polcy.batch=3")
    with pytest.raises(BadInput, match="holds no checkpoint"):
        evaluate(tmp_path)
    assert configure("env=gym", "env.id=x").experiment == "tiny" and configure("env=catch").experiment == "crafter"
    assert configure("env=gym", "env.id=x", "experiment=base").experiment == "base"
    for given in ("env.kwargs.size=5", "env.kwargs={size: 5}"):
        assert configure("experiment=tiny", "seed=3", given).env.kwargs == {"size": 5}
