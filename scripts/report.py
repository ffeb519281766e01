"""Tables, aggregates and figures of many runs: python scripts/report.py runs=<a folder below which they lie>."""

import sys
from dataclasses import dataclass
from pathlib import Path

from agent.cli import command
from agent.files import check_leads_nowhere
from agent.report.write import write_comparison, write_report
from agent.report.runs import check_protocols, find_runs
from envs.errors import BadInput


@dataclass
class ReportConfig:
    """runs: a folder; every folder below it, at any depth, with a config.yaml is a run
    output:  the folder to write the report into; null: <runs>/report
    mixed:   report runs together that were trained or evaluated by different protocols
    minutes: compare instead runs whose settings differ, each by its last evaluation within so many minutes of the run: an ablation table
    """

    runs: str | None = None
    output: str | None = None
    mixed: bool = False
    minutes: float | None = None


def main(config: ReportConfig, overrides: list[str]) -> None:
    if not config.runs:
        raise BadInput("No runs were given; give runs=<a folder below which they lie>.")
    if config.minutes is not None and not config.minutes > 0:
        raise BadInput(f"minutes={config.minutes} was given; give a positive number, or leave it out.")
    runs, left_out = find_runs(Path(config.runs))
    for line in left_out:
        print(line, file=sys.stderr)
    if not config.mixed:
        check_protocols(runs)
    output = Path(config.output or Path(config.runs) / "report")
    if not config.output:
        check_leads_nowhere(output, Path(config.runs))
    if config.minutes:
        name, text = "comparison.md", write_comparison(runs, left_out, output, config.minutes)
    else:
        name, text = "report.md", write_report(runs, left_out, output)
    print(f"{text}\n\nwritten to {output / name}")


if __name__ == "__main__":
    command("report", ReportConfig, main)
