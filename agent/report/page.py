"""The page of a report: for each environment results, aggregates, curves and what is missing."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from agent.report import figures
from agent.report.runs import Runs
from agent.runs.cli import argument, trusted
from envs import aggregates, published
from envs.aggregates import Estimate, estimate
from envs.scores import CRAFTER_ACHIEVEMENTS, RANDOM_AND_HUMAN, human_normalized_score

RANDOM = "random actions"
DELTA_IRIS = "Δ-IRIS, published"
ENOUGH_EPISODES = 100


class Page:
    """A report that is being written.

    Args:
        output: The folder of the report.

    Attributes:
        parts: Markdown, in order.
        stem: How the names of an environment's figures start.
    """

    def __init__(self, output: Path) -> None:
        self.output, self.stem = output, ""
        self.parts: list[str] = []

    def table(self, rows: object) -> None:
        """Add a table: the first column to the left, others right."""
        table = pd.DataFrame(rows, dtype=object).fillna("–").astype(str)
        alignment = ["left", *["right"] * (table.shape[1] - 1)]
        text = table.to_markdown(index=False, disable_numparse=True, colalign=alignment)
        self.parts.append(text)

    def figure(self, figure: Figure, name: str, caption: str) -> None:
        """Save a figure and add it."""
        figures.save(figure, self.output / f"{self.stem}_{name}")
        self.parts.append(f"![{caption}]({self.stem}_{name}.png)\n\n*{caption}*")


def write_report(runs: Runs, output: Path) -> str:
    """Write report.md, report.csv (a row for each run) and the figures.

    Args:
        runs: As `find_runs` finds them.
        output: The folder; it is made.

    Returns:
        The report without its figures, for the screen.
    """
    output.mkdir(parents=True, exist_ok=True)
    page = Page(output)
    page.parts += ["# Report", *(f"- {line}" for line in runs.left_out)]
    for environment, table in runs.table.groupby("environment", sort=False):
        page.stem = re.sub(r"[^\w-]+", "_", environment)
        page.parts.append(f"## {environment}")
        own = runs.only(table)
        add_results(page, own)
        add_aggregates(page, own)
        add_success_rates(page, own)
        add_curves(page, own)
        add_missing(page, own)
    (output / "report.md").write_text("\n\n".join(page.parts) + "\n")
    table = runs.table.drop(columns="success_rates")
    table.rename_axis("run").to_csv(output / "report.csv")
    return "\n\n".join(part for part in page.parts if not part.startswith("!["))


def add_results(page: Page, runs: Runs) -> None:
    """The returns of each method, of random actions and those that were published."""
    rows = []
    groups = dict(list(runs.evaluated.groupby(["name", "method"], sort=False)))
    if not runs.is_atari and len(runs.random):
        groups["", RANDOM] = runs.random
    for (name, method), group in groups.items():
        row = {"game": name} if runs.is_atari else {}
        row |= {"method": method, "seeds": len(group), "return": spread(group.score)}
        if method != RANDOM:
            steps = sorted({int(group.steps.min()), int(group.steps.max())})
            row["environment steps"] = " to ".join(map(str, steps))
        if runs.is_crafter:
            row["score in percent"] = spread(group.crafter_score.dropna())
        if name in RANDOM_AND_HUMAN:
            normalized = [human_normalized_score(name, score) for score in group.score]
            random, human = RANDOM_AND_HUMAN[name]
            row |= {"human-normalized": f"{np.mean(normalized):.3f}", "random": f"{random:g}"}
            row |= {"human": f"{human:g}", DELTA_IRIS: spread(published.DELTA_IRIS_ATARI[name])}
        rows.append(row)
    if runs.is_crafter:
        scores = published.DELTA_IRIS_CRAFTER_SCORE
        rows += [
            {"method": DELTA_IRIS, "return": value, "environment steps": steps}
            | {"score in percent": scores.get(steps)}
            for steps, value in published.DELTA_IRIS_CRAFTER_RETURN.items()
        ]
    if groups:
        page.parts.append("Mean return: mean over seeds ± standard deviation.")
        page.table(rows)


def add_aggregates(page: Page, runs: Runs) -> None:
    """Aggregates of Atari's human-normalized scores, beside others of the same games."""
    played = runs.evaluated[runs.evaluated["name"].isin(list(RANDOM_AND_HUMAN))]
    for method, table in played.groupby("method"):
        ours, theirs = (
            {
                game: [human_normalized_score(game, score) for score in scores[game]]
                for game in table["name"].unique()
            }
            for scores in (table.groupby("name").score.apply(list), published.DELTA_IRIS_ATARI)
        )
        cells = {
            who: {
                name: interval(number, 0 if "games" in name else 3)
                for name, number in aggregates.aggregate(scores).items()
            }
            for who, scores in ((str(method), ours), (DELTA_IRIS, theirs))
        }
        better = estimate(aggregates.probability_of_improvement, ours, theirs)
        cells[str(method)]["P(better than Δ-IRIS)"] = interval(better, 3)
        games = f"{len(ours)} of {len(RANDOM_AND_HUMAN)} games"
        text = "Human-normalized scores with 95 % intervals (stratified bootstrap over seeds) over"
        page.parts.append(f"{text} {games}, of others over the same.")
        if len(ours) == len(RANDOM_AND_HUMAN):  # what was printed is of all games
            for who, printed in published.PRINTED_AGGREGATES.items():
                cells[f"{who}, printed"] = {name: f"{value:g}" for name, value in printed.items()}
        page.table(pd.DataFrame(cells).rename_axis(games).reset_index())


