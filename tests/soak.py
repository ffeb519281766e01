"""Memory, open files and threads of a long run: python -m tests.soak minutes=20 output=<folder>

Tiny networks on Catch, a replay that turns over every 20 epochs, parallel environments, evaluations, films and checkpoints. Of the run's
process and its environments' together, every two seconds; written as soak.json and soak.png. What is after the first fifth must
stay within 2 % in memory, and have as many files and threads as it had, but for the evaluations' own environments.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from matplotlib.figure import Figure

from agent.logger import read_metrics
from agent.stopping import AGAIN
from tests.scripts.commands import ROOT
from tests.tiny import TINY

SETTINGS = (
    *TINY, "epochs=1000000", "run=run", "env.parallel=true", "evaluation.parallel=false", "collect.num_envs=8", "collect.epochs=1000000",
    "collect.first_steps=4000", "collect.steps=1000", "replay.capacity=20000", "evaluate_every=20", "checkpoint_every=5", "keep=2",
)  # fmt: skip
SECONDS = 2.0
NAMES = ("minutes", "memory_mb", "files", "threads")


def look(process: psutil.Process) -> tuple[float, int, int]:
    """Memory of its own in MB, open files and threads, of a process and its children."""
    family = [process, *process.children(recursive=True)]
    memory = sum(one.memory_info().rss - getattr(one.memory_info(), "shared", 0) for one in family)
    return memory / 1e6, sum(one.num_fds() for one in family), sum(one.num_threads() for one in family)


def main(minutes: float, output: Path) -> dict[str, float]:
    """Runs, looks, writes, and returns the verdict."""
    samples: list[tuple[float, float, int, int]] = []
    with tempfile.TemporaryDirectory() as place, open(Path(place) / "err", "w") as errors:
        command = [sys.executable, str(ROOT / "scripts" / "train.py"), *SETTINGS]
        child = subprocess.Popen(command, cwd=place, stdout=errors, stderr=errors, env=os.environ | {"PYTHONPATH": str(ROOT)})
        started, process = time.monotonic(), psutil.Process(child.pid)
        while (passed := (time.monotonic() - started) / 60) < minutes and child.poll() is None:
            samples.append((passed, *look(process)))
            time.sleep(SECONDS)
        child.send_signal(signal.SIGTERM)
        if child.wait(120) != AGAIN:
            raise AssertionError((Path(place) / "err").read_text()[-3000:])
        steps = read_metrics(Path(place) / "run" / "metrics.csv")[-1]["step"]
    steady = [sample for sample in samples if sample[0] > minutes / 5]
    result = {"steps": steps, "minutes": samples[-1][0]}
    for i, name in enumerate(NAMES[1:], start=1):
        values = sorted(sample[i] for sample in steady)
        first, last = (sorted(s[i] for s in part)[len(part) // 2] for part in (steady[: len(steady) // 4], steady[-len(steady) // 4 :]))
        result |= {f"{name}_least": values[0], f"{name}_most": values[-1], f"{name}_first_quarter": first, f"{name}_last_quarter": last}
    output.mkdir(parents=True, exist_ok=True)
    (output / "soak.json").write_text(json.dumps(result | {"samples": [dict(zip(NAMES, s, strict=True)) for s in samples]}, indent=1) + "\n")
    draw(samples, result, output / "soak.png")
    return result


def draw(samples: list[tuple[float, float, int, int]], result: dict[str, float], path: Path) -> None:
    """Three curves over minutes."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    times, *curves = zip(*samples, strict=True)
    for axes, name, curve in zip(figure.subplots(3, sharex=True), ("memory, MB", "open files", "threads"), curves, strict=True):
        axes.plot(times, curve, linewidth=1)
        axes.set_ylabel(name)
        axes.set_ylim(0)
    axes.set_xlabel(f"minutes; {result['steps']:,.0f} environment steps in all")
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    given = dict(argument.split("=") for argument in sys.argv[1:])
    verdict = main(float(given.get("minutes", 20)), Path(given.get("output", "soak")))
    print(json.dumps(verdict, indent=1))
    growth = verdict["memory_mb_last_quarter"] / verdict["memory_mb_first_quarter"] - 1
    same = all(verdict[f"{name}_first_quarter"] == verdict[f"{name}_last_quarter"] for name in ("files", "threads"))
    print(f"memory {growth:+.1%}, files and threads {'the same' if same else 'not the same'}")
    sys.exit(0 if growth < 0.02 and same else 1)
