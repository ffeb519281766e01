"""Training and evaluation from Python, of an environment that only this process knows."""

import os
import subprocess
import sys

import gymnasium
import numpy as np
import psutil
import pytest
import yaml

from agent.runs.api import configure, evaluate, register_env, train
from envs.config import EnvConfig
from envs.errors import BadInput
from envs.games.catch import CatchEnv
from envs.make import make_single
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
    assert "horizon 4" in said and "γ 0.95" in said and "1 factor of 3 values" in said
    files = sorted(folder.rglob("*"))
    result = evaluate(folder, episodes=3)
    assert (result.returns > 40).all() and (result.lengths == 9).all()
    assert not np.array_equal(
        evaluate(folder, episodes=3, seed=5, random=True).recording.frames, result.recording.frames
    )
    assert sorted(folder.rglob("*")) == files


@pytest.mark.usefixtures("without_films")
def test_an_environment_of_a_module(tmp_path, monkeypatch):
    """The module is imported where it is named, and nowhere else.

    Once it is imported, its environment needs no more trust.
    """
    (tmp_path / "of_a_module.py").write_text(
        "import gymnasium\ngymnasium.register('OfAModule-v0', "
        "entry_point='envs.games.catch:CatchEnv')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder = train("of_a_module:OfAModule-v0", *SMALL, f"run={tmp_path / 'run'}")
    assert len(evaluate(folder, episodes=2, max_steps=5).returns) == 2
    for forgotten in (sys.modules, gymnasium.registry):  # as in a process that did not train
        forgotten.pop("of_a_module", None) or forgotten.pop("OfAModule-v0")
        with pytest.raises(
            BadInput,
            match="if you trust it, import of_a_module first, or give "
            "env_id='of_a_module:OfAModule-v0'.$",
        ):
            evaluate(folder, episodes=1)
    assert (
        len(evaluate(folder, env_id="of_a_module:OfAModule-v0", episodes=2, max_steps=5).returns)
        == 2
    )


class Sized(CatchEnv):
    """Takes nothing but tuples."""

    def __init__(self, shape, config, render_mode: str | None = None):
        super().__init__(render_mode)
        texts = {"name": "(not one)", "codes": "1,2"}
        assert shape == (128, 64)
        assert config == {"inner": ((1, 2.5), "a"), **texts}


@pytest.mark.usefixtures("without_films")
def test_tuples_for_the_constructor(tmp_path, capsys):
    """Tuples given from Python, through a checkpoint, and as the same texts in YAML."""
    inner = ((1, 2.5), "a")
    own = (
        'env.kwargs.shape="(128, 64)"',
        f"env.kwargs.config={{inner: \"{inner}\", name: '(not one)', codes: '1,2'}}",
    )
    folder = train(Sized, *SMALL, *own, f"run={tmp_path / 'run'}")
    assert train(Sized, f"resume={folder}", "epochs=3", own[0]) == folder
    assert len(evaluate(folder, episodes=1).returns) == 1
    kwargs = yaml.safe_load(
        "shape: (128, 64)\nconfig:\n  inner: ((1, 2.5), 'a')\n  name: (not one)\n  codes: 1,2"
    )
    make_single(EnvConfig(id="python/Sized-v0", kwargs=kwargs), seed=0).close()
    assert "Evaluate: deltadream.evaluate('<this folder>')" in (folder / "README.txt").read_text()
    gymnasium.registry.pop("python/Sized-v0")
    for call in (
        lambda: evaluate(folder),
        lambda: train("python/Sized-v0", f"resume={folder}", "epochs=4"),
    ):
        with pytest.raises(
            BadInput,
            match="^The environment python/Sized-v0 is a class .* call deltadream.register_env",
        ):
            call()


UNGUARDED = """
import sys
from deltadream import train
train("deltadream/Catch-v0", *sys.argv[1:])
"""


@pytest.mark.slow
def test_a_script_without_a_guard(tmp_path):
    """Each process that it starts would do all of it again: one sentence, and nothing is left."""
    (tmp_path / "unguarded.py").write_text(UNGUARDED)
    ended = subprocess.run(
        [sys.executable, "unguarded.py", *SMALL, "env.parallel=true"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=300,
        start_new_session=True,
    )
    last = ended.stderr.splitlines()[-1]
    assert ended.returncode == 1 and "unguarded.py is imported by each process" in last
    assert 'if __name__ == "__main__":' in last
    assert ended.stderr.count("is imported by each process") == 1
    assert not list(tmp_path.glob("runs*"))
    assert str(tmp_path) not in [process.info["cwd"] for process in psutil.process_iter(["cwd"])]


def test_a_function_and_its_arguments():
    """Made anew under the same name, it replaces the older one."""
    for size in (3, 4):
        with pytest.raises(BadInput, match=f"only {size}"):

            def make(size=size, **kwargs):
                raise BadInput(f"only {size}; {kwargs}.")

            train(make, *SMALL)


def test_what_makes_an_environment():
    from functools import partial

    class Maker:
        def __call__(self):
            raise NotImplementedError

    assert (
        register_env(partial(CatchEnv, 3)) == "python/CatchEnv-v0"
        and register_env(Maker()) == "python/Maker-v0"
    )
    with pytest.raises(BadInput, match="no environment's id"):
        register_env(CatchEnv())


def test_bad_input(tmp_path):
    with pytest.raises(BadInput, match="did you mean CartPole-v1"):
        train("CartPol-v1", *SMALL)
    with pytest.raises(BadInput, match="polcy is not a key"):
        configure("polcy.batch=3")
    with pytest.raises(BadInput, match="holds no checkpoint"):
        evaluate(tmp_path)
    assert (
        configure("env=gym", "env.id=x").experiment == "tiny"
        and configure("env=catch").experiment == "crafter"
    )
    assert configure("env=gym", "env.id=x", "experiment=base").experiment == "base"
    for given in ("env.kwargs.size=5", "env.kwargs={size: 5}"):
        assert configure("experiment=tiny", "seed=3", given).env.kwargs == {"size": 5}
