"""The commands on a disk that is full, before a damaged checkpoint, and before files of others."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.storage import checkpoint
from tests.equal import look
from tests.scripts.commands import run_command, train
from tests.scripts.test_bad_input import check_refused
from tests.tiny import TINY

RESUME = ("train", "resume=run", "epochs=3")
EVALUATE = ("evaluate", "run=run")
PLAY = ("play", "run=run", "by=agent", "video=film.mp4", "steps=3")
REPORT = ("report", "runs=run", "output=report")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "command"),
    [("manifest.json", PLAY), ("state.json", EVALUATE), ("metrics.csv", RESUME), ("rows", RESUME)],
)
def test_a_file_of_somebody_else(
    tmp_path: Path, finished: Path, file: str, command: tuple[str, ...]
):
    """One sentence, and nothing changes."""
    run = shutil.copytree(finished, tmp_path / "run")
    saved = checkpoint.load(run)
    places = {"metrics.csv": run / file, "rows": run / saved.chunks[-1].path}
    path = places.get(file, saved.folder / file)
    path.write_text("import os\n")
    before = look(tmp_path)
    script, *arguments = command
    check_refused(run_command(script, tuple(arguments), tmp_path), path.name)
    assert look(tmp_path) == before


@pytest.mark.slow
def test_a_report_leaves_out_what_is_not_ours(tmp_path: Path, finished: Path):
    run = shutil.copytree(finished, tmp_path / "run")
    for path in (run / "metrics.csv", next(run.glob("evaluation_*.json"))):
        path.write_text("import os\n")
    script, *arguments = REPORT
    result = run_command(script, tuple(arguments), tmp_path)
    assert result.code == 0 and "Traceback" not in result.err
    assert "metrics.csv" in result.err and "evaluation_" in result.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=5m", "none", place]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.slow
def test_a_run_fills_its_disk(tmp_path: Path, small_disk: Path):
    """It stops with a sentence, its last checkpoint is whole; with room it goes on."""
    run = small_disk / "run"
    settings = (f"run={run}", "epochs=30", "replay.capacity=300", "keep=1", "learner.mode=eager")
    result = train(*TINY, *settings, cwd=tmp_path)
    assert result.code == 1, result.err
    assert re.search(
        r"^Stopped in epoch \d+: the disk is full, \S+ could not be written; free some space: .*\n\Z",
        result.err,
        re.MULTILINE,
    )
    last = checkpoint.load(run)
    last.verify()
    assert f"{last.folder} (go on with resume={run})." in result.err
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    again = train(f"resume={run}", f"epochs={last.epoch + 1}", cwd=tmp_path)
    assert again.code == 0, again.err
    assert checkpoint.load(run).epoch == last.epoch + 1
    assert not [path for path in run.rglob(".*") if path.name != ".lock"]


@pytest.mark.slow
def test_a_damaged_checkpoint_by_the_commands(tmp_path: Path, finished: Path):
    run = shutil.copytree(finished, tmp_path / "run")
    first, second = (checkpoint.folder_of(run, epoch) for epoch in (1, 2))
    path = second / "agent.safetensors"
    os.truncate(path, 1000)
    for script, *arguments in (RESUME, EVALUATE, PLAY):
        result = run_command(script, tuple(arguments), tmp_path)
        check_refused(result, f"{path} was changed")
    assert f"{first} is whole" in train(*RESUME[1:], cwd=tmp_path).err
    result = train("resume=run", "epochs=3", "damaged=previous", cwd=tmp_path)
    assert result.code == 0, result.err
    assert f"{path} was changed" in result.out
    assert f"The newest whole checkpoint is {first}." in result.out
    assert checkpoint.load(run).epoch == 3
