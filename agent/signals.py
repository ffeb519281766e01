"""What a terminal, `kill` or Slurm asks of a run: to stop where nothing is lost, or at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from envs.output import output_is_read

AGAIN = 75  # exit code (sysexits.h: EX_TEMPFAIL) of a run that is saved and may be started again
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]


class Pause(Exception):
    """A stop was asked for, and what is under way stands where it can be saved."""


class Stop:
    """Whether a signal asked for a stop. An output that nobody reads counts as SIGTERM.

    Attributes:
        asked: The first signal that did.
        patient: Whether the caller checks `stop()` soon. If not, a signal interrupts at once.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.patient = False

    def __call__(self) -> bool:
        if self.asked is None and not output_is_read():
            self.asked = signal.SIGTERM
            what = "Nobody reads the output any more: stops and saves after the present update."
            print(what, file=sys.stderr, flush=True)
        return self.asked is not None


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Within it, SIGTERM, SIGUSR1 and the first Ctrl-C ask for a stop.

    A second Ctrl-C raises KeyboardInterrupt, and so does the first while `patient` is false.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # where there are no signals
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        first = stop.asked is None
        stop.asked = stop.asked or signal.Signals(number)
        if not stop.patient or (number == signal.SIGINT and not first):
            raise KeyboardInterrupt
        if first:  # not by print, which may be what the signal interrupted
            what = "stops and saves after the present update; Ctrl-C stops at once."
            with suppress(OSError):  # Ctrl-C ends what reads the output too
                os.write(2, f"\n{stop.asked.name}: {what}\n".encode())

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