def add_success_rates(page: Page, runs: Runs) -> None:
    """Crafter's 22 success rates of each method and of random actions, and their figure."""
    groups = [*runs.evaluated.groupby("method", sort=False), (RANDOM, runs.random)]
    found = {str(who): table.success_rates.dropna().tolist() for who, table in groups}
    rates = {who: np.stack(seeds) for who, seeds in found.items() if seeds}
    if rates:
        figure = figures.draw_success_rates(rates)
        page.figure(figure, "success_rates", "Success rates, mean over seeds.")
        columns = {who: [spread(rate) for rate in percent.T] for who, percent in rates.items()}
        page.table({"success rate in percent": CRAFTER_ACHIEVEMENTS, **columns})


def add_curves(page: Page, runs: Runs) -> None:
    """A panel for each game or environment, against steps and against the run's minutes."""
    points = runs.curves.join(runs.table[["name", "method"]]).reset_index(names="run")
    points = points.sort_values("name", kind="stable")
    levels = {RANDOM: runs.random.groupby("name").score.mean().to_dict()}
    if runs.is_atari:
        scores = published.DELTA_IRIS_ATARI.items()
        levels["published Δ-IRIS, final mean"] = {game: np.mean(of) for game, of in scores}
    for column, label in (("steps", "environment steps"), ("minutes", "minutes of the run")):
        # The last epochs learn without playing: of evaluations at the same step the last counts.
        drawn = points.dropna(subset=column).drop_duplicates(["run", column], keep="last")
        if len(drawn):
            figure = figures.draw_curves(drawn.assign(at=drawn[column]), levels, label)
            caption = f"Evaluation in training against {label}: mean and range of seeds."
            page.figure(figure, f"curves_{column}", caption)


def add_missing(page: Page, runs: Runs) -> None:
    """What a reader must know before trusting the tables, and commands for what is missing."""
    notes, table = [], runs.table
    for method, own in table.groupby("method") if runs.is_atari else ():
        if absent := [game for game in RANDOM_AND_HUMAN if game not in set(own["name"])]:
            notes.append(f"{method}: no run of {', '.join(absent)}.")
    for folder, run in table[table.reached < table.epochs].iterrows():
        notes.append(f"`{folder}` is not finished: {run.reached} of {run.epochs} epochs.")
    few = table[~(table.episodes >= ENOUGH_EPISODES) | (table.epoch < table.reached)]
    page.parts += ["### What is missing", *(f"- {note}" for note in notes)]
    commands = [
        f"python scripts/evaluate.py {argument('run', folder)} episodes={ENOUGH_EPISODES}"
        + "".join(f" {word}" for word in trusted(run.env_id))
        for folder, run in few.iterrows()
    ]
    if commands:
        page.parts.append(f"Evaluations of {ENOUGH_EPISODES} episodes at the newest epoch:")
        page.parts.append("\n".join(["```sh", *commands, "```"]))
    elif not notes:
        page.parts.append("Nothing is missing.")


def spread(scores: Sequence[float] | pd.Series) -> str:
    """Mean ± standard deviation of a sample; of a single one there is none."""
    if not len(scores):
        return "–"
    mean = float(np.mean(scores))
    decimals = 0 if abs(mean) >= 1000 else 1 if abs(mean) >= 10 else 2
    deviation = f" ± {np.std(scores, ddof=1):.{decimals}f}" if len(scores) > 1 else ""
    return f"{mean:.{decimals}f}{deviation}"


def interval(number: Estimate, decimals: int = 2) -> str:
    """A number with its interval."""
    value, low, high = (f"{x:.{decimals}f}" for x in number)
    return f"{value} [{low}, {high}]"
