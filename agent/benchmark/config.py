"""Settings of the benchmark command. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.config import TrainConfig
from agent.config.training import MODES, check_choice
from agent.runs.checks import check_writable
from envs.settings import COUNT, POSITIVE, setting


@dataclass
class BenchmarkConfig(TrainConfig):
    """What to measure, and of which run.

    Attributes:
        seconds: Spent on each measurement, at least.
        modes: Of the learner, measured besides eager in float32; null: all that the device has.
        updates: Measure updates; false: only play the environment.
        estimate: Estimate cards that are not here, instead of measuring (--estimate).
        dream: Measure instead the untrained world as an environment.
        dreams: Numbers of dreams that are stepped as one batch.
        output: Where to write the result as JSON; null: nowhere.
    """

    seconds: float = setting(10.0, POSITIVE)
    modes: list[str] | None = None
    updates: bool = True
    estimate: bool = False
    dream: bool = False
    dreams: list[int] = setting([1, 16, 256], COUNT)
    output: str | None = None

    def check(self) -> None:
        """As `TrainConfig.check`; also that the output can be written."""
        super().check()
        for mode in self.modes or []:
            check_choice("modes", mode, MODES[1:])
        if self.output:
            check_writable("output", Path(self.output))
