"""The command that measures what an experiment costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent.benchmark.config import BenchmarkConfig
from envs.make import spaces_of


def benchmark(config: BenchmarkConfig, overrides: list[str]) -> None:
    """Check, measure, print and write. Raises BadInput."""
    config.check()
    spaces = spaces_of(config.env, config.seed)
    from agent.benchmark import estimate, measure, rates, roofline  # torch takes seconds to import

    if config.dream:
        result = rates.measure_dreams(config, spaces)
    elif not config.updates:
        result = rates.measure_environment(config, spaces)
    elif config.estimate:
        result = estimate.estimate_cards(config, spaces)
    else:
        result = measure.measure_run(config, spaces)
        if config.roofline:
            roofline.draw(result, config, spaces, Path(config.roofline))
    if config.output:
        write(
            Path(config.output), {"experiment": config.experiment, "overrides": overrides} | result
        )


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
