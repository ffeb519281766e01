"""A run on a disk that is full."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.storage import checkpoint
from tests.scripts.commands import here
from tests.tiny import TINY


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=5m", "none", place]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_run_fills_its_disk(tmp_path: Path, small_disk: Path):
    """It stops with a sentence, its last checkpoint is whole; with room it goes on."""
    run = small_disk / "run"
    settings = (f"run={run}", "epochs=30", "replay.capacity=300", "keep=1", "learner.mode=eager")
    result = here("train", *TINY, *settings, cwd=tmp_path)
    assert result.code == 1, result.err
    sentence = (
        r"Stopped in epoch \d+: the disk is full, \S+ could not be written; free some space: "
    )
    assert re.search(sentence, result.err)
    last = checkpoint.load(run)
    last.verify()
    assert f"{last.folder} (go on with resume={run})." in result.err
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    again = here("train", f"resume={run}", f"epochs={last.epoch + 1}", cwd=tmp_path)
    assert again.code == 0, again.err
    assert checkpoint.load(run).epoch == last.epoch + 1
    assert not [path for path in run.rglob(".*") if path.name != ".lock"]
