"""Where the seconds of a run go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Stopwatch:
    """Seconds by what they were spent on.

    Attributes:
        seconds: What -> seconds since the last `breakdown`. While `sample` and `transfer` prepare
            the next batch, updates run; `wait` is what updates had to wait for it.
        minutes_before: Of the run's earlier processes.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.started = perf_counter()
        self.minutes_before = 0.0

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Count the seconds within."""
        started = perf_counter()
        try:
            yield
        finally:
            self.add(what, perf_counter() - started)

    def add(self, what: str, seconds: float) -> None:
        """Count these seconds."""
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds

    def breakdown(self) -> dict[str, float]:
        """Where the seconds since the last call went, as metrics."""
        spent = {f"seconds/{what}": seconds for what, seconds in self.seconds.items()}
        self.seconds.clear()
        return spent

    @property
    def minutes(self) -> float:
        """Of the run: compiling and evaluating included, but not what was lost after a save."""
        return self.minutes_before + (perf_counter() - self.started) / 60
