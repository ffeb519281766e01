"""Runs whose settings differ, compared after the same time: what an ablation table holds."""

from agent.report.runs import Runs, one_per_seed
from agent.report.tables import between, bullets, interval, markdown, one_line, spread
from envs.aggregates import Estimate


def comparison(runs: Runs, minutes: float) -> list[str]:
    """Markdown parts: of each experiment and environment a table, a line for each setting.

    A run counts by its last evaluation within so many minutes. One that has none is named.
    """
    parts = [f"## After {minutes:g} minutes"]
    for (experiment, environment), group in runs.groups("experiment", "environment"):
        parts += [f"### {one_line(f'{experiment}, {environment}')}", *compare(group, minutes)]
    return parts


def compare(runs: Runs, minutes: float) -> list[str]:
    """The table of one experiment in one environment, the best setting first; who is not in it."""
    timed = runs.curves.dropna(subset="minutes")
    last = timed[timed.minutes <= minutes].sort_values("minutes", kind="stable")
    last = last[~last.index.duplicated(keep="last")].add_suffix("_then")
    reached = runs.only(runs.table.join(last, how="inner"))
    notes = [
        f"`{run}`: {'no evaluation by then' if run in timed.index else 'its log tells no time'}."
        for run in runs.table.index.difference(reached.table.index, sort=False)
    ]
    usual = {name: max(column, key=list(column).count) for name, column in reached.settings.items()
             if len(column)}  # fmt: skip
    reached.table["method"] = [
        " ".join(f"{name}={text}" for name, text in row.items() if text != usual[name])
        for row in reached.settings.to_dict("records")
    ]
    kept, twice = one_per_seed(reached)
    rows = []
    for (name, method), group in kept.table.groupby(["name", "method"]):
        game = name if group.game.notna().all() else ""
        run, score = group.iloc[0], spread(group.score_then)
        if len(group) == 1:
            score = interval(Estimate(run.score_then, run.low_then, run.high_then))
        row = {"settings": f"{game} {method}".strip() or "as most of them", "seeds": len(group)}
        row |= {"minutes": f"{group.minutes_then.mean():.1f}"}
        row |= {"environment steps": between(group.step_then)}
        row |= {"return (one seed: 95 %; several: ± deviation)": score}
        rows.append((group.score_then.mean(), row))
    best_first = [row for _, row in sorted(rows, key=lambda pair: -pair[0])]
    return [part for part in (rows and markdown(best_first), bullets(notes + twice)) if part]
