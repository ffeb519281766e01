"""The train command."""

import os
import re
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from agent.signals import AGAIN
from agent.storage import checkpoint
from tests.scripts.commands import here, start_command, train
from tests.tiny import TINY

SHORT = (*TINY, "evaluate_every=99", "logger=csv")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copy(Path(__file__).with_name("odd_envs.py"), tmp_path)
    return tmp_path


def test_what_it_prints(tmp_path: Path):
    result = here("train", *TINY, "epochs=1", cwd=tmp_path)
    assert result.code == 0, result.err
    patterns = [
        r"catch on deltadream/Catch-v0: .*",
        r"run folder: runs/catch/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}",
        r"frames: observation: 32×32×3 of Box.*",
        r"actions: Discrete\(3\).*",
        r"schedule: 1 epochs, 60 steps in 3 environments; updates: tokenizer 3, dynamics 3, policy 0",
        r"learning: horizon \d+, burn-in \d+, γ .*, λ .*, entropy .*, context \d+",
        r"cpu, eager, (fp32|bf16): about .* of updates .*",
        *(rf"{name}: +runs/catch/.*" for name in ("checkpoint", "curves", "dream")),
        r"evaluate: +python scripts/evaluate.py run=runs/catch/.*",
    ]
    lines = result.out.splitlines()
    for pattern, line in zip(patterns, lines, strict=True):
        assert re.fullmatch(pattern, line), (pattern, line)
    for line in lines[7:10]:
        assert (tmp_path / line.split()[-1]).exists(), line


def test_help_and_cfg(tmp_path: Path):
    text = here("train", "--help", cwd=tmp_path)
    assert text.code == 0 and "catch|crafter|crafter_1m|crafter_gpu|crafter_laptop" in text.out
    assert "agent.tokenizer.tokens=4 " in text.out and "Δ-tokens a step, K." in text.out
    config = here("train", "experiment=catch", "--cfg", "job", cwd=tmp_path)
    assert config.code == 0 and "experiment: catch" in config.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sound_steps", "left"), [(0, None), (40, "epoch_000000_paused"), (80, "epoch_000001_paused")]
)
def test_an_environment_that_breaks_its_word(place: Path, sound_steps: int, left: str | None):
    """At the trial nothing is left behind; later, what was played and learned stays."""
    own = "env.id=odd_envs:NotANumber-v0"
    more = ("run=run", "collect.num_envs=1", f"env.kwargs.sound_steps={sound_steps}")
    result = here("train", *SHORT, own, *more, cwd=place)
    assert result.code == 2 and result.err.count("\n") == 1, result.err
    assert "odd_envs:NotANumber-v0" in result.err and "it returned the reward nan" in result.err
    assert (place / "run").exists() == (left is not None)
    if left is not None:
        assert checkpoint.newest(place / "run").name == left
        assert f"{left} (go on with resume=run {own})" in result.err


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
    assert here("train", *SHORT, unseeded, "run=run", cwd=place).code == 0
    before = checkpoint.load(place / "run").state["replay"]["steps_added"]
    result = here("train", "resume=run", unseeded, "epochs=4", cwd=place)
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
    [(signal.SIGINT, True, 130), (signal.SIGUSR1, False, AGAIN), (signal.SIGKILL, False, -9)],
)
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
        process.join(300)
        assert psutil.wait_procs(workers, timeout=5)[1] == []
        assert process.exitcode == code
        if number != signal.SIGKILL:
            first, second = (place / "err").read_text().strip().splitlines()
            assert first.startswith(f"{number.name}: stops and saves after the present update")
            saved = (
                r"Saved and stopped in epoch (\d+); the last good checkpoint is "
                r"run/checkpoints/epoch_\d+(_paused)? \(go on with"
            )
            assert checkpoint.load(place / "run").epoch == int(re.match(saved, second)[1])
    finally:
        process.kill()
    epoch = checkpoint.load(place / "run").epoch
    resumed = here("train", "resume=run", f"epochs={epoch + 1}", "env.parallel=false", cwd=place)
    assert resumed.code == 0, resumed.err
