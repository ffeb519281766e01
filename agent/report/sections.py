"""What a report says of an environment: protocol, results, curves, what is missing."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from agent.report import figures
from agent.report.runs import MACHINE, WHOLE, Runs, differing, is_of, protocols
from agent.report.tables import NONE, between, counted, interval, markdown, spread
from agent.runs.cli import argument, trusted
from envs import aggregates, published
from envs.aggregates import AGGREGATES, Estimate, Scores, estimate
from envs.scores import CRAFTER_ACHIEVEMENTS, RANDOM_AND_HUMAN, human_normalized_score

RANDOM = "random actions"
DELTA_IRIS = "Δ-IRIS, published"
BETTER = "P(better than Δ-IRIS)"
PARTIAL = (
    "**Partial**: the others are aggregated over the same games; what was printed for all 26 "
    "(Δ-IRIS, DART, IRIS) cannot be compared with that."
)
ENOUGH_EPISODES = 100
ATARI_100K_STEPS = 100_000


@dataclass
class Page:
    """A section of the report that is being written.

    Attributes:
        output: The folder of the report.
        stem: How the names of its figures start.
        parts: Markdown, in order.
        numbers: Rows of aggregates.csv.
    """

    output: Path
    stem: str
    parts: list[str] = field(default_factory=list)
    numbers: list[dict[str, object]] = field(default_factory=list)

    def figure(self, figure: Figure, name: str, caption: str) -> None:
        """Save a figure and add it."""
        figures.save(figure, self.output, f"{self.stem}_{name}")
        self.parts.append(f"![{caption}]({self.stem}_{name}.png)\n\n*{caption}*")


def protocol(page: Page, runs: Runs) -> None:
    """Every choice of each method; where its runs differ each value with its number of runs."""
    columns = {}
    for method, group in runs.groups("method"):
        choices = protocols(group, is_random=False)
        choices = choices[sorted(choices)].join(group.table[WHOLE[1:]])
        columns[method] = {name: counted(choices[name]) for name in choices if len(choices)}
    table = pd.DataFrame(columns).rename_axis("protocol").reset_index()
    page.parts += ["### Protocol", markdown(table)]
    if runs.is_atari:
        page.parts.append(f"Published Δ-IRIS: {published.DELTA_IRIS_ATARI_PROTOCOL}.")


def results(page: Page, runs: Runs) -> None:
    """The returns of each method, of random actions and those that were published."""
    is_atari, is_crafter = runs.is_atari, runs.table.crafter_score.notna().any()
    rows = []
    played = dict(list(runs.evaluated.groupby(["name", "method"], sort=False)))
    if not is_atari and len(runs.random):
        played["", RANDOM] = random_evaluations(runs)
    for (name, method), table in played.items():
        row = ({"game": name} if is_atari else {}) | {"method": method, "seeds": len(table)}
        row |= {"environment steps": between(table.steps) if method != RANDOM else NONE}
        row |= {"return": spread(table.return_mean)}
        if is_crafter:
            row["score in percent"] = spread(table.crafter_score)
        if name in RANDOM_AND_HUMAN:
            random, human = RANDOM_AND_HUMAN[name]
            row |= {"human-normalized": f"{table.human_normalized_score.mean():.3f}"}
            row |= {"random": f"{random:g}", "human": f"{human:g}"}
            row |= {DELTA_IRIS: spread(published.DELTA_IRIS_ATARI[name])}
        rows.append(row)
    if is_crafter:
        rows += [
            {"method": DELTA_IRIS, "environment steps": steps, "return": f"{value:.1f}"}
            | {"score in percent": published.DELTA_IRIS_CRAFTER_SCORE.get(steps)}
            for steps, value in published.DELTA_IRIS_CRAFTER_RETURN.items()
        ]
    if played:
        text = "Mean return over seeds ± standard deviation; a seed's is the mean of its episodes."
        page.parts += ["### Results", text, markdown(rows)]


def random_evaluations(runs: Runs) -> pd.DataFrame:
    """Of random actions, each once: with the same seed they are the same in every run."""
    return runs.random.drop_duplicates(["evaluation_seed", "num_envs", "episodes"])


def benchmark(page: Page, runs: Runs) -> None:
    """Aggregates over games of each method, beside others of the same games."""
    played = runs.evaluated.dropna(subset="human_normalized_score").groupby("method")
    scores: dict[str, Scores] = {
        method: {name: list(of) for name, of in table.groupby("name").human_normalized_score}
        for method, table in played
    }
    delta_iris = {
        game: [human_normalized_score(game, score) for score in published.DELTA_IRIS_ATARI[game]]
        for game in RANDOM_AND_HUMAN
    }
    for method, ours in scores.items():
        others = {**scores, DELTA_IRIS: delta_iris}
        known: dict[str, figures.Intervals] = {
            who: aggregates.aggregate({game: theirs[game] for game in ours})
            for who, theirs in {method: ours, **others}.items()
            if ours.keys() <= theirs.keys()
        }
        of_ours = {game: delta_iris[game] for game in ours}
        known[method][BETTER] = estimate(aggregates.probability_of_improvement, ours, of_ours)
        games = f"{len(ours)} of {len(RANDOM_AND_HUMAN)} games"
        is_whole = len(ours) == len(RANDOM_AND_HUMAN)
        if is_whole:
            printed = published.PRINTED_AGGREGATES.items()
            known |= {f"{who}, printed": values for who, values in printed}
        text = f"Aggregates of human-normalized scores over {games}, with 95 % intervals"
        text += f" (stratified bootstrap over seeds). {'' if is_whole else PARTIAL}"
        cells = {
            who: {name: interval(n, 0 if "games" in name else 3) for name, n in of.items()}
            for who, of in known.items()
        }
        table = pd.DataFrame(cells).rename_axis(games).reset_index()
        page.parts += [text.strip(), markdown(table)]
        panels = {
            name: {who: of[name] for who, of in known.items() if name in of} for name in AGGREGATES
        }
        stem = f"aggregates_{figures.file_name(method)}"
        page.figure(figures.draw_intervals(panels), stem, f"{method}: aggregates over {games}.")
        for whose, of in known.items():
            for name, number in of.items():
                row = {"method": method, "whose": whose, "aggregate": name, "games": len(ours)}
                bounds = number if isinstance(number, Estimate) else Estimate(number, None, None)
                page.numbers.append(row | bounds._asdict())


def success_rates(page: Page, runs: Runs) -> None:
    """Crafter's 22 success rates of each method and of random actions, and their figure."""
    played = dict(list(runs.evaluated.groupby("method", sort=False)))
    played[RANDOM] = random_evaluations(runs)
    rates = {
        who: np.stack(found)
        for who, table in played.items()
        if (found := list(table.success_rates.dropna()))
    }
    drawn = figures.draw_success_rates(rates)
    page.figure(drawn, "success_rates", "Success rates, mean over seeds.")
    columns = {who: [spread(rate) for rate in percent.T] for who, percent in rates.items()}
    page.parts.append(markdown({"success rate in percent": CRAFTER_ACHIEVEMENTS, **columns}))


