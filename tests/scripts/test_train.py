"""The train command as a process."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from agent.signals import AGAIN
from agent.storage import checkpoint
from tests.equal import check_equal
from tests.scripts.commands import ROOT, start_command, train
from tests.tiny import TINY

SHORT = (*TINY, "evaluate_every=99", "logger=csv")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copy(Path(__file__).with_name("odd_envs.py"), tmp_path)
    return tmp_path


def test_what_it_prints(finished: Path):
    """A new run in a process of its own; nothing on standard output but what is meant for it."""
    command = [sys.executable, ROOT / "scripts" / "train.py", *TINY, "epochs=1"]
    result = subprocess.run(
        command, cwd=finished.parent, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [lines.pop(2) for _ in range(3)] == [
        "frames: observation: 32×32×3 of Box(0, 255, (32, 32, 3), uint8), read as hwc "
        "(env.layout): as it is",
        "actions: Discrete(3): one of 3",
        "schedule: 1 epoch, 60 steps in all, by 3 environments together; updates: tokenizer 3, "
        "dynamics 3, policy 0",
    ]
    assert re.match(
        r"learning: horizon \d+, burn-in \d+, γ .*, λ .*, entropy .*, context \d+$", lines.pop(2)
    )
    assert re.fullmatch(r"cpu, eager, (fp32|bf16): about .* of updates .*", lines.pop(2))
    assert [line.split(":")[0] for line in lines[1:]] == [
        "run folder",
        "checkpoint",
        "curves",
        "dream",
        "evaluate",
    ]
    folder = finished.parent / lines[1].split()[-1]
    assert folder.parent == finished.parent / "runs" / "catch"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", folder.name)
    for line in lines[2:5]:
        assert (finished.parent / line.split()[-1]).exists(), line
    assert len(result.stderr.splitlines()) <= 2  # a run of seconds, into a file: no bars


@pytest.mark.slow
def test_resume(finished: Path, tmp_path: Path):
    """Two and two epochs are four."""
    run = shutil.copytree(finished, tmp_path / "halves")
    assert train("resume=halves", "epochs=4", cwd=tmp_path).code == 0
    assert train(*TINY, "epochs=4", "run=whole", cwd=tmp_path).code == 0
    check_equal(tmp_path / "whole", run)
    assert checkpoint.load(run).epoch == 4


def test_help_and_cfg(tmp_path: Path):
    text = train("--help", cwd=tmp_path)
    assert text.code == 0 and "catch|crafter|crafter_1m|crafter_gpu|crafter_laptop" in text.out
    assert "agent.tokenizer.tokens=4 " in text.out and "Δ-tokens a step, K." in text.out
    config = train("experiment=catch", "--cfg", "job", cwd=tmp_path)
    assert config.code == 0 and "experiment: catch" in config.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [False, True])
def test_an_environment_that_breaks_its_word(place: Path, parallel: bool):
    """At the trial nothing is left behind; later, what was played and learned stays."""
    broken = (
        "env.id=odd_envs:NotANumber-v0",
        "run=new/run",
        "collect.num_envs=1",
        f"env.parallel={parallel}",
    )
    for sound_steps, left in ((0, None), (40, "epoch_000000_paused"), (80, "epoch_000001_paused")):
        result = train(*SHORT, *broken, f"env.kwargs.sound_steps={sound_steps}", cwd=place)
        assert result.code == 2
        assert "odd_envs:NotANumber-v0" in result.err and "it returned the reward nan" in result.err
        assert result.err.count("\n") == 1, result.err
        assert (place / "new").exists() == (left is not None)
        if left is not None:
            assert checkpoint.newest(place / "new" / "run").name == left
            assert f"{left} (go on with resume=new/run env.id=odd_envs:NotANumber-v0)" in result.err
            shutil.rmtree(place / "new")


@pytest.mark.slow
def test_processes_import_what_their_environments_need(place: Path):
    """And not the command, with torch; what they draw at random differs."""
    result = train(*SHORT, "env.id=odd_envs:Apart-v0", "env.parallel=true", "epochs=1", cwd=place)
    assert result.code == 0, result.err
    lines = (place / "apart").read_text().splitlines()
    assert len(lines) == len(set(lines)) > 6 and all(line.startswith("False") for line in lines)


@pytest.mark.slow
def test_an_environment_that_its_seed_does_not_decide(place: Path):
    """When such a run is resumed, its running episodes are cut, it says so, and goes on."""
    unseeded = "env.id=odd_envs:Unseeded-v0"
    assert train(*SHORT, unseeded, "run=run", cwd=place).code == 0
    before = checkpoint.load(place / "run").state["replay"]["steps_added"]
    result = train("resume=run", unseeded, "epochs=4", cwd=place)
    assert result.code == 0, result.err
    assert (
        "did not come back as they were; their running episodes count as truncated." in result.out
    )
    after = checkpoint.load(place / "run")
    assert after.epoch == 4 and after.state["replay"]["steps_added"] >= before + 80
    assert after.tensors["replay"]["truncated"].sum() >= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to_all", "code"),
    [
        (signal.SIGINT, True, 130), (signal.SIGTERM, True, AGAIN), (signal.SIGKILL, False, -signal.SIGKILL),
        (signal.SIGINT, False, 130), (signal.SIGTERM, False, AGAIN), (signal.SIGUSR1, True, AGAIN),
    ],
)  # fmt: skip
def test_stopped(place: Path, number: signal.Signals, to_all: bool, code: int):
    """Ctrl-C and Slurm signal all processes, kill only one.

    None is left, the run is saved, and it goes on.
    """
    arguments = (*SHORT, "epochs=100000", "keep=1", "env.parallel=true", "run=run")
    process = start_command("train", arguments, cwd=place, output=place)
    try:
        deadline = time.monotonic() + 120
        while (checkpoint.newest(place / "run") or Path("")).name < "epoch_000002":
            assert process.is_alive() and time.monotonic() < deadline, (place / "err").read_text()
            time.sleep(0.05)
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 3
        (os.killpg if to_all else os.kill)(process.pid, number)
        process.join(60)
        assert psutil.wait_procs(workers, timeout=5)[1] == []
        assert process.exitcode == code
        if number != signal.SIGKILL:
            lines = (place / "err").read_text().strip().splitlines()
            assert (
                lines[0]
                == f"{number.name}: stops and saves after the present update; Ctrl-C stops at once."
            )
            saved = (
                r"Saved and stopped in epoch (\d+); the last good checkpoint is "
                r"run/checkpoints/epoch_\d+(_paused)? \(go on with"
            )
            assert re.match(saved, lines[1]) and len(lines) == 2, lines
            assert checkpoint.load(place / "run").epoch == int(re.match(saved, lines[1])[1])
    finally:
        process.kill()
    epoch = checkpoint.load(place / "run").epoch
    resumed = train("resume=run", f"epochs={epoch + 1}", cwd=place)
    assert resumed.code == 0, resumed.err
