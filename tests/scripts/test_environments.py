"""Environments of other packages, trained by one command each, with experiment=tiny.

`make test-long` trains them in full; what that gave stands in docs/results/environments/.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap

from agent.runs.api import configure
from agent.runs.train import train as train_here
from agent.storage.metrics import read_metrics
from tests.scripts.commands import evaluate, train
from tests.tiny import leave_out_films

ENVIRONMENTS = {
    "cartpole": ("env.id=CartPole-v1",),
    "minigrid": ("env.id=minigrid:MiniGrid-Empty-5x5-v0", "env.image=image", "env.range=[0,10]"),
    "minatar": ("env.id=minatar.gym:MinAtar/Breakout-v1",),
    "carracing": ("env.id=CarRacing-v3", "env.size=64", "env.kwargs.max_episode_steps=100"),
    "pong": ("env.id=ale_py:ALE/Pong-v5", "env.kwargs.max_episode_steps=150"),
}
SECONDS = (
    "epochs=1", "collect.num_envs=2", "collect.first_steps=80", "evaluation.episodes=1", "evaluation.max_steps=20",
    *(f"{part}.{what}" for part in ("tokenizer", "dynamics", "policy") for what in ("first_updates=1", "updates=1", "batch=2")),
)  # fmt: skip


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_it_can_be_trained_on(name, tmp_path, monkeypatch):
    """It is read, collected, learned from and evaluated as it comes."""
    leave_out_films(monkeypatch)
    given = ("experiment=tiny", "env=gym", *ENVIRONMENTS[name], *SECONDS)
    train_here(configure(*given, f"run={tmp_path}/run"), [])
    metrics = {}
    for row in read_metrics(tmp_path / "run" / "metrics.csv"):
        metrics |= row
    assert np.isfinite([metrics[f"{part}/loss"] for part in ("tokenizer", "dynamics")]).all()


def returns(run: Path, name: str, *arguments: str) -> np.ndarray:
    output = run.parent / "evaluation.json"
    given = (f"run={run}", ENVIRONMENTS[name][0], f"output={output}", "films=false", *arguments)
    result = evaluate(*given, cwd=run.parent)
    assert result.code == 0, result.err
    return np.array(json.loads(output.read_text())["returns"])


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % of the mean, by bootstrap."""
    low, high = bootstrap((values,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    return float(low), float(high)


# Between two frames the pole moves by less than a pixel: the tokens do not say how fast, and a
# dream of it hardly heeds the action.
NOT_LEARNED = pytest.mark.xfail(reason="not learned: docs/results", strict=True)


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[NOT_LEARNED] * (name == "cartpole")) for name in ENVIRONMENTS],
)
def test_all_in_full(name, tmp_path):
    """None is played worse than by chance, but for CartPole; MiniGrid is played better."""
    given = ("experiment=tiny", "env=gym", *ENVIRONMENTS[name], "run=run")
    result = train(*given, cwd=tmp_path)
    assert result.code == 0, result.err
    run = tmp_path / "run"
    agent, chance = (
        interval(returns(run, name, "episodes=100", *random)) for random in ((), ("random=true",))
    )
    print(name, agent, chance)
    assert agent[1] >= chance[0]
    assert name != "minigrid" or agent[0] > chance[1]
