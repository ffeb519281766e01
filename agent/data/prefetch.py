"""The next batch is sampled and on its way to the device while the present update runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from time import perf_counter

import torch

from agent.segment import Segment


class Prefetcher:
    """Brings batches to a device, and keeps the time of the last `segments`.

    Attributes:
        waited: seconds in which an update was held up for want of data.
        sampled: seconds of sampling in the thread that prepares, alongside the updates.
        transferred: seconds of its transfers to a GPU.
        drawn_ahead: whether the batch after the present one is drawn already.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.waited = self.sampled = self.transferred = 0.0
        self.drawn_ahead = False

    def segments(
        self, draw: Callable[[], Segment], count: int, ahead: Callable[[], bool]
    ) -> Iterator[Segment]:
        """Yield `count` segments on the device, each drawn while the one before is in use.

        Nothing is drawn beyond `count`, so what follows does not depend on the thread's speed.

        Args:
            draw: samples a segment.
            count: how many.
            ahead: whether to prepare early now. Not during the capture of a CUDA graph, which
                allocations of another thread would break.
        """
        self.waited = self.sampled = self.transferred = 0.0
        if self.stream is not None:  # a replay on the device was written by the stream that updates
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
        following: Future[tuple[Segment, torch.cuda.Event | None]] | None = None
        with ThreadPoolExecutor(1) as thread:
            for i in range(count):
                started = perf_counter()
                segment, copied = (following or thread.submit(self._prepare, draw)).result()
                if copied is not None:
                    copied.synchronize()
                self.waited += perf_counter() - started
                is_next = i + 1 < count and ahead()
                following = thread.submit(self._prepare, draw) if is_next else None
                self.drawn_ahead = is_next
                yield segment

    def _prepare(self, draw: Callable[[], Segment]) -> tuple[Segment, torch.cuda.Event | None]:
        started = perf_counter()
        with nullcontext() if self.stream is None else torch.cuda.stream(self.stream):
            segment = draw()
            self.sampled += perf_counter() - started
            if self.stream is None:
                return segment, None
            # With a stream and pinned memory a copy waits neither for the update nor the host.
            started = perf_counter()
            if not segment.frames.is_cuda:
                segment = segment.apply(lambda x: x.pin_memory().to(self.device, non_blocking=True))
            copied = torch.cuda.Event()
            copied.record(self.stream)
            # The memory is not given to another batch before the update is done.
            for tensor in segment.values():
                tensor.record_stream(torch.cuda.default_stream(self.device))
            self.transferred += perf_counter() - started
            return segment, copied
