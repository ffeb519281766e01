"""The replay against a plain list of all rows: every frame says which row it is."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from agent.config import ReplayConfig
from agent.data.replay import Replay
from agent.data.sampler import SampleSpec
from envs.errors import BadInput
from envs.spaces import Spaces

SPACES = Spaces(channels=6, size=1, actions=(10**6, 3))
SHAPE = SPACES.frame_shape  # six bytes: a mark (real frames are never zero), env, episode and step

CRAFTER = Spaces(3, 64, (17,))


class Environments:
    """Vector environments under NEXT_STEP autoreset; each plays `lengths[env]` in turn, then
    `endless` steps. Episode k terminates, is truncated, or both, by k mod 3."""

    def __init__(self, replay: Replay, lengths: list[list[int]]) -> None:
        self.replay = replay
        self.lengths = lengths
        self.position = [(0, 0)] * len(lengths)  # (episode, step) of each environment's next row
        self.history: list[list[tuple[int, int]]] = []  # [vector step][env] -> (episode, step)

    def length(self, env: int, episode: int) -> int:
        return self.lengths[env][episode] if episode < len(self.lengths[env]) else 10**6

    def run(self, vector_steps: int) -> Environments:
        for _ in range(vector_steps):
            row = list(self.position)
            n = [self.length(env, episode) for env, (episode, _) in enumerate(row)]
            is_step = np.array([step < n[env] for env, (_, step) in enumerate(row)])
            ended = np.array([step == n[env] - 1 for env, (_, step) in enumerate(row)])
            kind = np.array([episode % 3 for episode, _ in row])
            code = np.array([action(env, *where) for env, where in enumerate(row)])
            self.replay.add(
                frames=np.stack([frame(env, *where) for env, where in enumerate(row)]),
                actions=np.stack([np.where(is_step, code, -7), code % 3], axis=-1),
                rewards=np.where(is_step, code / 2, 99.0),
                # A row that is no step may say anything.
                terminated=ended & (kind != 1) | ~is_step,
                truncated=ended & (kind != 0) | ~is_step,
                is_step=is_step,
            )
            self.history.append(row)
            self.position = [
                (episode, step + 1) if is_step[env] else (episode + 1, 0)
                for env, (episode, step) in enumerate(row)
            ]
        return self

    def held(self) -> dict[tuple[int, int], tuple[int, int]]:
        """(env, episode) -> (first, last) held step, `last` being the last observation's; only
        those with a step to show."""
        ring = self.replay.table.ring_steps
        steps: dict[tuple[int, int], list[int]] = {}
        for row in self.history[-ring:]:
            for env, (episode, step) in enumerate(row):
                steps.setdefault((env, episode), []).append(step)
        return {k: (min(v), max(v)) for k, v in steps.items() if len(v) > 1}

    def usable(self) -> set[tuple[int, int, int]]:
        return {(*k, t) for k, (first, last) in self.held().items() for t in range(first, last)}


def frame(env: int, episode: int, step: int) -> np.ndarray:
    code = [255, env, episode >> 8, episode & 255, step >> 8, step & 255]
    return np.array(code, np.uint8).reshape(SHAPE)


def action(env: int, episode: int, step: int) -> int:
    return 1 + env + 10 * episode + 10_000 * step


def decode(frames: torch.Tensor) -> list[tuple[int, int, int] | None]:
    """[L, 6, 1, 1] -> (env, episode, step) of each slot; None where all is zero."""
    codes = frames.flatten(1).tolist()
    assert all(c[0] == 255 or not any(c) for c in codes)
    return [(c[1], c[2] * 256 + c[3], c[4] * 256 + c[5]) if c[0] else None for c in codes]


def sample(replay, component, batch, length, anchor="around", count=True):
    return replay.sample(component, SampleSpec(batch, length, anchor), count)


def make(capacity=1000, num_envs=1, alpha=5.0, seed=0, storage="memory", scratch_dir=None):
    config = ReplayConfig(capacity, storage, alpha)
    return Replay(config, num_envs, SPACES, seed, scratch_dir)


def check(segment, environments: Environments, length: int, anchor: str) -> None:
    """Every slot of every window against the list of rows."""
    held = environments.held()
    for window in segment:
        slots = decode(window.frames)
        j = next(j for j, slot in enumerate(slots) if slot is not None)
        env, episode, step = slots[j]
        first, last = held[env, episode]
        start = step - j
        closed = last == environments.length(env, episode)
        shown = last if anchor == "around" else last - 1
        assert window.mask.any()
        for j in range(length):
            t = start + j
            real = first <= t < last
            end = real and closed and t == last - 1
            assert slots[j] == ((env, episode, t) if first <= t <= shown else None)
            assert window.mask[j] == real
            code = action(env, episode, t) if real else 0
            assert window.actions[j].tolist() == [code, code % 3]
            assert window.rewards[j] == (action(env, episode, t) / 2 if real else 0)
            assert window.terminated[j] == (end and episode % 3 != 1)
            assert window.truncated[j] == (end and episode % 3 != 0)
        if anchor == "before":
            assert start + length <= last  # overlaps the start only


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(1, 9), max_size=8), min_size=1, max_size=3),
    ring_steps=st.integers(2, 40),
    spare=st.integers(0, 2),
    vector_steps=st.integers(2, 60),
    length=st.integers(1, 12),
    anchor=st.sampled_from(["around", "before"]),
    seed=st.integers(0, 99),
)
def test_every_slot_of_every_window(lengths, ring_steps, spare, vector_steps, length, anchor, seed):
    num_envs = len(lengths)
    capacity = ring_steps * num_envs + min(spare, num_envs - 1)  # rounded down
    replay = make(capacity, num_envs, alpha=1.0, seed=seed)
    environments = Environments(replay, lengths)
    for _ in range(2):
        environments.run(vector_steps // 2)
        assert replay.num_steps == len(environments.usable())
        if environments.usable():
            segment = sample(replay, "dynamics", 12, length, anchor)
            assert segment.batch_size == (12, length)
            check(segment, environments, length, anchor)
    steps = [s < environments.length(e, k) for row in environments.history
             for e, (k, s) in enumerate(row)]  # fmt: skip
    assert replay.steps_added == sum(steps)


def test_every_usable_step_is_drawn_and_no_other():
    replay = make(24, 2, alpha=0.0)
    environments = Environments(replay, [[1, 3, 7, 2, 1, 5], [4, 4, 9]]).run(26)
    drawn = set(decode(sample(replay, "policy", 3000, 1, "before").frames.flatten(0, 1)))
    assert drawn == environments.usable()  # a window of one slot shows the step that was drawn


def frequencies(values, support) -> np.ndarray:
    counts = Counter(values)
    assert set(counts) <= set(support)
    return np.array([counts[value] for value in support])


def agrees(observed: np.ndarray, probability: np.ndarray) -> bool:
    expected = probability / probability.sum() * observed.sum()
    return chisquare(observed, expected).pvalue > 1e-3


def episodes_of(segment) -> list[int]:
    return [decode(window.frames)[0][1] for window in segment]


def test_episodes_are_drawn_by_the_formula():
    replay = make(alpha=2.0)
    Environments(replay, [[2, 9, 1, 30, 4, 4]]).run(56)
    drawn = np.zeros(6)
    for _ in range(2):
        drawn += frequencies(episodes_of(sample(replay, "policy", 4, 1)), range(6))
    assert set(drawn) >= {0, 1, 2}
    seen = frequencies(episodes_of(sample(replay, "policy", 20_000, 1, count=False)), range(6))
    assert agrees(seen, (1 / (1 + drawn)) ** 2.0)
    assert not agrees(seen, np.ones(6))


def test_counts_are_apart_and_count_false_leaves_them():
    replay = make(alpha=3.0)
    Environments(replay, [[5] * 4]).run(24)
    sample(replay, "policy", 50, 1)
    sample(replay, "policy", 100, 1, count=False)
    seen = episodes_of(sample(replay, "tokenizer", 8000, 1, count=False))
    assert agrees(frequencies(seen, range(4)), np.ones(4))
    sample(replay, "tokenizer", 30, 1)
    counts = replay.state_dict()["episodes"]
    assert (counts["drawn/policy"].sum(), counts["drawn/tokenizer"].sum()) == (50, 30)


def test_many_draws_and_a_large_exponent_do_not_underflow():
    replay = make(alpha=50.0)
    Environments(replay, [[5] * 2]).run(12)
    sample(replay, "policy", 1, 1)
    replay.table.columns["drawn/policy"][:2] = 10**9  # (1e-9)^50 is no float64
    seen = frequencies(episodes_of(sample(replay, "policy", 1000, 1)), range(2))
    assert agrees(seen, np.ones(2))


@pytest.mark.parametrize("anchor", ["around", "before"])
def test_windows_start_by_the_formula(anchor):
    n, length = 9, 4
    replay = make()
    Environments(replay, [[n]]).run(n + 1)
    expected: Counter[int] = Counter()
    for t in range(n):
        for offset in range(length):
            expected[t - offset if anchor == "around" else min(n, t + 1 + offset) - length] += 1
    starts = []
    for window in sample(replay, "policy", 12_000, length, anchor):
        slots = decode(window.frames)
        j = next(j for j, slot in enumerate(slots) if slot is not None)
        starts.append(slots[j][2] - j)
    support = sorted(expected)
    assert agrees(frequencies(starts, support), np.array([expected[s] for s in support], float))


def test_running_episode_ends_at_its_newest_row():
    replay = make()
    environments = Environments(replay, [[5]]).run(1)
    assert (replay.num_steps, replay.steps_added) == (0, 1)
    environments.run(4)  # all five steps are there, but not the last observation
    assert replay.num_steps == 4
    assert not sample(replay, "policy", 100, 8).terminated.any()
    environments.run(1)
    assert replay.num_steps == 5 == replay.steps_added
    segment = sample(replay, "policy", 100, 8)
    check(segment, environments, 8, "around")
    assert segment.terminated.any()


def test_table_stays_small():
    replay = make(capacity=40, num_envs=2)
    Environments(replay, [[1, 2] * 300, [3] * 300]).run(1000)
    assert len(replay.table.columns["env"]) <= 20


def test_memory_and_memmap_give_the_same(tmp_path):
    segments = []
    for storage in ("memory", "memmap"):
        replay = make(30, 2, storage=storage, scratch_dir=tmp_path)
        environments = Environments(replay, [[3, 7, 2], [9, 9]]).run(25)
        segments.append(sample(replay, "policy", 64, 6))
        check(segments[-1], environments, 6, "around")
        assert list(tmp_path.iterdir()) == []  # nothing that a killed process would leave behind
    assert (segments[0] == segments[1]).all()


def save(replay: Replay, chunks: list, written: int) -> dict:
    """As a checkpoint does: the rows since the last one, and the small state by way of text."""
    first = max(written, replay.table.oldest)
    chunks.append((first, replay.rows(first, replay.table.vector_steps)))
    state = replay.state_dict()
    arrays = state.pop("episodes")
    return json.loads(json.dumps(state)) | {"episodes": arrays}


def assert_same_draws(a: Replay, b: Replay) -> None:
    for component, anchor in (("tokenizer", "around"), ("policy", "before"), ("new", "around")):
        ours, theirs = (sample(replay, component, 40, 7, anchor) for replay in (a, b))
        assert (ours == theirs).all()
    assert (a.num_steps, a.steps_added) == (b.num_steps, b.steps_added)


@pytest.mark.parametrize(
    ("storage", "vector_steps"), [("memory", 5), ("memory", 16), ("memory", 90), ("memmap", 90)]
)
def test_round_trip_of_state_and_rows(storage, vector_steps, tmp_path):
    """The ring holds 15 vector steps; files of rows that lie before are gone."""
    lengths = [[3, 7, 2, 5, 5, 6, 1, 1, 30, 2], [9, 9, 4, 4, 4, 20, 20]]
    replay = make(31, 2, storage=storage, scratch_dir=tmp_path, seed=1)
    environments = Environments(replay, lengths)
    chunks: list = []
    for written in range(0, vector_steps, 5):
        environments.run(min(5, vector_steps - written))
        sample(replay, "tokenizer", 8, 4)
        state = save(replay, chunks, written)

    restored = make(31, 2, storage=storage, scratch_dir=tmp_path, seed=2)
    restored.load_state_dict(state)
    for first, rows in chunks:
        if first + len(rows["actions"]) > replay.table.oldest:
            restored.load_rows(first, rows)
    assert_same_draws(replay, restored)

    again = Environments(restored, lengths)
    again.position, again.history = list(environments.position), list(environments.history)
    environments.run(11)
    again.run(11)
    assert_same_draws(replay, restored)
    check(sample(restored, "policy", 50, 6), again, 6, "around")


def test_rows_are_those_held():
    replay = make(capacity=20, num_envs=2)
    environments = Environments(replay, [[4, 4, 4], [30]]).run(13)
    rows = replay.rows(3, 8)
    assert replay.table.oldest == 3 and rows["frames"].shape == (5, 2, *SHAPE)
    expected = [(e, *where) for row in environments.history[3:8] for e, where in enumerate(row)]
    assert decode(rows["frames"].flatten(0, 1)) == expected
    sizes = replay.rows(3, 13)["rewards"].abs()
    assert replay.reward_sizes() == (sizes[sizes > 0].min(), sizes.max())


def test_cut_running():
    # Environment 0 runs, 1 has just terminated, 2 has just shown its last observation, 3 has
    # only just begun.
    replay = make(num_envs=4)
    environments = Environments(replay, [[9], [5], [4], [3]]).run(5)
    replay.cut_running()
    assert replay.num_steps == 4 + 4 + 4 + 3
    flags = set()
    for window in sample(replay, "policy", 400, 1):
        if window.terminated[0] or window.truncated[0]:
            flags.add((*decode(window.frames)[0], bool(window.terminated[0])))
    # The terminal step of 1 became the observation.
    assert flags == {(0, 0, 3, False), (1, 0, 3, False), (2, 0, 3, True), (3, 0, 2, True)}

    # The environments are reset: all begin anew.
    environments.position = [(episode + 1, 0) for episode, _ in environments.position]
    environments.run(3)
    assert replay.num_steps == 15 + 4 * 2


def test_sizes_are_checked_before_anything_is_allocated(monkeypatch, tmp_path):
    config = ReplayConfig(1_000_003)
    needed = 1_000_000 * (3 * 64 * 64 + 12)
    assert Replay.bytes_needed(config, 16, CRAFTER) == needed
    free = SimpleNamespace(available=needed, free=needed)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(psutil, "disk_usage", lambda folder: free)
    disk = ReplayConfig(1_000_003, "memmap")
    Replay.check_fits(config, 16, CRAFTER)
    Replay.check_fits(disk, 16, CRAFTER, tmp_path)

    free.available -= 10**9
    free.free -= 2 * 10**9
    with pytest.raises(BadInput, match=r"12\.30 GB of memory.*11\.30 GB.*replay\.storage"):
        Replay(config, 16, CRAFTER, seed=0)
    with pytest.raises(BadInput, match=r"12\.30 GB of disk in .*10\.30 GB"):
        Replay(disk, 16, CRAFTER, seed=0, scratch_dir=tmp_path)
    with pytest.raises(BadInput, match=r"replay.capacity=5.*6 or more"):
        make(capacity=5, num_envs=3)
