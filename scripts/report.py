"""Report many runs: python scripts/report.py runs=<a folder below which they lie>."""

import sys
from dataclasses import dataclass
from pathlib import Path

from agent.runs.checks import check_writable
from agent.runs.cli import command
from envs.errors import BadInput
from envs.settings import POSITIVE, check_values, setting


@dataclass
class ReportConfig:
    """What is reported, and where.

    Attributes:
        runs: A folder; every folder below it, at any depth, with a config.yaml is a run.
        output: The folder to write the report into; null: <runs>/report.
        minutes: Count each run by its last evaluation in training within so many minutes.
    """

    runs: str | None = None
    output: str | None = None
    minutes: float | None = setting(None, POSITIVE)


def main(config: ReportConfig, overrides: list[str]) -> None:
    """Check, report and print. Raises BadInput."""
    check_values(config)
    if not config.runs or not Path(config.runs).is_dir():
        raise BadInput(f"runs={config.runs} is not a folder; give one below which runs lie.")
    output = Path(config.output or Path(config.runs) / "report")
    check_writable("output", output / "report.md")
    from agent.report.page import write_report  # pandas takes seconds to import
    from agent.report.runs import find_runs

    runs = find_runs(Path(config.runs), config.minutes)
    for line in runs.left_out:
        print(line, file=sys.stderr)
    print(f"{write_report(runs, output)}\n\nwritten to {output / 'report.md'}")


if __name__ == "__main__":
    command("report", ReportConfig, main, [])
