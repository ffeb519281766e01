"""What user code imports, from a clone and from a wheel."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import deltadream
import pytest
from deltadream import Callback, train

from tests.tiny import TINY, leave_out_films

ROOT = Path(__file__).parent.parent


def test_every_public_name_is_there() -> None:
    assert all(getattr(deltadream, name).__doc__ for name in deltadream.__all__)
    with pytest.raises(AttributeError, match="deltadream"):
        _ = deltadream.nothing


def test_importing_it_takes_no_torch() -> None:
    code = (
        "import sys, deltadream; from deltadream import train, evaluate; "
        "print('torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


def test_every_room_is_packed() -> None:
    """pyproject.toml lists them one by one: a new one must not be forgotten."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    inits = [f for top in ("agent", "envs") for f in (ROOT / top).rglob("__init__.py")]
    rooms = {".".join(f.parent.relative_to(ROOT).parts) for f in inits} - {"agent.deltadream"}
    assert set(listed) == rooms | {"deltadream", "deltadream.configs"}


class Watch(Callback):
    """Notes what is called, and has the run end after an epoch."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_start(self, trainer) -> None:
        self.calls.append("start")

    def on_stage_end(self, trainer, stage, metrics) -> None:
        self.calls.append(stage)

    def on_epoch_end(self, trainer, metrics) -> None:
        self.calls.append(f"epoch {trainer.epoch}")
        assert {"evaluate/return_mean", "tokenizer/loss", "collect/episodes"} < set(metrics)
        if trainer.epoch == 2:
            trainer.finish()

    def on_stop(self, trainer) -> None:
        self.calls.append("stop")


def test_a_callback_sees_the_run_and_ends_it(tmp_path, monkeypatch) -> None:
    leave_out_films(monkeypatch)
    watch = Watch()
    settings = [s for s in TINY if not s.startswith(("env.id", "epochs"))]
    run = train(
        "deltadream/Catch-v0",
        *settings,
        f"run={tmp_path / 'run'}",
        "epochs=9",
        "policy.start_epoch=0",
        callbacks=[watch],
    )
    epoch = ["collect", "tokenizer", "dynamics", "policy", "evaluate"]
    expected = ["start"]
    for number in (1, 2):
        expected += [*epoch, f"epoch {number}", "save"]
    assert watch.calls == [*expected, "stop"]
    assert (run / "checkpoints" / "epoch_000002").is_dir()


@pytest.mark.slow
def test_a_wheel_trains_and_evaluates(tmp_path) -> None:
    """Built from the tracked files, unpacked outside the clone, and used there."""
    clone, wheels, site = tmp_path / "clone", tmp_path / "wheels", tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]

    def run(*command: str, cwd: Path = tmp_path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr

    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    for name in files.split():
        if name.startswith(("agent/", "envs/", "configs/", "pyproject", "README", "LICENSE")):
            target = clone / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(clone))
    (wheel,) = wheels.glob("deltadream-*.whl")
    run(*pip, "install", "--no-deps", "--target", str(site), str(wheel))
    settings = [s for s in TINY if not s.startswith(("env.id", "epochs"))]
    code = f"""
import agent, deltadream
assert agent.__file__.startswith({str(site)!r}) and deltadream.__file__.startswith({str(site)!r})
run = deltadream.train("deltadream/Catch-v0", *{settings!r}, "epochs=1", "run=run")
assert len(deltadream.evaluate(run, episodes=3).returns) == 3
"""
    run(sys.executable, "-c", code)
