"""What a report says of an experiment: its protocol, its results by kind of environment, its curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agent.report import figures
from agent.report.runs import Run, SavedEvaluation, shown
from agent.report.tables import cell, counted, grouped, interval, mean_and_deviation, several, table
from envs.aggregates import Estimate, Scores, aggregate, estimate, mean, performance_profile, probability_of_improvement
from envs.published import (
    DELTA_IRIS_ATARI,
    DELTA_IRIS_ATARI_PROTOCOL,
    DELTA_IRIS_CRAFTER_RETURN,
    DELTA_IRIS_CRAFTER_SCORE,
    PRINTED_AGGREGATES,
)
from envs.scores import CRAFTER_ACHIEVEMENTS, RANDOM_AND_HUMAN, human_normalized_score

OURS = "ours"
RANDOM = "random actions"
DELTA_IRIS = "Δ-IRIS, published"
BETTER = "P(ours > Δ-IRIS)"
NONE = "–"

PRINTED = (
    "DART and IRIS are as printed, without intervals (the mean of DART's printed scores of the games is 1.057); their "
    "scores of each game are not at hand."
)
PARTIAL = (
    "**Partial**: Δ-IRIS is aggregated over the same games. What was printed for all 26 (Δ-IRIS, DART, IRIS) cannot be "
    "compared with that and is left out: DART's and IRIS's scores of each game are not at hand."
)

# Thresholds of a performance profile: even up to a human's score, then by equal factors.
THRESHOLDS = np.concatenate([np.linspace(-0.25, 1, 126), np.geomspace(1, 12, 120)[1:]])


@dataclass
class Section:
    """The runs of an experiment in an environment, one for each game and seed, and what is said of them.

    output, stem: the folder of the report, and how the section's files in it start
    notes:   what is odd or missing
    parts:   Markdown, in order
    screen:  the short of it
    numbers: rows of aggregates.csv
    """

    title: str
    output: Path
    stem: str
    runs: list[Run]
    notes: list[str]
    parts: list[str] = field(default_factory=list)
    screen: list[str] = field(default_factory=list)
    numbers: list[list[Any]] = field(default_factory=list)

    @property
    def is_atari(self) -> bool:
        return any(run.game for run in self.runs)

    @property
    def evaluated(self) -> dict[str, list[Run]]:
        """What is played -> its runs that have an evaluation."""
        runs = sorted((run for run in self.runs if run.evaluation), key=lambda run: run.name)
        return grouped(runs, lambda run: run.name)

    def add_table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.parts.append(table(header, rows))
        self.screen.append(self.parts[-1])

    def add_figure(self, figure: Any, name: str, caption: str) -> None:
        figures.save(figure, self.output, f"{self.stem}_{name}")
        self.parts.append(f"![{caption}]({self.stem}_{name}.png)\n\n*{caption}*")


def protocol(section: Section) -> None:
    """Every choice in evaluation and training; where runs differ, each value with its number of runs."""
    evaluations = [run.evaluation for run in section.runs if run.evaluation]
    lines = [f"- environment: {cell(section.runs[0].environment)}"]
    for title, attribute in (("evaluation", "protocol"), ("training", "training_protocol")):
        choices = [getattr(saved, attribute) for saved in evaluations]
        names = sorted({name for each in choices for name in each})
        said = [f"{cell(name)} {counted(shown(each, name) for each in choices)}" for name in names]
        lines.append(f"- in {title}: {', '.join(said) or NONE}")
    if evaluations:
        lines.append(f"- temperature: {counted(str(saved.temperature) for saved in evaluations)}")
        lines.append(f"- evaluation episodes: {counted(str(saved.episodes) for saved in evaluations)}")
        lines.append(f"- environments beside one another: {counted(str(saved.num_envs) for saved in evaluations)}")
        lines.append(f"- evaluation seed: {counted(str(saved.seed) for saved in evaluations)}")
        lines.append(f"- environment steps trained on: {several(saved.steps for saved in evaluations)}")
    if section.is_atari:
        lines.append(f"- published Δ-IRIS: {DELTA_IRIS_ATARI_PROTOCOL}")
    section.parts += ["### Protocol", "\n".join(lines)]


def atari(section: Section) -> None:
    """Atari 100k: the games, and their aggregates beside the published ones."""
    section.parts.append("### Results")
    rows = []
    for game, runs in section.evaluated.items():
        scores = [run.evaluation.score for run in runs]
        mark = "*" if any(run.reached < run.epochs for run in runs) else ""
        beside = [NONE] * 4
        if game in RANDOM_AND_HUMAN:
            normalized = human_normalized_score(game, float(np.mean(scores)))
            theirs = mean_and_deviation(DELTA_IRIS_ATARI[game])
            beside = [f"{normalized:.3f}", *(f"{score:g}" for score in RANDOM_AND_HUMAN[game]), theirs]
        rows.append([f"{game}{mark}", str(len(runs)), mean_and_deviation(scores), *beside])
    if rows:
        section.parts.append(
            "A seed's score is the mean return of its evaluation episodes; ± is the standard deviation over seeds; "
            "an asterisk marks games with an unfinished run."
        )
        section.add_table(["game", "seeds", OURS, "human-normalized", "random", "human", DELTA_IRIS], rows)
    ours = {
        game: [human_normalized_score(game, run.evaluation.score) for run in runs]
        for game, runs in section.evaluated.items()
        if game in RANDOM_AND_HUMAN
    }
    if ours:
        aggregates(section, ours)
    else:
        section.parts.append("No aggregates: no game of the benchmark has a run with an evaluation.")


def aggregates(section: Section, ours: Scores) -> None:
    """The aggregates of `ours` beside those of others, a table, numbers and three figures."""
    theirs = {game: [human_normalized_score(game, score) for score in DELTA_IRIS_ATARI[game]] for game in ours}
    games = f"{len(ours)} of {len(RANDOM_AND_HUMAN)} games"
    whole = len(ours) == len(RANDOM_AND_HUMAN)
    known: dict[str, dict[str, Estimate | float]] = {OURS: dict(aggregate(ours)), DELTA_IRIS: dict(aggregate(theirs))}
    names = list(known[OURS])
    if whole:
        known |= {f"{who}, printed": dict(values) for who, values in PRINTED_AGGREGATES.items()}
    together = probability_of_improvement(ours, theirs)
    each = {game: probability_of_improvement({game: scores}, theirs) for game, scores in ours.items()}
    known[OURS][BETTER] = together

    section.parts.append(
        f"Aggregates of human-normalized scores over {games}, with 95 % intervals (stratified bootstrap over seeds). "
        + (PRINTED if whole else PARTIAL)
    )
    section.add_table(
        [games, *known],
        [
            [name, *(interval(of[name], 0 if "games" in name else 3) if name in of else NONE for of in known.values())]
            for name in (*names, BETTER)
        ],
    )
    rows = [(who, name, len(ours), value) for who, of in known.items() for name, value in of.items()]
    rows += [(OURS, BETTER, game, value) for game, value in each.items()]
    for *of, value in rows:
        e = value if isinstance(value, Estimate) else Estimate(value, "", "")
        section.numbers.append([section.title, *of, e.value, e.low, e.high])

    panels = {name: {who: of[name] for who, of in known.items() if name in of} for name in names}
    section.add_figure(figures.draw_aggregates(panels), "aggregates", f"Aggregates over {games}, with 95 % intervals.")
    profiles = {who: performance_profile(scores, THRESHOLDS) for who, scores in ((OURS, ours), (DELTA_IRIS, theirs))}
    figure = figures.draw_profile(profiles, THRESHOLDS)
    section.add_figure(figure, "profile", f"Performance profile over {games}, with 95 % bands.")
    best_first = dict(sorted(each.items(), key=lambda item: -item[1].value))
    figure = figures.draw_improvement({"all together": together, **best_first})
    section.add_figure(figure, "improvement", "Probability of improvement over published Δ-IRIS, with 95 % intervals.")


def crafter(section: Section) -> None:
    """Crafter: score and return beside random actions and the published ones, and the 22 success rates."""
    played = {
        OURS: [run.evaluation for run in section.runs if run.evaluation and run.evaluation.success_rates],
        RANDOM: [saved for saved in random_evaluations(section.runs) if saved.success_rates],
    }
    played = {who: evaluations for who, evaluations in played.items() if evaluations}
    rows = []
    for who, evaluations in played.items():
        steps = several(saved.steps for saved in evaluations) if who == OURS else NONE
        scores = mean_and_deviation([saved.crafter_score for saved in evaluations])
        returns = mean_and_deviation([saved.score for saved in evaluations])
        rows.append([who, steps, str(len(evaluations)), scores, returns])
    for steps, value in DELTA_IRIS_CRAFTER_RETURN.items():
        score = f"{DELTA_IRIS_CRAFTER_SCORE[steps]:.1f}" if steps in DELTA_IRIS_CRAFTER_SCORE else NONE
        rows.append([DELTA_IRIS, str(steps), NONE, score, f"{value:.1f}"])
    section.parts += ["### Results", "Means over seeds ± standard deviation; the score is in percent."]
    section.add_table(["Crafter", "environment steps", "seeds", "score", "return"], rows)

    rates = {
        who: np.array([[saved.success_rates[name] for name in CRAFTER_ACHIEVEMENTS] for saved in evaluations])
        for who, evaluations in played.items()
    }
    figure = figures.draw_success_rates(rates)
    section.add_figure(figure, "success_rates", "Success rates, mean over seeds (black: their range).")
    columns = [[mean_and_deviation(rate) for rate in percent.T] for percent in rates.values()]
    rows = [list(row) for row in zip(CRAFTER_ACHIEVEMENTS, *columns, strict=True)]
    section.parts.append(table(["success rate in percent", *rates], rows))


def seeds(section: Section) -> None:
    """Of each run what its episodes returned, and those of random actions."""
    rows = []
    for run in section.runs:
        if saved := run.evaluation:
            random = run.random and interval(mean_return(run.random), 2)
            minutes = next((f"{point.minutes:.0f}" for point in run.points if point.epoch == saved.epoch and math.isfinite(point.minutes)), NONE)
            rows.append([str(run.seed), str(saved.steps), minutes, interval(mean_return(saved), 2), random or NONE])
    if rows:
        section.parts.append("Mean return of each seed's episodes, with its 95 % interval (bootstrap over episodes).")
        section.add_table(["seed", "environment steps", "minutes", OURS, RANDOM], rows)


def mean_return(saved: SavedEvaluation) -> Estimate:
    """With its interval."""
    return estimate(mean, {"returns": saved.returns})


def other(section: Section) -> None:
    """Any other environment: the returns."""
    rows = []
    for name, runs in section.evaluated.items():
        random = [saved.score for saved in random_evaluations(runs)]
        scores = mean_and_deviation([run.evaluation.score for run in runs])
        rows.append([name, str(len(runs)), scores, mean_and_deviation(random) if random else NONE])
    if rows:
        section.parts += ["### Results", "Mean return over seeds ± standard deviation."]
        section.add_table(["environment", "seeds", OURS, RANDOM], rows)


def random_evaluations(runs: list[Run]) -> list[SavedEvaluation]:
    """Of random actions, each once: with the same seed they are the same in every run."""
    return list({(saved.seed, saved.num_envs, saved.episodes): saved for run in runs if (saved := run.random)}.values())


def learning_curves(section: Section) -> None:
    """A panel for each game or environment that has a curve, against steps and against the run's minutes."""
    runs = sorted((run for run in section.runs if run.points), key=lambda run: run.name)
    if not runs:
        return
    levels = {
        "published Δ-IRIS, final mean": {game: float(np.mean(scores)) for game, scores in DELTA_IRIS_ATARI.items()} if section.is_atari else {},
        RANDOM: {
            name: float(np.mean([saved.score for saved in random]))
            for name, played in grouped(runs, lambda run: run.name).items() if (random := random_evaluations(played))
        },
    }  # fmt: skip

    def draw(runs: list[Run], against: Literal["step", "minutes"], label: str) -> Any:
        games = grouped(runs, lambda run: run.name)
        return figures.draw_curves({name: [run.curve(against) for run in seeds] for name, seeds in games.items()}, levels, label)

    caption = "Learning curves: evaluation during training, mean and range over seeds."
    section.add_figure(draw(runs, "step", "environment steps"), "curves", caption)
    if timed := [run for run in runs if run.timed]:
        caption = "The same against the minutes that the run had taken." + " Runs whose logs tell no time are left out." * (timed != runs)
        section.add_figure(draw(timed, "minutes", "minutes"), "minutes", caption)
