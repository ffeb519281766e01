"""Imagined episodes as they are computed: by mode and on devices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.dream.batch import Dreams
from agent.dream.starts import given_starts
from agent.execution import Execution
from tests.agent.conftest import ACTIONS, SIZE, make_agent

ROWS, PAST = 6, 3


def played(agent: Agent, execution: Execution, steps: int = 20) -> list[tuple[np.ndarray, ...]]:
    """Steps of dreams of which one begins again at every second step."""
    generator = np.random.default_rng(0)
    frames = generator.integers(256, size=(ROWS, PAST, SIZE, SIZE, 3), dtype=np.uint8)
    actions = generator.integers(ACTIONS, size=(ROWS, PAST - 1, 2))
    starts = given_starts({"frames": frames, "actions": actions}, agent.spaces)
    dreams = Dreams(agent, starts, ROWS, execution)
    seen = {frame.tobytes() for frame in frames[:, -1]}
    first = dreams.begin(range(ROWS), [np.random.default_rng(i) for i in range(ROWS)])
    assert {picture.tobytes() for picture in first} <= seen
    results = []
    for t in range(steps):
        results.append(dreams.step(generator.integers(ACTIONS, size=(ROWS, 2))))
        if t % 2:
            (again,) = dreams.begin([t % ROWS], [generator])
            assert again.tobytes() in seen
    return results


def test_what_arrives():
    """A later step writes its state in place, not into what was handed out."""
    results = played(make_agent(), Execution(), steps=4)
    for pictures, rewards, ends in results:
        assert pictures.shape == (ROWS, SIZE, SIZE, 3) and pictures.dtype == np.uint8
        assert rewards.shape == ends.shape == (ROWS,)
        assert rewards.dtype == np.float32 and ends.dtype == bool
    assert len({pictures.tobytes() for pictures, _, _ in results}) == 4


def test_bf16():
    results = played(make_agent(), Execution("eager", bf16=True), steps=6)
    assert all(np.isfinite(rewards).all() for _, rewards, _ in results)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_steps_equal_compiled_ones():
    """To the last bit, though rows begin again between the replays."""
    agent = make_agent().to("cuda")
    for bf16 in (False, True):
        captured, compiled = (
            played(agent, Execution(mode, bf16)) for mode in ("captured", "compiled")
        )
        for ours, theirs in zip(captured, compiled, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
