"""Report many runs: python scripts/report.py runs=<a folder below which they lie>."""

import sys
from dataclasses import dataclass
from pathlib import Path

from agent.runs.cli import command
from envs.errors import BadInput
from envs.settings import POSITIVE, check_values, setting


@dataclass
class ReportConfig:
    """What is reported, and where.

    Attributes:
        runs: A folder; every folder below it, at any depth, with a config.yaml is a run.
        output: The folder to write the report into; null: <runs>/report.
        mixed: Report runs together that were trained or evaluated by different protocols.
        minutes: Compare instead runs whose settings differ, each by its last evaluation within so
            many minutes of the run: an ablation table.
    """

    runs: str | None = None
    output: str | None = None
    mixed: bool = False
    minutes: float | None = setting(None, POSITIVE)


def main(config: ReportConfig, overrides: list[str]) -> None:
    """Check, report and print. Raises BadInput."""
    check_values(config)
    if not config.runs:
        raise BadInput("No runs were given; give runs=<a folder below which they lie>.")
    if not Path(config.runs).is_dir():
        raise BadInput(
            f"runs={config.runs} is not a folder; give runs=<a folder below which runs lie>."
        )
    from agent.report.runs import check_protocols, find_runs  # pandas takes seconds to import
    from agent.report.write import write_comparison, write_report

    runs, left_out = find_runs(Path(config.runs))
    for line in left_out:
        print(line, file=sys.stderr)
    if not config.mixed:
        check_protocols(runs)
    output = Path(config.output or Path(config.runs) / "report")
    if config.minutes:
        name, text = "comparison.md", write_comparison(runs, left_out, output, config.minutes)
    else:
        name, text = "report.md", write_report(runs, left_out, output)
    print(f"{text}\n\nwritten to {output / name}")


if __name__ == "__main__":
    command("report", ReportConfig, main, [])
