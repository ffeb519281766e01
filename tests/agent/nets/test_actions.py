"""Actions of several factors: one table, independent categoricals, a whole agent."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.actor_critic import actor_critic_loss
from agent.agent import Agent
from agent.config import ActorCriticConfig
from agent.imagination import Trajectory
from agent.nets.actions import ActionEmbedding, by_factor, random_actions
from agent.nets.heads import gumbel_max
from agent.policies.base import PolicyOutput
from agent.policies.lstm import CnnLstmPolicy
from agent.training.components import PARTS, make_learner
from agent.training.costs import noise
from envs.spaces import Spaces
from tests.agent.conftest import POLICIES, SPACES
from tests.tiny import tiny

SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)
CPU = torch.device("cpu")


@settings(max_examples=20, deadline=None)
@given(SIZES)
def test_an_action_is_the_sum_of_its_factors_rows(sizes) -> None:
    embedding = ActionEmbedding(sizes, 5)
    actions = random_actions(sizes, (3, 2), CPU)
    blocks = embedding.weight.split(sizes)
    expected = sum(blocks[f][actions[..., f]] for f in range(len(sizes)))
    torch.testing.assert_close(embedding(actions), expected)
    assert set(embedding.state_dict()) == {"weight"}  # as published


@settings(max_examples=20, deadline=None)
@given(SIZES)
def test_factors_are_independent_categoricals(sizes) -> None:
    """Log-probability and entropy against the joint distribution over all combinations."""
    torch.manual_seed(0)
    flat = torch.randn(1, 1, sum(sizes), requires_grad=True)
    joint = torch.ones(())
    for part in flat.split(sizes, dim=-1):
        joint = joint[..., None] * part.double().softmax(-1)[0, 0]
    actions = random_actions(sizes, (1, 1), CPU)
    trajectory = Trajectory(
        observations=torch.zeros(1, 2, 3, 1, 1, dtype=torch.uint8), actions=actions, tokens=torch.zeros(1, 1, 1),
        rewards=torch.ones(1, 1), ends=torch.ones(1, 1, dtype=torch.bool), batch_size=[1],
    )  # fmt: skip
    policy = CnnLstmPolicy(POLICIES["cnn_lstm"], SPACES.frame_shape, SPACES.actions)
    output = PolicyOutput(by_factor(flat, sizes), torch.zeros(1, 1, 255))
    losses = actor_critic_loss(policy, output, torch.zeros(1, 2), trajectory, ActorCriticConfig())
    chosen = joint[tuple(actions[0, 0])]
    assert losses["actor"].item() == pytest.approx(-chosen.log().item(), abs=1e-5)
    assert losses["entropy"].item() == pytest.approx(-(joint * joint.log()).sum().item(), abs=1e-5)
    losses["loss"].backward()
    assert flat.grad.isfinite().all()


def test_samples_of_unequal_factors() -> None:
    """Each choice by its probability, and never one that its factor does not have."""
    torch.manual_seed(0)
    sizes, flat = (2, 5, 1), torch.tensor([0.0, math.log(3), *[0.0] * 5, -30.0])
    logits = by_factor(flat.expand(20_000, -1), sizes)
    drawn, uniform = gumbel_max(logits), random_actions(sizes, (20_000,), CPU)
    assert abs((drawn[:, 0] == 1).float().mean() - 0.75) < 0.02
    for actions in (drawn, uniform):
        counts = actions[:, 1].bincount(minlength=5)
        assert len(counts) == 5 and (counts / 20_000 - 0.2).abs().max() < 0.02
        assert not actions[:, 2].any()
    for scaled in (logits.bfloat16() / 100, logits * 1000):
        assert (gumbel_max(scaled) < torch.tensor(sizes)).all()


@pytest.mark.parametrize(
    ("spaces", "cells"),
    [
        (Spaces(channels=1, size=32, actions=(2, 7, 1)), 8),
        (Spaces(channels=10, size=16, actions=(3,)), 8),
        (Spaces(channels=4, size=96, actions=(2,) * 12), 6),
    ],
    ids=str,
)
def test_any_frames_and_factors(spaces: Spaces, cells: int) -> None:
    """An update of every part; encoders follow the frames' size where `down` is null."""
    convs = ("tokenizer.", "tokenizer.frame_", "dynamics.", "policy.")
    sizes = ("mult=[1,1,1,1]", "down=null", "patch=1")
    changes = [f"agent.{part}conv.{size}" for part in convs for size in sizes]
    config = tiny(*changes, "agent.dynamics.transformer.width=100")
    torch.manual_seed(0)
    agent = Agent(config.agent, spaces).eval()
    assert agent.tokenizer.map_size == cells
    for part in PARTS:
        before = [p.clone() for p in getattr(agent, part).parameters()]
        batch = noise(agent, config, part)
        metrics = make_learner(agent, config, part).update(batch)
        assert all(value.isfinite() for value in metrics.values())
        assert not all(map(torch.equal, before, getattr(agent, part).parameters()))
    actions, _ = agent.act(batch.frames[:, 0], agent.policy.initial_state(len(batch.frames)))
    assert (actions < torch.tensor(spaces.actions)).all() and (actions >= 0).all()
