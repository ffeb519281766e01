"""The next batch is sampled and on its way to the device while the present update runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from queue import SimpleQueue
from threading import Thread
from time import perf_counter

import torch

from agent.segment import Segment


class Prefetcher:
    """Brings batches to a device, and keeps the time of the last `segments`.

    waited:                seconds in which an update was held up for want of data
    sampled, transferred:  seconds of the thread that prepares, alongside the updates
    drawn_ahead:           whether the batch after the present one is drawn already
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

        Nothing is drawn beyond `count`, so what follows does not depend on this thread's speed.

        Args:
            ahead: Whether to prepare early now. Not during the capture of a CUDA graph, which
                allocations of another thread would break.
        """
        self.waited = self.sampled = self.transferred = 0.0
        if self.stream is not None:  # a replay on the device was written by the stream that updates
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
        wanted: SimpleQueue[Future | None] = SimpleQueue()
        # A daemon, which nobody waits for: whatever an interruption meets, the process can end.
        Thread(target=self._work, args=(draw, wanted), name="feed", daemon=True).start()
        try:
            following = None
            for i in range(count):
                started = perf_counter()
                segment, copied = (following or ask(wanted)).result()
                if copied is not None:
                    copied.synchronize()
                self.waited += perf_counter() - started
                following = ask(wanted) if i + 1 < count and ahead() else None
                self.drawn_ahead = following is not None
                yield segment
        finally:
            wanted.put(None)

    def _work(self, draw: Callable[[], Segment], wanted: SimpleQueue[Future | None]) -> None:
        while (batch := wanted.get()) is not None:
            try:
                batch.set_result(self._prepare(draw))
            except BaseException as error:  # it is raised where the batch is waited for
                batch.set_exception(error)

    def _prepare(self, draw: Callable[[], Segment]) -> tuple[Segment, torch.cuda.Event | None]:
        # With its own stream and pinned memory a copy waits neither for the update nor the host.
        with nullcontext() if self.stream is None else torch.cuda.stream(self.stream):
            started = perf_counter()
            segment = draw()
            self.sampled += perf_counter() - started
            if self.stream is None:
                return segment, None
            started = perf_counter()
            if not segment.frames.is_cuda:
                segment = segment.apply(lambda x: x.pin_memory().to(self.device, non_blocking=True))
            copied = torch.cuda.Event()
            copied.record(self.stream)
            for tensor in (
                segment.values()
            ):  # its memory is not given to another batch before the update is done
                tensor.record_stream(torch.cuda.default_stream(self.device))
            self.transferred += perf_counter() - started
        return segment, copied


def ask(wanted: SimpleQueue[Future | None]) -> Future:
    """Have the thread prepare a batch -> the batch to come."""
    batch: Future = Future()
    wanted.put(batch)
    return batch
