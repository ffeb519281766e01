"""Runs whose settings differ, compared after the same time: what an ablation table holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from agent.report.missing import one_per_seed
from agent.report.runs import Point, Run, shown
from agent.report.tables import cell, grouped, interval, mean_and_deviation, several, table
from envs.aggregates import Estimate


def comparison(runs: list[Run], minutes: float) -> list[str]:
    """Markdown: of each experiment and environment a table, a line for each setting, best first.

    A run counts by its last evaluation within so many minutes; one that has none is named, and left out.
    """
    parts = [f"## After {minutes:g} minutes"]
    for (experiment, environment), group in grouped(runs, lambda run: (run.experiment, run.environment)).items():
        parts += [f"### {cell(f'{experiment}, {environment}')}", *table_and_notes(group, minutes)]
    return parts


def table_and_notes(runs: list[Run], minutes: float) -> list[str]:
    """Of one experiment in one environment."""
    points = {run.folder: last_within(run, minutes) for run in runs}
    reached = [run for run in runs if points[run.folder]]
    common = most_common(reached)
    rows, notes = [], [f"- `{run.folder}`: {why_not(run)}." for run in runs if not points[run.folder]]
    for (game, changes), alike in grouped(reached, lambda run: (run.game, difference(run.settings, common))).items():
        kept, twice = one_per_seed(alike)
        notes += [f"- {note}" for note in twice]
        evaluations = [points[run.folder] for run in kept]
        scores = [point.score for point in evaluations]
        score = mean_and_deviation(scores)
        if len(kept) == 1:
            score = interval(Estimate(scores[0], evaluations[0].low, evaluations[0].high), 2)
        took = np.mean([point.minutes for point in evaluations])
        steps = several(point.step for point in evaluations)
        label = f"{game or ''} {changes}".strip() or "as most of them"
        rows.append((np.mean(scores), [label, str(len(kept)), f"{took:.1f}", steps, score]))
    ordered = [row for _, row in sorted(rows, key=lambda pair: -pair[0])]
    header = ["settings", "seeds", "minutes", "environment steps", "return (one seed: 95 %; several: ± deviation)"]
    return [table(header, ordered), *(["\n".join(notes)] if notes else [])]


def last_within(run: Run, minutes: float) -> Point | None:
    """Its last evaluation by then; none if its log does not tell."""
    if not run.timed:
        return None
    return max((point for point in run.points if point.minutes <= minutes), key=lambda point: point.minutes, default=None)


def why_not(run: Run) -> str:
    """Why it cannot be compared."""
    return "no evaluation by then" if run.timed else "its log tells no time"


def most_common(runs: list[Run]) -> dict[str, str]:
    """Of each setting that any has the value that most have, as it is printed; of as many the first."""
    common = {}
    for name in dict.fromkeys(name for run in runs for name in run.settings):
        values = [shown(run.settings, name) for run in runs]
        common[name] = max(values, key=values.count)
    return common


def difference(settings: dict[str, Any], common: dict[str, str]) -> str:
    """The settings that are not as usual."""
    own = {name: shown(settings, name) for name in common}
    return " ".join(f"{name.strip('.')}={own[name]}" for name in common if own[name] != common[name])
