"""The README's promises, and the tutorial's commands for environments of others."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from gymnasium.envs.registration import registry

from agent.agent import sketch_agent
from envs.make import spaces_of
from tests.test_structure import PAPER
from tests.tiny import experiment

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TUTORIAL = (ROOT / "docs" / "your_environment.md").read_text()
COMMANDS = re.findall(r"^python scripts/\w+\.py (.*env=gym.*)$", TUTORIAL, re.MULTILINE)

MY_MODULE = """
import gymnasium
from envs.games.catch import CatchEnv

class MyEnv(CatchEnv):
    def __init__(self, size=3):
        super().__init__()
        self.observation_space = gymnasium.spaces.Box(0, 255, (size, size), "uint8")

gymnasium.register("MyEnv-v0", MyEnv)
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_other_environments(command: str, tmp_path, monkeypatch):
    """Each fits its experiment; where the package is not installed, at least its words do."""
    (tmp_path / "my_module.py").write_text(MY_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    arguments = dict(word.split("=", 1) for word in shlex.split(command, comments=True))
    name = arguments.pop("experiment", "tiny")
    config = experiment(name, *(f"{key}={value}" for key, value in arguments.items()))
    module = config.env.id.rpartition(":")[0].partition(".")[0]
    if module not in ("", "my_module"):
        pytest.importorskip(module)
    sketch_agent(config.agent, spaces_of(config.env, 0))
    registry.pop("MyEnv-v0", None)


def test_there_are_some():
    assert len(COMMANDS) >= 4


def test_short_and_whole():
    """For a stranger in a hurry: the two commands, a picture, five files, few rows of results."""
    assert len(README.splitlines()) <= 150
    assert "make train" in README and "make test" in README
    assert (ROOT / re.search(r"!\[.*\]\((docs/\S+\.gif)\)", README)[1]).exists()
    assert all(f"]({file})" in README for file in PAPER)
    table = README.split("## Results")[1].split("\n## ")[0]
    assert len(re.findall(r"^\| ", table, re.MULTILINE)) - 1 <= 5
