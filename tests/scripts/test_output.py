"""Output that cannot be written: missing letters, a reader that leaves, a full disk."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.signals import AGAIN
from agent.storage import checkpoint
from tests.equal import check_equal
from tests.scripts.commands import ROOT, contents, start_command, train
from tests.tiny import TINY

EVALUATE = "command evaluate run=run episodes=2 output=result.json"


def shell(line: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of bash, in which `command <name> …` is one of ours."""
    start = f'set -o pipefail; command() {{ {sys.executable} {ROOT}/scripts/$1.py "${{@:2}}"; }}; '
    environment = os.environ | environment
    return subprocess.run(
        ["bash", "-c", start + line], cwd=cwd, env=environment, capture_output=True, timeout=600
    )


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    (tmp_path / "run").symlink_to(finished)
    return tmp_path


@pytest.mark.parametrize(
    "line", ["check_env env=catch", "train run=new epochs=1 " + " ".join(TINY)]
)
def test_letters_are_replaced(tmp_path: Path, line: str):
    result = shell(f"command {line}", tmp_path, PYTHONIOENCODING="ascii")
    assert result.returncode == 0 and b"32?32?3" in result.stdout and result.stdout.isascii(), (
        result.stderr
    )


@pytest.mark.parametrize(
    ("line", "made"),
    [(EVALUATE, "result_best.mp4"), ("command check_env env=catch 2>&1", "check_env.png")],
)
def test_a_short_command_does_its_work_without_a_reader(place: Path, line: str, made: str):
    result = shell(f"{line} | true", place)
    assert result.returncode == 0 and b"rror" not in result.stderr, result.stderr
    assert (place / made).exists()


def test_without_output_and_on_a_full_disk(place: Path):
    assert shell(f"{EVALUATE} >&- 2>&-", place).returncode == 0
    (place / "result.json").unlink()
    result = shell(f"{EVALUATE} > /dev/full", place)
    assert result.returncode == 1 and result.stderr.startswith(
        b"The output is cut (No space left on device)"
    )
    assert (place / "result.json").exists()


def test_python(tmp_path: Path):
    """From Python, in a process of its own, with an environment that prints."""
    settings = [setting for setting in TINY if not setting.startswith("env.id")]
    (tmp_path / "own.py").write_text(
        "from deltadream import train, evaluate\nfrom envs.games.catch import CatchEnv\n"
        "class Own(CatchEnv):\n    def step(self, action):\n        print('×' * 999)\n"
        "        return super().step(action)\nif __name__ == '__main__':\n"
        f"    run = train(Own, *{settings}, 'epochs=1', 'run=new', 'env.parallel=true')\n"
        "    evaluate(run, episodes=2)\n    print('done')\n"
    )
    result = shell(
        f"{sys.executable} own.py", tmp_path, PYTHONIOENCODING="ascii", PYTHONPATH=str(ROOT)
    )
    assert result.returncode == 0, result.stderr
    assert b"???" in result.stdout and result.stdout.splitlines()[-1] == b"done"


def test_a_training_whose_reader_goes_away(tmp_path: Path):
    """Of standard output and standard error, in the midst of it: it is saved, and goes on."""
    for name in ("out", "err"):
        os.mkfifo(tmp_path / name)
    arguments = (*TINY, "epochs=100000", "keep=1", "evaluate_every=99999", "run=run")
    process = start_command("train", arguments, tmp_path, tmp_path)
    with open(tmp_path / "out"), open(tmp_path / "err"):
        deadline = time.monotonic() + 120
        while (checkpoint.newest(tmp_path / "run") or Path("")).name < "epoch_000002":
            assert process.is_alive() and time.monotonic() < deadline
            time.sleep(0.05)
    process.join(60)
    assert process.exitcode == AGAIN
    epoch = checkpoint.load(tmp_path / "run").epoch
    resumed = train("resume=run", f"epochs={epoch + 1}", cwd=tmp_path)
    assert resumed.code == 0, resumed.err


def test_a_training_without_a_reader_from_the_start(finished: Path, tmp_path: Path):
    """It is saved before its first epoch, and comes to the same when it is resumed."""
    result = shell(f"command train {' '.join(TINY)} run=run | true", tmp_path)
    assert result.returncode == AGAIN, result.stderr
    said = result.stderr.decode().splitlines()
    assert "Nobody reads the output" in said[0] and len(said) == 2
    assert "epoch_000000_paused (go on with resume=run)" in said[1]
    assert train("resume=run", cwd=tmp_path).code == 0
    check_equal(finished, tmp_path / "run")


def test_files_are_utf_8(tmp_path: Path):
    """Whatever the locale is, and whatever letters a folder's name has."""
    ascii = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    settings = " ".join(TINY)
    first = f"""command train {settings} epochs=1 'run="é"'"""
    again = """command train 'resume="é"' epochs=2"""
    result = shell(f"{first} && {again}", tmp_path, **ascii)
    assert result.returncode == 0, result.stderr
    assert shell("command report runs=.", tmp_path, **ascii).returncode == 0
    kinds = (".txt", ".yaml", ".json", ".csv", ".md", ".svg")
    written = {name: data for name, data in contents(tmp_path).items() if name.endswith(kinds)}
    assert len(written) > 8 and all(data.decode() for data in written.values())
    assert 'resume="é"' in written["é/README.txt"].decode()
