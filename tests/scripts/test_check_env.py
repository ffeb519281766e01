"""An environment of which nothing is known, by the commands alone."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.scripts.commands import contents, evaluate, run_command, start_command, train
from tests.scripts.test_bad_input import check_refused, without_caches
from tests.tiny import TINY

GYM = ("env=gym", *(setting for setting in TINY if not setting.startswith("env.id")))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copy(Path(__file__).with_name("odd_envs.py"), tmp_path)
    return tmp_path


def test_a_renderer_does_not_swallow_signals(place: Path):
    """As pygame would, which CartPole is drawn by."""
    process = start_command(
        "check_env", ("env=gym", "env.id=CartPole-v1", "trial=1000000000"), place, place
    )
    try:
        time.sleep(6)  # in the midst of its steps, or before
        assert process.is_alive(), (place / "err").read_text()
        process.terminate()
        process.join(10)
        assert process.exitcode == -signal.SIGTERM
    finally:
        process.kill()


def test_the_page(place: Path):
    result = run_command(
        "check_env",
        ("env=gym", "experiment=catch", "env.id=odd_envs:Strange-v0", "env.kwargs.side=12"),
        place,
    )
    assert result.code == 0, result.err
    for part in (
        "odd_envs:Strange-v0 for experiment=catch", "observation view.camera (speed not seen)", "32×32×4 of Box(-1, 1, (4, 12, 9), float32)",
        "0 terminated", "truncated), of 7 to 7 steps", "for the 4,800 steps", "decides all", "check_env.png", "Nothing stands against it.",
        "4,800 frames, the first 2,000 by random actions; updates: tokenizer 1,200, dynamics 4,050, policy 490", "on this CPU: updates",
        "command: python scripts/train.py env=gym experiment=catch env.id=odd_envs:Strange-v0 env.kwargs.side=12",
    ):  # fmt: skip
        assert part in " ".join(result.out.split()), (part, result.out)
    assert max(map(len, result.out.splitlines())) <= 110
    with Image.open(place / "check_env.png") as sheet:
        assert sheet.width > 6 * 128


def test_from_the_first_command_to_evaluation(place: Path):
    """Floats, channels first, inside of a Dict, not square; a choice of two things at once."""
    strange = "env.id=odd_envs:Strange-v0"
    result = train(*GYM, strange, "run=run", "logger=csv", "evaluate_every=9", cwd=place)
    assert result.code == 0, result.err
    assert "frames: observation view.camera (speed not seen): 32×32×4" in result.out
    shorter = ("run=run", strange, "env.kwargs.length=3", "episodes=2", "films=false")
    check_refused(evaluate(*shorter, cwd=place), "output=<file.json>")
    assert evaluate(*shorter, "output=shorter.json", cwd=place).code == 0
    assert json.loads((place / "shorter.json").read_text())["lengths"] == [3, 3]
    other = ("run=run", "env.id=odd_envs:Odd-v0", "env=gym", "output=other.json")
    check_refused(evaluate(*other, cwd=place), "knows frames 32×32×4", "has frames 32×32×3")
    text = (place / "odd_envs.py").read_text()
    (place / "odd_envs.py").write_text(text.replace("(4, side, 9)", "(3, side, 9)"))
    resumed = train("resume=run", "env=gym", strange, "epochs=4", cwd=place)
    check_refused(resumed, "knows frames 32×32×4", "has frames 32×32×3")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["env.id=unimportable:X-v0"], ["unimportable", "ZeroDivisionError: division by zero"]),
        (["env.id=odd_envs:Strang-v0"], ["did you mean odd_envs:Strange-v0"]),
        (["env.id=odd_envs:Failing-v0"], ["failed at step 3 of its episode 1: KeyError: 'level 3'"]),
        (["env.id=odd_envs:Lying-v0"], ["step 2 of its episode 1", "the value 1.5", "Box(0, 1, (32, 32), float32)"]),
        (["env.id=odd_envs:Unseen-v0"], ["odd_envs:Unseen-v0 renders None", "[H, W, 3] uint8"]),
    ],
    ids=lambda given: given[0] if given[0].startswith("env") else "",
)  # fmt: skip
def test_refused(place: Path, given: list[str], named: list[str]):
    (place / "unimportable.py").write_text("1 / 0")
    before = without_caches(contents(place))
    check_refused(train(*GYM, *given, cwd=place), *named)
    if "Lying" in given[0]:  # they are the same
        check_refused(run_command("check_env", (*GYM, *given), place), *named)
    assert without_caches(contents(place)) == before
