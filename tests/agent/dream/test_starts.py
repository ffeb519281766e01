"""Where dreams start: real frames of a saved replay, with their own pasts and no one else's."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.config import ReplayConfig
from agent.data.replay import Replay
from agent.dream import starts
from agent.dream.starts import StartStates, given_starts, starts_of_run
from agent.storage import checkpoint
from envs.errors import BadInput
from envs.spaces import Spaces

ENVS, RING, STEPS, CHUNK = 2, 40, 53, 10  # the replay has forgotten the first 13 vector steps


def is_step(env: int, step: int) -> bool:
    """Episodes of 6 and of 9 rows, the last of which is an observation that no action followed."""
    return step % (6, 9)[env] != (5, 8)[env]


def frame(env: int, step: int) -> torch.Tensor:
    return torch.full((3, 4, 4), 100 * env + step, dtype=torch.uint8)


@pytest.fixture
def saved(tmp_path: Path) -> checkpoint.Checkpoint:
    replay = Replay(ReplayConfig(capacity=ENVS * RING), ENVS, Spaces(3, 4, (200, 7)), seed=0)
    for step in range(STEPS):
        last = [not is_step(env, step + 1) for env in range(ENVS)]
        replay.add(
            torch.stack([frame(env, step) for env in range(ENVS)]), [[10 + step, 5], [110 + step, 6]], [0, 0],
            last, [False] * ENVS, [is_step(env, step) for env in range(ENVS)],
        )  # fmt: skip
    table = replay.table
    chunks = [
        checkpoint.append_rows(
            tmp_path, first, (last := min(first + CHUNK, STEPS)), replay.rows(first, last)
        )
        for first in range(table.oldest, STEPS, CHUNK)
    ]
    state = replay.state_dict()
    episodes = {name: torch.from_numpy(column) for name, column in state.pop("episodes").items()}
    tensors = {"agent": {}, "replay": episodes}
    checkpoint.save(
        tmp_path,
        1,
        tensors,
        {"replay": state, "spaces": asdict(Spaces(3, 4, (200, 7)))},
        chunks,
        keep=1,
    )
    return checkpoint.load(tmp_path)


def check(pool: StartStates) -> set[tuple[int, int, int]]:
    """That each start shows what was there -> (environment, vector step, frames shown)."""
    segment = pool.segment(range(len(pool)))
    shown = set()
    for own in segment.unbind(0):
        n = int(own.mask.sum()) + 1
        assert own.mask.tolist() == [True] * (n - 1) + [False] * (pool.context - n + 1)
        env, step = divmod(int(own.frames[n - 1, 0, 0, 0]), 100)
        for t in range(n):
            assert torch.equal(own.frames[t], frame(env, step - n + 1 + t))
        acted = [[100 * env + 10 + step - n + 1 + t, 5 + env] for t in range(n - 1)]
        assert own.actions.tolist() == acted + [[0, 0]] * (pool.context - n + 1)
        shown.add((env, step, n))
    assert len(shown) == len(pool)
    return shown


def expected(oldest: int, context: int) -> set[tuple[int, int, int]]:
    """Every step that is held, with the held frames of its episode before it."""
    steps = set()
    for env, length in enumerate((6, 9)):
        # The newest row waits for its next frame.
        for step in range(oldest, STEPS - 1):
            if is_step(env, step):
                steps.add((env, step, min(context, step - max(oldest, step - step % length) + 1)))
    return steps


@pytest.mark.parametrize("context", [1, 3])
def test_anywhere(saved, context):
    pool = starts_of_run(saved, "anywhere", context)
    assert check(pool) == expected(STEPS - RING, context)


def test_first(saved):
    pool = starts_of_run(saved, "first", 3)
    assert check(pool) == {
        (env, step, 1)
        for env, length in enumerate((6, 9))
        for step in range(STEPS - RING, STEPS - 1)
        if step % length == 0
    }


def test_of_a_large_replay_the_newest_files(saved, monkeypatch):
    monkeypatch.setattr(starts, "NEWEST_ROWS", 30)
    read, names = checkpoint.read, []
    saved.tensors  # noqa: B018 (read before the rows are counted)
    monkeypatch.setattr(
        checkpoint, "read", lambda path, digest: names.append(path) or read(path, digest)
    )
    pool = starts_of_run(saved, "anywhere", 3)
    assert len(names) == 2 and check(pool) == expected(STEPS - 20, 3)
    assert {step for _, step, _ in check(starts_of_run(saved, "first", 3))} == {36, 42, 48, 45}


def test_a_replay_that_is_damaged_or_elsewhere(saved):
    chunk = sorted((saved.run / "replay").iterdir())[-1]
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    with pytest.raises(BadInput, match="was changed"):
        starts_of_run(saved, "anywhere", 3)
    chunk.unlink()
    with pytest.raises(BadInput, match="is missing"):
        starts_of_run(saved, "anywhere", 3)


@pytest.mark.parametrize("factors", [1, 2])
def test_given_ones(factors):
    generator = np.random.default_rng(0)
    frames = generator.integers(256, size=(5, 3, 4, 4, 2), dtype=np.uint8)
    actions = generator.integers(4, size=(5, 2, factors))
    spaces = Spaces(2, 4, (4,) * factors)
    segment = given_starts({"frames": frames, "actions": actions}, spaces).segment([3, 0])
    assert np.array_equal(segment.frames.permute(0, 1, 3, 4, 2), frames[[3, 0]])
    assert np.array_equal(segment.actions[:, :2], actions[[3, 0]]) and segment.mask.sum(
        dim=1
    ).tolist() == [2, 2]
    if factors == 1:
        flat = given_starts({"frames": frames, "actions": actions[..., 0]}, spaces)
        assert torch.equal(flat.segment([3, 0]).actions, segment.actions)
    for wrong in (actions[:, :1], actions + 1, None):
        with pytest.raises(BadInput, match=rf"actions, \[M, T − 1, {factors}\], .* below 4"):
            given_starts({"frames": frames, "actions": wrong}, spaces)
