"""Where a run stands, and where its seconds went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

from agent.data.collect import Episode
from agent.training.components import PARTS

STAGES = ("collect", *PARTS, "evaluate")


@dataclass
class RunState:
    """Where a run stands within an epoch.

    Attributes:
        stage: One of STAGES: under way, or next.
        done: Of it: environment steps, or updates.
        metrics: Of the epoch's stages that are over.
        episodes: That ended since the epoch began to collect.
        restarts: Of environments that failed since then.
        averages: Of the part that is learning (`Averages.state_dict`).
    """

    stage: str = STAGES[0]
    done: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    episodes: list[Episode] = field(default_factory=list)
    restarts: int = 0
    averages: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return vars(self) | {"episodes": [asdict(episode) for episode in self.episodes]}

    @classmethod
    def of(cls, state: dict[str, Any]) -> RunState:
        """The inverse of `state_dict`."""
        episodes = [Episode(**fields) for fields in state["episodes"]]
        return cls(**state | {"episodes": episodes})


class Stopwatch:
    """Seconds by what they were spent on.

    Attributes:
        seconds: What -> seconds since the last `breakdown`. While `sample` and `transfer` prepare
            the next batch, updates run; `wait` is what updates had to wait for it.
        minutes_before: Of the run's earlier processes.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.started, self.minutes_before = perf_counter(), 0.0

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Count the seconds within."""
        started = perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += perf_counter() - started

    def breakdown(self) -> dict[str, float]:
        """Where the seconds since the last call went, as metrics."""
        spent = {f"seconds/{what}": seconds for what, seconds in self.seconds.items()}
        self.seconds.clear()
        return spent

    @property
    def minutes(self) -> float:
        """Of the run, without what was lost after a save."""
        return self.minutes_before + (perf_counter() - self.started) / 60
