"""The command that measures what an experiment costs."""

from __future__ import annotations

import json
from pathlib import Path

from agent.benchmark.config import BenchmarkConfig
from envs.make import spaces_of


def benchmark(config: BenchmarkConfig, overrides: list[str]) -> None:
    """Check, measure, print and write. Raises BadInput."""
    config.check()
    spaces = spaces_of(config.env, config.seed)
    from agent.benchmark import estimate, measure, rates  # torch takes seconds to import

    if config.dream:
        result = rates.measure_dreams(config, spaces)
    elif not config.updates:
        result = rates.measure_environment(config, spaces)
    elif config.estimate:
        result = estimate.estimate_cards(config, spaces)
    else:
        result = measure.measure_run(config, spaces)
    if config.output:
        about = {"experiment": config.experiment, "overrides": overrides}
        Path(config.output).parent.mkdir(parents=True, exist_ok=True)
        Path(config.output).write_text(json.dumps(about | result, indent=1) + "\n")
