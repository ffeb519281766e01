"""Runs -> a report: tables, numbers beside the published ones, figures, and what is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from agent.report import figures, sections
from agent.report.comparison import comparison
from agent.report.runs import Runs, one_per_seed
from agent.report.tables import bullets, one_line
from agent.storage import files
from envs.errors import BadInput

AGGREGATE_COLUMNS = ["method", "whose", "aggregate", "games", "value", "low", "high"]


def write_report(runs: Runs, left_out: list[str], output: Path) -> str:
    """Write report.md, report.csv, aggregates.csv and the figures.

    Args:
        runs: As `find_runs` finds them.
        left_out: Sentences on what could not be read.
        output: The folder; it is made.

    Returns:
        The report without its figures, for the screen.

    Raises:
        BadInput: The folder cannot be written.
    """
    runs, notes = one_per_seed(runs)
    parts, numbers, stems = [], [], []
    with making(output):
        for environment, group in runs.groups("environment"):
            stem = figures.file_name(environment)
            stems.append(stem + "_" * stems.count(stem))
            page = sections.Page(output, stems[-1])
            fill(page, group)
            parts += [f"## {one_line(environment)}", *page.parts]
            numbers += page.numbers
        if notes:
            parts += ["## Runs of the same seed", bullets(notes)]
        write_markdown(output / "report.md", left_out, parts)
        objects = ["protocol", "training_protocol", "returns", "success_rates"]
        table = runs.table.drop(columns=objects).rename_axis("run")
        table = table.join(runs.random.return_mean.rename("random_return_mean"))
        write_csv(output / "report.csv", table.reset_index())
        write_csv(output / "aggregates.csv", pd.DataFrame(numbers, columns=AGGREGATE_COLUMNS))
    return "\n\n".join(part for part in parts if not part.startswith("!["))


def fill(page: sections.Page, runs: Runs) -> None:
    """Write the section of an environment, in the order in which it is read."""
    sections.protocol(page, runs)
    sections.results(page, runs)
    if runs.is_atari:
        sections.benchmark(page, runs)
    else:
        if runs.table.crafter_score.notna().any():
            sections.success_rates(page, runs)
        sections.seeds(page, runs)
    sections.learning_curves(page, runs)
    page.parts.append("### What is missing")
    for method, group in runs.groups("method"):
        notes = sections.missing(group)
        page.parts += [f"{one_line(method)}:", bullets(notes or ["Nothing is missing."])]
    page.parts += sections.commands(runs)


def write_comparison(runs: Runs, left_out: list[str], output: Path, minutes: float) -> str:
    """Write comparison.md: runs whose settings differ, after so many minutes. As `write_report`."""
    parts = comparison(runs, minutes)
    with making(output):
        write_markdown(output / "comparison.md", left_out, parts)
    return "\n\n".join(parts)


@contextmanager
def making(output: Path) -> Iterator[None]:
    """Make the folder; within, what cannot be written there is BadInput."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise BadInput(
            f"output={output} cannot be written ({error.strerror}); give another output=<folder>."
        ) from error


def write_markdown(path: Path, left_out: list[str], parts: list[str]) -> None:
    """Write a report's text, which begins with what could not be read."""
    text = "\n\n".join(part for part in ("# Report", bullets(left_out), *parts) if part)
    files.write(path, f"{text}\n".encode(errors="surrogateescape"))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index."""
    files.write(path, table.to_csv(index=False).encode(errors="surrogateescape"))
