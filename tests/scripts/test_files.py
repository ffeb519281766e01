"""The commands before files that somebody else wrote, and on a disk that is full: one sentence, and nothing else happens."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import checkpoint
from tests.attacks import ATTACKS, MEMORY, PLACES, attack, attack_rows, look
from tests.scripts.commands import Result, run_command, train
from tests.scripts.test_bad_input import check_refused
from tests.tiny import TINY

# File -> the commands that read it.
RESUME, EVALUATE, PLAY, REPORT = (
    ("train", "resume=run", "epochs=4"), ("evaluate", "run=run"), ("play", "run=run", "by=agent", "video=film.mp4", "steps=3"),
    ("report", "runs=run", "output=report"),
)  # fmt: skip
READ_BY = {
    "manifest.json": [RESUME, EVALUATE, PLAY],
    "state.json": [RESUME, EVALUATE, PLAY],
    "agent.safetensors": [RESUME, EVALUATE, PLAY],
    "dynamics_optimizer.safetensors": [RESUME],
    "replay.safetensors": [RESUME],
    "collector.safetensors": [RESUME],
    "random.safetensors": [RESUME],
    "rows": [RESUME],
    "metrics.csv": [RESUME, REPORT],
    ".lock": [RESUME],
    "config.yaml": [REPORT],
    "evaluation": [REPORT],
}
OFTEN = ("pickle", "link out", "pipe")  # the others too, in `make test-long`
LOGS_WITHOUT_ROWS = ("nothing", "one long line")


def cases() -> Iterator:
    for file, commands in READ_BY.items():
        for name in ATTACKS if file != ".lock" else ("pickle", *PLACES):  # nobody reads what is in a lock
            for command in commands:
                often = name in OFTEN and command is commands[OFTEN.index(name) % len(commands)]
                yield pytest.param(file, name, command, marks=() if often else pytest.mark.long, id=f"{file}-{name}-{command[0]}")


def place_of(run: Path, file: str) -> Path:
    if file == "evaluation":
        return next(run.glob("evaluation_*.json"))
    return run / file if file in READ_BY and (run / file).exists() else checkpoint.newest(run) / file


@pytest.mark.parametrize(("file", "name", "command"), cases())
def test_a_file_of_somebody_else(tmp_path: Path, finished: Path, file: str, name: str, command: tuple[str, ...]):
    here, outside = tmp_path / "here", tmp_path / "outside"
    outside.mkdir()
    here.mkdir()
    run = shutil.copytree(finished, here / "run")
    shutil.rmtree(run / "checkpoints" / "epoch_000001")
    if file == "rows":
        path = attack_rows(run, name, outside)
    else:
        attack(path := place_of(run, file), name, outside)
    before = look(tmp_path)
    script, *arguments = command
    result = run_command(script, tuple(arguments), here, memory=MEMORY + 2**30, seconds=120)
    if (file == ".lock" and name in ("pickle", "sparse")) or (file == "metrics.csv" and command is RESUME and name in LOGS_WITHOUT_ROWS):
        assert result.code == 0, result.err
        assert {place for place in look(tmp_path) if "outside" in place or place == "here/it_ran"} == {"outside"}
        return
    if script == "report" and file != "config.yaml":
        check_left_out(result, path.name if name not in LOGS_WITHOUT_ROWS or file != "metrics.csv" else "")
        shutil.rmtree(here / "report")
    else:
        check_refused(result)
    assert look(tmp_path) == before


def check_left_out(result: Result, name: str) -> None:
    """The report is written without the file, and says so."""
    assert result.code == 0, result.err
    lines = [line for line in result.err.splitlines() if name and name in line]
    assert len(lines) == bool(name) and "Traceback" not in result.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3600k", "none", place], capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_run_fills_its_disk(tmp_path: Path, small_disk: Path):
    """It stops with a sentence, its last checkpoint is whole; with room it goes on."""
    run = small_disk / "run"
    result = train(*TINY, f"run={run}", "epochs=30", "replay.capacity=300", "keep=1", "learner.mode=eager", cwd=tmp_path)
    assert result.code == 1 and result.err.count("\n") == 1, result.err
    assert re.search(r"^Stopped in epoch \d+: the disk is full, \S+ could not be written; free some space: the last good", result.err)
    last = checkpoint.load(run)
    for chunk in last.chunks:
        checkpoint.read_rows(run, chunk)
    assert f"{last.folder} (go on with resume={run})." in result.err
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    again = train(f"resume={run}", f"epochs={last.epoch + 1}", cwd=tmp_path)
    assert again.code == 0, again.err
    assert checkpoint.load(run).epoch == last.epoch + 1
    assert not [path for path in run.rglob(".*") if path.name != ".lock"]


def test_a_damaged_checkpoint_by_the_commands(tmp_path: Path, finished: Path):
    run = shutil.copytree(finished, tmp_path / "run")
    path = run / "checkpoints" / "epoch_000002" / "agent.safetensors"
    os.truncate(path, 1000)
    instead = "give the checkpoint before it, " + str(run / "checkpoints" / "epoch_000001")
    for script, *arguments in (RESUME, EVALUATE, PLAY):
        check_refused(run_command(script, tuple(arguments), tmp_path), "agent.safetensors has 1000 bytes", instead)
    result = train("resume=run", "epochs=3", "damaged=previous", cwd=tmp_path)
    assert result.code == 0, result.err
    assert f"{path} has 1000 bytes" in result.out and f"The newest whole checkpoint is {run / 'checkpoints' / 'epoch_000001'}." in result.out
    assert checkpoint.load(run).epoch == 3
