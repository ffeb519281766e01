"""The next batch is sampled and on its way to the device while the present update runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import torch

from agent.segment import Segment


class Feed:
    """Brings batches to a device, and keeps the time.

    waited:                seconds in which an update was held up for want of data
    sampled, transferred:  seconds of the thread that prepares, alongside the updates
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.waited = self.sampled = self.transferred = 0.0

    def segments(self, draw: Callable[[], Segment], count: int, ahead: Callable[[], bool]) -> Iterator[Segment]:
        """`count` segments on the device, `draw`n one after another, each while its predecessor is in use.

        Nothing is drawn beyond `count`, so that what comes after does not depend on how far this thread got.
        ahead: whether to prepare early now; not while a CUDA graph is being captured, which another thread's
               allocations would break
        """
        with ThreadPoolExecutor(1, "feed") as thread:
            following = None
            for i in range(count):
                started = perf_counter()
                segment, copied = (following or thread.submit(self._prepare, draw)).result()
                if copied is not None:
                    torch.cuda.current_stream(self.device).wait_event(copied)
                self.waited += perf_counter() - started
                following = thread.submit(self._prepare, draw) if i + 1 < count and ahead() else None
                yield segment

    def _prepare(self, draw: Callable[[], Segment]) -> tuple[Segment, torch.cuda.Event | None]:
        started = perf_counter()
        segment = draw()
        self.sampled += perf_counter() - started
        if self.stream is None or segment.frames.is_cuda:
            return segment, None
        # From pinned memory and on a stream of its own, a copy needs neither the host nor the update's stream.
        started = perf_counter()
        with torch.cuda.stream(self.stream):
            moved = segment.apply(lambda x: x.pin_memory().to(self.device, non_blocking=True))
            copied = torch.cuda.Event()
            copied.record(self.stream)
        for tensor in moved.values():
            tensor.record_stream(torch.cuda.default_stream(self.device))
        self.transferred += perf_counter() - started
        return moved, copied
