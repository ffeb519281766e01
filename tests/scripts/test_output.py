"""Output that cannot be written: missing letters, a reader that leaves, a full disk."""

import os
import subprocess
import sys
import time
from pathlib import Path

from agent.signals import AGAIN
from agent.storage import checkpoint
from tests.equal import check_equal
from tests.scripts.commands import ROOT, contents, here, start_command
from tests.tiny import TINY


def shell(line: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of bash, in which `command <name> …` is one of ours."""
    start = f'set -o pipefail; command() {{ {sys.executable} {ROOT}/scripts/$1.py "${{@:2}}"; }}; '
    environment = os.environ | environment
    return subprocess.run(
        ["bash", "-c", start + line], cwd=cwd, env=environment, capture_output=True, timeout=600
    )


def test_letters(tmp_path: Path):
    """Those that a terminal lacks are replaced; files are UTF-8, whatever the locale is."""
    ascii = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
    }
    result = shell(f"""command train {" ".join(TINY)} epochs=1 run=run""", tmp_path, **ascii)
    assert result.returncode == 0 and b"32?32?3" in result.stdout and result.stdout.isascii(), (
        result.stderr
    )
    kinds = (".txt", ".yaml", ".json", ".csv")
    written = {name: data for name, data in contents(tmp_path).items() if name.endswith(kinds)}
    assert len(written) > 5 and all(data.decode() for data in written.values())


def test_a_command_does_its_work_without_a_reader_and_on_a_full_disk(tmp_path: Path):
    result = shell("command check_env env=catch 2>&1 | true", tmp_path)
    assert result.returncode == 0 and b"rror" not in result.stderr, result.stderr
    (tmp_path / "check_env.png").unlink()
    result = shell("command check_env env=catch > /dev/full", tmp_path)
    assert result.returncode == 1 and result.stderr.startswith(
        b"The output is cut (No space left on device)"
    )
    assert (tmp_path / "check_env.png").exists()


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
    resumed = here("train", "resume=run", f"epochs={epoch + 1}", cwd=tmp_path)
    assert resumed.code == 0, resumed.err


def test_a_training_without_a_reader_from_the_start(finished: Path, tmp_path: Path):
    """It is saved before its first epoch, and comes to the same when it is resumed."""
    result = shell(f"command train {' '.join(TINY)} run=run | true", tmp_path)
    assert result.returncode == AGAIN, result.stderr
    lines = result.stderr.decode().splitlines()
    assert "Nobody reads the output" in lines[0] and len(lines) == 2
    assert "epoch_000000_paused (go on with resume=run)" in lines[1]
    assert here("train", "resume=run", cwd=tmp_path).code == 0
    check_equal(finished, tmp_path / "run")
