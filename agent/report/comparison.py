"""Runs whose settings differ, compared after the same time: what an ablation table holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from agent.report.runs import Point, Run, shown
from agent.report.tables import cell, grouped, interval, mean_and_deviation, several, table
from envs.aggregates import Estimate


def comparison(runs: list[Run], minutes: float) -> list[str]:
    """Markdown: of each experiment and environment a table, a line for each setting, best first.

    A run counts by its last evaluation within so many minutes; one that has none is named, and left out.
    """
    parts = [f"## After {minutes:g} minutes"]
    for (experiment, environment), group in grouped(runs, lambda run: (run.experiment, run.environment)).items():
        parts += [f"### {cell(f'{experiment}, {environment}')}", table_of(group, minutes)]
    return parts


def table_of(runs: list[Run], minutes: float) -> str:
    """Of one experiment in one environment."""
    reached = [(run, point) for run in runs if (point := last_within(run, minutes))]
    common = most_common([run for run, _ in reached])
    lines = grouped(reached, lambda pair: (pair[0].game, difference(pair[0].settings, common)))
    rows = []
    for (game, changes), pairs in lines.items():
        points = [point for _, point in pairs]
        score = mean_and_deviation([point.score for point in points])
        if len(points) == 1:
            score = interval(Estimate(points[0].score, points[0].low, points[0].high), 2)
        took = np.mean([point.minutes for point in points])
        row = [f"{game or ''} {changes}".strip() or "as most of them", str(len(points)), f"{took:.1f}", several(p.step for p in points), score]
        rows.append((np.mean([point.score for point in points]), row))
    ordered = [row for _, row in sorted(rows, key=lambda pair: -pair[0])]
    text = table(["settings", "seeds", "minutes", "environment steps", "return (one seed: 95 %; several: ± deviation)"], ordered)
    left_out = [f"- `{run.folder}`: {why_not(run)}." for run in runs if not last_within(run, minutes)]
    return "\n\n".join([text, *(["\n".join(left_out)] if left_out else [])])


def last_within(run: Run, minutes: float) -> Point | None:
    """Its last evaluation by then."""
    return max((point for point in run.points if 0 < point.minutes <= minutes), key=lambda point: point.minutes, default=None)


def why_not(run: Run) -> str:
    """Why it cannot be compared."""
    return "its log tells no time" if run.points and not run.points[-1].minutes else "no evaluation by then"


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
