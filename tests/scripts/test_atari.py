"""Atari 100k from the command line: trained, evaluated, reported."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import imageio.v2 as imageio

from tests.scripts.commands import evaluate, run_command, train

# experiment=atari_quick, with a fifth of its updates.
SHRUNKEN = (
    "tokenizer.first_updates=200", "tokenizer.updates=10", "dynamics.first_updates=100", "dynamics.updates=10",
    "policy.first_updates=10", "policy.updates=10", "epochs=3", "evaluate_every=3", "env.kwargs.max_frames=1200",
)  # fmt: skip


def test_the_whole_way(tmp_path: Path):
    """Pong, lost points and all: sign rewards, a scalar critic, its own protocol in evaluation."""
    result = train(
        "experiment=atari_quick",
        *SHRUNKEN,
        "env.evaluation_kwargs.max_frames=600",
        "run=pong",
        cwd=tmp_path,
    )
    assert result.code == 0, result.err
    with open(tmp_path / "pong" / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2000, 2200, 2400]
    assert float(rows[0]["collect/length_mean"]) <= 300  # 1200 frames, of which up to 30 are no-ops
    # Δ-tokens are learned: far below the 5.5 nats of 256 codes.
    assert 0 < float(rows[-1]["dynamics/tokens"]) / 0.1 < 5
    assert float(rows[-1]["tokenizer/reconstruction_l2"]) < 0.01

    result = evaluate("run=pong", "episodes=8", "num_envs=4", cwd=tmp_path)
    assert result.code == 0, result.err
    (path,) = (tmp_path / "pong").glob("evaluation_agent_*_episodes_8.json")
    content = json.loads(path.read_text())
    assert content["lengths"] == [150] * 8 and all(
        value in range(-4, 3) for value in content["returns"]
    )
    assert content["protocol"] == content["training_protocol"] | {
        "noops": 1,
        "max_frames": 600,
        "end_on_life_loss": False,
    }
    for name in ("best", "median"):
        film = imageio.get_reader(path.with_name(f"{path.stem}_{name}.mp4"))
        assert film.count_frames() == 151 and film.get_data(0).shape == (210, 160, 3)

    result = run_command("report", ("runs=pong",), tmp_path)
    assert result.code == 0, result.err
    report = (tmp_path / "pong" / "report" / "report.md").read_text()
    assert "Pong" in report and "sticky_actions" in report and "max_frames" in report
