"""That it learns: the presets, trained by the command, to their bars.

`make test` trains a part of Catch; `make test-long` the presets.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from agent.agent import Agent
from agent.config import ReplayConfig
from agent.data.collect import Collector
from agent.data.replay import Replay
from agent.data.sampler import SampleSpec
from agent.runs.api import configure
from agent.runs.load import load_agent
from agent.runs.train import train as train_run
from agent.segment import Segment
from agent.storage.metrics import read_metrics
from envs.vector import make_vector
from tests.scripts.commands import evaluate, train
from tests.tiny import leave_out_films


def curve(run: Path, metric: str) -> list[float]:
    return [row[metric] for row in read_metrics(run / "metrics.csv") if metric in row]


def unseen(run: Path, steps: int, segments: int, length: int) -> tuple[Agent, Segment]:
    """The run's agent, and segments [segments, length] of so many steps of random play, unseen."""
    agent, config, _ = load_agent(run, torch.device("cpu"))
    replay = Replay(ReplayConfig(capacity=2 * steps), 4, agent.spaces, seed=0)
    envs = make_vector(config.env, [90001, 90002, 90003, 90004])
    Collector(envs, agent, replay, epsilon=0.0).collect(steps, random=True)
    envs.close()
    return agent, replay.sample("test", SampleSpec(segments, length, "around"))


def errors(agent: Agent, segments: Segment, moving: bool = False) -> tuple[float, float]:
    """Mean squared error of the decoded next frame, and of the copied one.

    Args:
        moving: Count only steps in which something changes.
    """
    ours, copied = [], []
    for segment in segments.unbind(0):
        frames = segment.frames.float() / 255
        decoded = agent.tokenizer.reconstruction(segment.unsqueeze(0))[0].float() / 255
        copy = (frames[:-1] - frames[1:]).square().mean(dim=(1, 2, 3))
        counted = segment.mask[:-1] & (copy > 0) if moving else segment.mask[:-1]
        ours.append((decoded - frames[1:]).square().mean(dim=(1, 2, 3))[counted])
        copied.append(copy[counted])
    return float(torch.cat(ours).mean()), float(torch.cat(copied).mean())


def return_of(run: Path, *arguments: str) -> float:
    result = evaluate(
        f"run={run}", "episodes=100", "output=result.json", *arguments, cwd=run.parent
    )
    assert result.code == 0, result.err
    return json.loads((run.parent / "result.json").read_text())["return_mean"]


@pytest.mark.slow
def test_catch_learns_its_world(tmp_path, monkeypatch):
    """Frames decoded better than the copied ones; tokens, rewards and ends better than by rate."""
    leave_out_films(monkeypatch)
    few = (
        "epochs=1",
        "tokenizer.first_updates=300",
        "dynamics.first_updates=300",
        "final_episodes=2",
    )
    train_run(
        configure("experiment=catch", *few, "learner.mode=eager", f"run={tmp_path / 'run'}"), []
    )
    agent, segments = unseen(tmp_path / "run", steps=1000, segments=128, length=8)
    ours, copied = errors(agent, segments)
    assert ours < copied / 2
    for name, (loss, base_rate) in predictions(agent, segments).items():
        assert loss < base_rate, name


@pytest.mark.long
def test_catch_is_learned_from_pixels(catch):
    assert return_of(catch, "seed=77") >= 0.8


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("agent", ["iris", "dart"])
def test_catch_is_learned_by_the_others(agent, seed, tmp_path):
    """By the same command. What it gave stands in docs/results/README.md."""
    result = train("experiment=catch", f"agent={agent}", f"seed={seed}", "run=run", cwd=tmp_path)
    assert result.code == 0, result.err
    assert return_of(tmp_path / "run") >= 0.8


@pytest.mark.long
def test_crafter_quick_learns_its_world(tmp_path):
    run = tmp_path / "run"
    result = train("experiment=crafter_quick", f"run={run}", cwd=tmp_path)
    assert result.code == 0, result.err
    for loss in ("tokenizer/reconstruction_l2", "dynamics/reward", "dynamics/end"):
        first, *later = curve(run, loss)
        assert sum(later) / len(later) < first, (loss, first, later)
    # Frames that training has not seen, in worlds that it has not seen.
    ours, copied = errors(*unseen(run, steps=1200, segments=64, length=10))
    assert ours < 0.95 * copied


TENTH = (  # of the preset's frames; less of its updates
    "epochs=4", "collect.first_steps=33_000", "collect.steps=1000", "tokenizer.first_updates=1900", "tokenizer.updates=50",
    "dynamics.first_updates=900", "dynamics.updates=50", "policy.first_updates=40", "policy.updates=20",
    "evaluate_every=4", "final_episodes=4",
)  # fmt: skip


@pytest.mark.long
def test_crafter_laptop_has_learned_after_a_tenth_of_its_frames(tmp_path):
    run = tmp_path / "run"
    result = train("experiment=crafter_laptop", *TENTH, f"run={run}", cwd=tmp_path)
    assert result.code == 0, result.err
    # Of fewer, chance would decide: few episodes end.
    agent, segments = unseen(run, steps=9000, segments=256, length=16)
    ours, copied = errors(agent, segments)
    assert ours < copied / 2
    for name, (loss, base_rate) in predictions(agent, segments).items():
        assert loss < base_rate, name
    most = math.log(17)
    assert all(most / 10 < entropy < 0.99 * most for entropy in curve(run, "policy/entropy"))


@torch.no_grad()
def predictions(agent: Agent, segments: Segment) -> dict[str, tuple[float, float]]:
    """Cross-entropies of tokens, reward and end.

    Returns:
        Name -> that of the dynamics, and that of how often each value comes in these very
        segments: the best that one distribution for all steps can do.
    """
    losses, tokens = agent.dynamics_loss(segments), agent.tokenizer.tokens_of(segments)
    weights, mask, dynamics = agent.config.dynamics, segments.mask, agent.dynamics
    codes = torch.nn.functional.one_hot(
        tokens[mask[:, :-1]], agent.config.tokenizer.quantizer.num_codes
    ).flatten(0, -2)
    targets = {
        "tokens": codes, "reward": dynamics.reward_code.encode(segments.rewards[mask]),
        "end": torch.nn.functional.one_hot(segments.terminated[mask].long(), 2),
    }  # fmt: skip
    rates = {name: target.float().mean(dim=0) for name, target in targets.items()}
    return {
        name: (
            float(losses[name] / getattr(weights, f"{name}_weight")),
            float(-torch.special.xlogy(rate, rate).sum()),
        )
        for name, rate in rates.items()
    }
