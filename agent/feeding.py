"""The next batch is sampled and on its way to the device while the present update runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import NoReturn

import torch

from agent.segment import Segment


class Feed:
    """Brings batches to a device, and keeps the time of the last `segments`.

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
        self.waited = self.sampled = self.transferred = 0.0
        if self.stream is not None:  # a replay on the device was written by the stream that updates
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
        wanted: SimpleQueue[bool] = SimpleQueue()
        prepared: SimpleQueue[Callable[[], tuple[Segment, torch.cuda.Event | None]]] = SimpleQueue()
        # A daemon, which nobody waits for: whatever an interruption meets, the process can end.
        Thread(target=self._work, args=(draw, wanted, prepared), name="feed", daemon=True).start()
        try:
            asked = False
            for i in range(count):
                started = perf_counter()
                if not asked:
                    wanted.put(True)
                segment, copied = prepared.get()()
                if copied is not None:
                    copied.synchronize()
                self.waited += perf_counter() - started
                asked = i + 1 < count and ahead()
                if asked:
                    wanted.put(True)
                yield segment
        finally:
            wanted.put(False)

    def _work(self, draw: Callable[[], Segment], wanted: SimpleQueue, prepared: SimpleQueue) -> None:
        while wanted.get():
            try:
                batch = self._prepare(draw)
                prepared.put(lambda batch=batch: batch)
            except BaseException as error:  # it is raised where the batch is waited for
                prepared.put(partial(_raise, error))

    def _prepare(self, draw: Callable[[], Segment]) -> tuple[Segment, torch.cuda.Event | None]:
        # On a stream of its own, and from pinned memory, a copy waits neither for the update nor for the host.
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
            for tensor in segment.values():  # its memory is not given to another batch before the update is done
                tensor.record_stream(torch.cuda.default_stream(self.device))
            self.transferred += perf_counter() - started
        return segment, copied


def _raise(error: BaseException) -> NoReturn:
    raise error