def seeds(page: Page, runs: Runs) -> None:
    """Of each run what its episodes returned, and those of random actions."""
    rows = []
    for folder, run in runs.evaluated.iterrows():
        curve = runs.curves[(runs.curves.index == folder) & (runs.curves.epoch == run.epoch)]
        minutes = [f"{minutes:.0f}" for minutes in curve.minutes.dropna()]
        row = {"method": run.method, "seed": run.seed, "environment steps": run.steps}
        row |= {"minutes": minutes[0] if minutes else NONE}
        row |= {"return": interval(estimate(aggregates.mean, {"": run.returns}))}
        random = runs.random.returns.get(folder)
        row[RANDOM] = NONE if random is None else interval(estimate(aggregates.mean, {"": random}))
        rows.append(row)
    if rows:
        text = "Mean return of each seed's episodes, with its 95 % interval (bootstrap)."
        page.parts += [text, markdown(rows)]


def learning_curves(page: Page, runs: Runs) -> None:
    """A panel for each game or environment, against steps and against the run's minutes."""
    points = runs.curves.join(runs.table[["name", "method"]]).reset_index(names="run")
    points = points.sort_values("name", kind="stable")
    levels = {
        RANDOM: {
            name: random_evaluations(group).return_mean.mean()
            for name, group in runs.groups("name") if len(group.random)
        }
    }  # fmt: skip
    if runs.is_atari:
        scores = published.DELTA_IRIS_ATARI.items()
        levels["published Δ-IRIS, final mean"] = {game: np.mean(of) for game, of in scores}
    untimed = " Runs whose logs tell no time are left out." * bool(points.minutes.isna().any())
    for name, column, label, caption in (
        ("curves", "step", "environment steps", "Evaluation in training: mean and range of seeds."),
        ("minutes", "minutes", "minutes", f"The same against the minutes of the run.{untimed}"),
    ):
        # The last epochs learn without playing: of evaluations at the same step the last counts.
        drawn = points.dropna(subset=column).drop_duplicates(["run", column], keep="last")
        if len(drawn):
            figure = figures.draw_curves(drawn.assign(at=drawn[column]), levels, label)
            page.figure(figure, name, caption)


