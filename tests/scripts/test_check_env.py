"""An environment of which nothing is known."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from agent.runs.api import evaluate, train
from agent.runs.resume import check_spaces
from envs.errors import BadInput
from envs.spaces import Spaces
from tests.scripts.commands import run_command
from tests.tiny import TINY, leave_out_films

STRANGE = "tests.scripts.odd_envs:Strange-v0"
SMALL = [setting for setting in TINY if not setting.startswith("env.id")]


def test_the_page(tmp_path: Path):
    shutil.copy(Path(__file__).with_name("odd_envs.py"), tmp_path)
    given = ("env=gym", *SMALL, "env.id=odd_envs:Strange-v0", "env.kwargs.side=12")
    result = run_command("check_env", given, tmp_path)
    assert result.code == 0, result.err
    for part in (
        "odd_envs:Strange-v0 for experiment=catch",
        "observation view.camera (speed not seen): 32×32×4 of Box(-1, 1, (4, 12, 9), float32)",
        "0 terminated", "truncated), of 7 to 7 steps", "Nothing stands against it.",
        "100 frames, the first 60 by random actions; updates: tokenizer 5,",
        "for updates on this CPU", "command: python scripts/train.py env=gym experiment=catch",
    ):  # fmt: skip
        assert part in " ".join(result.out.split()), (part, result.out)
    with Image.open(tmp_path / "check_env.png") as sheet:
        assert sheet.width > 6 * 128


def test_from_training_to_evaluation(tmp_path: Path, capsys, monkeypatch):
    """Floats, channels first, inside of a Dict, not square; a choice of two things at once."""
    leave_out_films(monkeypatch)
    run = train(STRANGE, *SMALL, f"run={tmp_path / 'run'}", "evaluate_every=9")
    assert "observation view.camera (speed not seen): 32×32×4" in capsys.readouterr().out
    assert evaluate(run, episodes=2).lengths.tolist() == [7, 7]


def test_an_agent_of_other_spaces():
    with pytest.raises(BadInput, match="knows frames 32×32×4, .*has frames 32×32×3"):
        check_spaces(Spaces(4, 32, (2, 3)), Spaces(3, 32, (3,)), STRANGE)
