"""Runs -> a report: tables, numbers beside the published ones, figures, and what is missing."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent import files
from agent.report.comparison import comparison
from agent.report.missing import commands, missing, one_per_seed
from agent.report.sections import Section, atari, crafter, learning_curves, other, protocol, seeds
from agent.report.runs import Run
from agent.report.tables import cell, grouped
from envs.errors import BadInput
from envs.scores import RANDOM_AND_HUMAN, human_normalized_score

RUN_COLUMNS = (
    "experiment", "environment", "game", "seed", "run", "epoch", "reached", "epochs", "steps", "episodes",
    "temperature", "return_mean", "human_normalized_score", "length_mean", "crafter_score", "random_return_mean", "evaluation",
)  # fmt: skip
AGGREGATE_COLUMNS = ("experiment", "whose", "aggregate", "games", "value", "low", "high")


def write_comparison(runs: list[Run], left_out: list[str], output: Path, minutes: float) -> str:
    """Writes comparison.md into the folder `output`: runs whose settings differ, after so many minutes. As `write_report`."""
    compared = comparison(runs, minutes)
    with making(output):
        write_markdown(output / "comparison.md", left_out, compared)
    return "\n\n".join(compared)


def write_report(runs: list[Run], left_out: list[str], output: Path) -> str:
    """Writes report.md, report.csv, aggregates.csv and the figures into the folder `output`.

    left_out: lines about what could not be read

    Returns the tables and what is missing, for the screen. Raises BadInput if the folder cannot be written.
    """
    with making(output):
        sections = make_sections(runs, output)
        parts = []
        for section in sections:
            fill(section)
            parts += [f"## {section.title}", *section.parts]
        write_markdown(output / "report.md", left_out, parts)
        rows = [run_row(run) for section in sections for run in section.runs]
        write_csv(output / "report.csv", RUN_COLUMNS, rows)
        numbers = [row for section in sections for row in section.numbers]
        write_csv(output / "aggregates.csv", AGGREGATE_COLUMNS, numbers)
    return "\n\n".join(part for section in sections for part in (section.title, *section.screen))


@contextmanager
def making(output: Path) -> Iterator[None]:
    """Makes the folder; within, what cannot be written there is BadInput."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise BadInput(f"output={output} cannot be written ({error.strerror}); give another output=<folder>.") from error


def write_markdown(path: Path, left_out: list[str], parts: list[str]) -> None:
    """A report's text, which begins with what could not be read."""
    opening = ["\n".join(f"- {cell(line)}" for line in left_out)] if left_out else []
    files.write(path, ("\n\n".join(["# Report", *opening, *parts]) + "\n").encode())


def make_sections(runs: list[Run], output: Path) -> list[Section]:
    """One for each experiment and environment; all games of Atari are one environment."""
    groups = grouped(runs, lambda run: (run.series, run.environment))
    experiments = [experiment for experiment, _ in groups]
    sections: list[Section] = []
    for (experiment, environment), group in groups.items():
        title = experiment if experiments.count(experiment) == 1 else f"{experiment}, {environment}"
        stem = re.sub(r"[^\w-]+", "_", title)
        while stem in [section.stem for section in sections]:
            stem += "_"
        kept, notes = one_per_seed(group)
        sections.append(Section(cell(title), output, stem, kept, notes))
    return sections


def fill(section: Section) -> None:
    """The section's text and figures, in the order in which they are read."""
    protocol(section)
    if section.is_atari:
        atari(section)
    elif any(run.evaluation and run.evaluation.crafter_score is not None for run in section.runs):
        crafter(section)
    else:
        other(section)
    if not section.is_atari:
        seeds(section)
    learning_curves(section)
    notes = "\n".join(f"- {note}" for note in section.notes + missing(section)) or "Nothing is missing."
    section.parts += ["### What is missing", notes, *commands(section)]
    section.screen.append(notes)


def run_row(run: Run) -> list[Any]:
    """A line of report.csv; cells are empty where the run has no evaluation."""
    values = {
        "experiment": run.series, "environment": run.environment, "game": run.game, "seed": run.seed,
        "run": run.folder, "reached": run.reached, "epochs": run.epochs,
        "random_return_mean": run.random.score if run.random else None,
    }  # fmt: skip
    if saved := run.evaluation:
        normalized = human_normalized_score(run.game, saved.score) if run.game in RANDOM_AND_HUMAN else None
        values |= {
            "epoch": saved.epoch, "steps": saved.steps, "episodes": saved.episodes, "temperature": saved.temperature,
            "return_mean": saved.score, "human_normalized_score": normalized, "length_mean": saved.length,
            "crafter_score": saved.crafter_score, "evaluation": saved.path.name,
        }  # fmt: skip
    return [values.get(column) for column in RUN_COLUMNS]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    files.write(path, text.getvalue().encode())
