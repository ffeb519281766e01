"""Batches come in order, none too many; each is prepared while the one before is in use."""

from __future__ import annotations

import threading

import pytest
import torch

from agent.data.prefetch import Prefetcher
from tests.agent.conftest import random_segment


def test_order_and_count() -> None:
    drawn = []

    def draw():
        drawn.append(len(drawn))
        return random_segment(2, 3, seed=len(drawn))

    for ahead in (True, False):
        drawn.clear()
        feed = Prefetcher(torch.device("cpu"))
        for i, segment in enumerate(
            feed.segments(draw, 5, ahead=lambda ahead=ahead: ahead), start=1
        ):
            assert torch.equal(segment.frames, random_segment(2, 3, seed=i).frames)
            assert len(drawn) >= i if ahead else len(drawn) == i
        assert drawn == list(range(5))
        assert 0 <= feed.waited and 0 < feed.sampled


def test_the_next_one_is_drawn_while_this_one_is_in_use() -> None:
    second = threading.Event()

    def draw():
        if draws:
            second.set()
        draws.append(1)
        return random_segment(2, 3)

    draws: list[int] = []
    segments = Prefetcher(torch.device("cpu")).segments(draw, 2, ahead=lambda: True)
    next(segments)
    assert second.wait(timeout=30)
    segments.close()


def test_what_drawing_raises_arrives() -> None:
    def draw():
        raise RuntimeError("nothing there")

    with pytest.raises(RuntimeError, match="nothing there"):
        next(Prefetcher(torch.device("cpu")).segments(draw, 2, ahead=lambda: True))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device() -> None:
    feed = Prefetcher(torch.device("cuda"))
    seeds, busy = iter(range(8)), torch.randn(4096, 4096, device="cuda")
    segments = []
    for segment in feed.segments(
        lambda: random_segment(2, 3, seed=next(seeds)), 8, ahead=lambda: True
    ):
        busy = busy @ busy
        segments.append(segment)
    for seed, segment in enumerate(segments):
        assert segment.frames.is_cuda and torch.equal(
            segment.frames.cpu(), random_segment(2, 3, seed=seed).frames
        )
