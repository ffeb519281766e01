"""Memory, open files and threads of a long run: python -m tests.soak minutes=20 output=<folder>

Tiny networks on Catch, a replay that turns over every 20 epochs, parallel environments,
evaluations, films and checkpoints. Of the run's process and its environments' together, every two
seconds; written as soak.json and soak.png. After the first fifth, memory must stay within 2 %, and
files and threads as many as they were, but for the evaluations' own environments.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from matplotlib.figure import Figure

from agent.signals import AGAIN
from tests.scripts.commands import ROOT
from tests.tiny import TINY

SETTINGS = (
    *TINY, "epochs=1000000", "run=run", "env.parallel=true", "evaluation.parallel=false", "collect.num_envs=8", "collect.epochs=1000000",
    "collect.first_steps=4000", "collect.steps=1000", "replay.capacity=20000", "evaluate_every=20", "checkpoint_every=5", "keep=2",
)  # fmt: skip
NAMES = ("memory_mb", "files", "threads")


def look(process: psutil.Process) -> tuple[float, int, int]:
    """Memory of its own in MB, open files and threads, of a process and its children."""
    family = [process, *process.children(recursive=True)]
    infos = [one.memory_info() for one in family]
    memory = sum(info.rss - getattr(info, "shared", 0) for info in infos)
    files = sum(one.num_fds() for one in family)
    return memory / 1e6, files, sum(one.num_threads() for one in family)


def sample(minutes: float) -> list[tuple[float, ...]]:
    """Minutes and what `look` saw, of a run that is then stopped."""
    samples: list[tuple[float, ...]] = []
    with tempfile.TemporaryDirectory() as place, open(Path(place) / "err", "w") as errors:
        command = [sys.executable, str(ROOT / "scripts" / "train.py"), *SETTINGS]
        paths = os.environ | {"PYTHONPATH": str(ROOT)}
        child = subprocess.Popen(command, cwd=place, stdout=errors, stderr=errors, env=paths)
        started, process = time.monotonic(), psutil.Process(child.pid)
        while (passed := (time.monotonic() - started) / 60) < minutes and child.poll() is None:
            samples.append((passed, *look(process)))
            time.sleep(2)
        child.send_signal(signal.SIGTERM)
        if child.wait(120) != AGAIN:
            raise AssertionError((Path(place) / "err").read_text()[-3000:])
    return samples


def main(minutes: float, output: Path) -> bool:
    """Samples, writes, and says whether all stayed as it was."""
    samples = sample(minutes)
    figure = Figure(figsize=(8, 5), layout="constrained")
    panels = dict(zip(NAMES, figure.subplots(3, sharex=True), strict=True))
    quarters = {}
    for i, name in enumerate(NAMES, start=1):
        panels[name].plot([s[0] for s in samples], [s[i] for s in samples], linewidth=1)
        panels[name].set(ylabel=name, ylim=(0, None))
        steady = [s[i] for s in samples if s[0] > minutes / 5]
        quarter = len(steady) // 4
        quarters[name] = [statistics.median(p) for p in (steady[:quarter], steady[-quarter:])]
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "soak.png", dpi=130)
    result = {"first_and_last_quarter": quarters, "samples": samples}
    (output / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
    print(quarters)
    first, last = quarters.pop("memory_mb")
    return last / first < 1.02 and all(first == last for first, last in quarters.values())


if __name__ == "__main__":
    given = dict(argument.split("=") for argument in sys.argv[1:])
    sys.exit(not main(float(given.get("minutes", 20)), Path(given.get("output", "soak"))))
