"""Environments of other packages, trained by one command each: experiment=tiny, as anyone would type it.

`make test-long` trains them in full; what that gave stands in docs/results/environments/.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from agent.collect import Collector
from agent.previews import reconstruct
from agent.replay import Replay, ReplayConfig
from agent.run import load_agent
from envs.vector import make_vector
from tests.scripts.commands import evaluate, train
from tests.scripts.test_learning import curve

ENVIRONMENTS = {
    "cartpole": ("env.id=CartPole-v1",),
    "minigrid": ("env.id=minigrid:MiniGrid-Empty-5x5-v0", "env.image=image", "env.range=[0,10]"),
    "minatar": ("env.id=minatar.gym:MinAtar/Breakout-v1",),
    "carracing": ("env.id=CarRacing-v3", "env.size=64", "env.kwargs.max_episode_steps=100"),
    "pong": ("env.id=ale_py:ALE/Pong-v5", "env.kwargs.max_episode_steps=150"),
}
SHORT = (
    "epochs=3", "collect.first_steps=800", "collect.steps=100", "tokenizer.first_updates=300", "dynamics.first_updates=120",
    "tokenizer.updates=10", "dynamics.updates=20", "policy.first_updates=5", "policy.updates=5", "evaluation.episodes=2",
)  # fmt: skip


def learn(name: str, folder: Path, *changes: str) -> Path:
    result = train("experiment=tiny", "env=gym", *ENVIRONMENTS[name], *changes, "run=run", cwd=folder)
    assert result.code == 0, result.err
    return folder / "run"


def returns(run: Path, name: str, *arguments: str) -> np.ndarray:
    output = run.parent / "evaluation.json"
    env_id = ENVIRONMENTS[name][0]
    result = evaluate(f"run={run}", env_id, f"output={output}", "films=false", *arguments, cwd=run.parent)
    assert result.code == 0, result.err
    return np.array(json.loads(output.read_text())["returns"])


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % of the mean, by bootstrap."""
    low, high = bootstrap((values,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    return float(low), float(high)


def errors(run: Path, env_id: str) -> tuple[float, float]:
    """Mean squared error of the decoded next frame, and of the copied one, where something changes; on new episodes."""
    agent, config, _ = load_agent(run, torch.device("cpu"), env_id)
    replay = Replay(ReplayConfig(capacity=2000), 4, agent.spaces, seed=0)
    envs = make_vector(config.env, [90001, 90002, 90003, 90004])
    Collector(envs, agent, replay, epsilon=0.0).collect(400, random=True)
    envs.close()
    ours, copied = [], []
    for segment in replay.sample("test", 64, 8).unbind(0):
        frames = segment.frames.float() / 255
        copy = (frames[:-1] - frames[1:]).square().mean(dim=(1, 2, 3))
        moving = segment.mask[:-1] & (copy > 0)
        ours.append((reconstruct(agent, segment).float() / 255 - frames[1:]).square().mean(dim=(1, 2, 3))[moving])
        copied.append(copy[moving])
    return float(torch.cat(ours).mean()), float(torch.cat(copied).mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ENVIRONMENTS if name != "minigrid"])
def test_its_world_is_learned(name, tmp_path):
    """In a minute: Δ-tokens say what changes, and rewards are learned. (Of ends a new policy meets others.)"""
    run = learn(name, tmp_path, *SHORT)
    ours, copied = errors(run, ENVIRONMENTS[name][0].removeprefix("env.id="))
    assert ours < 1.1 * copied, (ours, copied)  # thin poles and small balls take more updates than there are here
    for loss in ("tokenizer/reconstruction_l2", "dynamics/reward"):
        first, *later = curve(run, loss)
        assert sum(later) / len(later) < first, (loss, first, later)
    assert len(returns(run, name, "episodes=2")) == 2


@pytest.mark.slow
def test_minigrid_is_played_better_than_by_chance(tmp_path):
    """The first half of its epochs suffice."""
    run = learn("minigrid", tmp_path, "epochs=6", "evaluation.episodes=8")
    agent, chance = returns(run, "minigrid", "episodes=100"), returns(run, "minigrid", "episodes=100", "random=true")
    assert interval(agent)[0] > interval(chance)[1], (interval(agent), interval(chance))


@pytest.mark.long
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_all_in_full(name, tmp_path):
    """None is played worse than by chance."""
    run = learn(name, tmp_path)
    agent, chance = returns(run, name, "episodes=64"), returns(run, name, "episodes=64", "random=true")
    print(name, interval(agent), interval(chance))
    assert interval(agent)[1] >= interval(chance)[0]
