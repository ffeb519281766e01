"""Atari 100k: trained and evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import imageio.v2 as imageio

from agent.runs.api import configure
from agent.runs.train import train
from agent.storage.metrics import read_metrics
from tests.scripts.commands import evaluate

FEW = (
    "epochs=2", "evaluate_every=2", "tokenizer.first_updates=40", "tokenizer.updates=5", "dynamics.first_updates=40",
    "dynamics.updates=5", "policy.first_updates=5", "policy.updates=5", "learner.mode=eager", "evaluation.episodes=3",
    "env.kwargs.max_frames=1200", "env.evaluation_kwargs.max_frames=600",
)  # fmt: skip


def test_the_whole_way(tmp_path: Path):
    """Pong, lost points and all: sign rewards, a scalar critic, its own protocol in evaluation."""
    train(configure("experiment=atari_quick", *FEW, f"run={tmp_path / 'pong'}"), [])
    rows = read_metrics(tmp_path / "pong" / "metrics.csv")
    assert [row["step"] for row in rows] == [2000, 2200]
    assert rows[0]["collect/length_mean"] <= 300  # 1200 frames, of which up to 30 are no-ops

    result = evaluate("run=pong", "episodes=2", "num_envs=2", cwd=tmp_path)
    assert result.code == 0, result.err
    (path,) = (tmp_path / "pong").glob("evaluation_agent_*_episodes_2.json")
    content = json.loads(path.read_text())
    assert content["lengths"] == [150] * 2 and set(content["returns"]) <= set(range(-4, 3))
    protocol = {"noops": 1, "max_frames": 600, "end_on_life_loss": False}
    assert content["protocol"] == content["training_protocol"] | protocol
    film = imageio.get_reader(path.with_name(f"{path.stem}_best.mp4"))
    assert film.count_frames() == 151 and film.get_data(0).shape == (210, 160, 3)
