"""The README's commands for other environments, as they are written."""

import re
import shlex
from pathlib import Path

import pytest
from gymnasium.envs.registration import registry

from agent.agent import sketch_agent
from agent.api import configure
from agent.run import spaces_of
from envs.catch import CatchEnv
from tests.tiny import TINY, experiment

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SECTION = README.split("## Plug in an environment\n")[1].split("\n## ")[0]
COMMANDS = re.findall(r"^python scripts/\w+\.py (.*)$", SECTION, re.MULTILINE)

MY_MODULE = """
import gymnasium
from envs.catch import CatchEnv

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
    arguments = {key: value for key, _, value in (word.partition("=") for word in shlex.split(command, comments=True))}
    name = arguments.pop("experiment", "tiny")
    config = experiment(name, *(f"{key}={value}" for key, value in arguments.items()))
    module = config.env.id.rpartition(":")[0].partition(".")[0]
    if module not in ("", "my_module"):
        pytest.importorskip(module)
    sketch_agent(config.agent, spaces_of(config.env, 0))
    registry.pop("MyEnv-v0", None)


def test_python(tmp_path, monkeypatch, capsys):
    """The block as it stands, with networks of seconds."""
    (block,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    assert len(block.splitlines()) <= 5
    monkeypatch.chdir(tmp_path)
    # `seed=1` of the block stays the last word.
    monkeypatch.setattr("agent.api.configure", lambda *given: configure(*given[:3], *TINY[2:], *given[3:]))
    exec(block, {"MyEnv": CatchEnv})
    assert "return_mean" in capsys.readouterr().out
    (config,) = (tmp_path / "runs").rglob("config.yaml")
    assert "seed: 1" in config.read_text() and "id: python/CatchEnv-v0" in config.read_text()


def test_there_are_some():
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_lines_that_the_docs_point_to(page: str) -> None:
    """[`Class.method`](../file.py#L12): there it begins."""
    text = (ROOT / "docs" / page).read_text()
    for name, path, number in re.findall(r"\[`([\w.]+)`\]\(\.\./([\w/.]+)#L(\d+)\)", text):
        line = (ROOT / path).read_text().splitlines()[int(number) - 1]
        assert re.match(rf"\s*((class|def) {name.split('.')[-1]}\b|{name}\b.* = )", line), (name, path, number, line)