def missing(runs: Runs) -> list[str]:
    """A sentence for each thing that a reader must know before trusting a method's tables."""
    table, played, notes = runs.table, runs.evaluated, []
    if runs.is_atari:
        names = list(dict.fromkeys(table["name"]))
        if absent := [game for game in RANDOM_AND_HUMAN if game not in names]:
            of = f"{len(absent)} of the {len(RANDOM_AND_HUMAN)} games"
            notes.append(f"No run of {of}: {', '.join(absent)}.")
        if foreign := [name for name in names if name not in RANDOM_AND_HUMAN]:
            notes.append(f"Not among the games of the aggregates: {', '.join(foreign)}.")
    counts = played["name"].value_counts().sort_index()
    if fewer := [f"{name} {n}" for name, n in counts.items() if n < counts.max()]:
        said = f"Fewer seeds with an evaluation than the others' {counts.max()}"
        notes.append(f"{said}: {', '.join(fewer)}.")
    others = played[played.game.notna() & (played.steps != ATARI_100K_STEPS)]
    for said, rows, values in (
        ("Unfinished, in epochs", table[table.reached < table.epochs], "{0.reached} of {0.epochs}"),
        ("Evaluated at an earlier epoch than the last", played[played.epoch < played.reached],
         "{0.epoch} of {0.reached}"),
        ("Without an evaluation", table[table.return_mean.isna()], ""),
        (f"Fewer than {ENOUGH_EPISODES} evaluation episodes",
         played[played.episodes < ENOUGH_EPISODES], "{0.episodes}"),
        (f"Not trained on the {ATARI_100K_STEPS} steps of the benchmark", others, "{0.steps}"),
    ):  # fmt: skip
        if len(rows):
            of = [f"`{folder}` {values.format(run)}".strip() for folder, run in rows.iterrows()]
            notes.append(f"{said}: {', '.join(of)}.")
    if mixed := differing(protocols(runs)):
        notes.append(f"Mixed protocols, so these scores cannot be compared: {', '.join(mixed)}.")
    if own := [name for name in differing(runs.settings) if not is_of(MACHINE, name)]:
        notes.append(f"Runs differ in more than game and seed: {', '.join(own)}.")
    return notes


def commands(runs: Runs) -> list[str]:
    """How the evaluations that are missing, early or short can be had: a block, or nothing."""
    table = runs.table
    enough = (table.episodes >= ENOUGH_EPISODES) & (table.epoch >= table.reached)
    lines = []
    for folder, env_id in table.env_id[~enough.fillna(False)].items():
        words = [argument("run", folder), f"episodes={ENOUGH_EPISODES}", *trusted(env_id)]
        lines.append(" ".join(["python scripts/evaluate.py", *words]))
    return ["\n".join(["```sh", *lines, "```"])] if lines else []
