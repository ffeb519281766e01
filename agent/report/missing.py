"""What a reader must know before trusting a report's tables."""

from __future__ import annotations

from agent.cli import argument, trusted
from agent.report.sections import Section
from agent.report.runs import Run, differing_choices, settings_that_differ
from agent.report.tables import cell, grouped, listed, several
from envs.scores import RANDOM_AND_HUMAN

ENOUGH_EPISODES = 100
ATARI_100K_STEPS = 100_000


def one_per_seed(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """Of the runs of one game and seed, which are not independent, the one that came furthest; notes on the others."""

    def progress(run: Run) -> tuple[int, int, int]:
        saved = run.evaluation
        return (saved.epoch, saved.episodes, run.reached) if saved else (-1, 0, run.reached)

    kept, notes = [], []
    for same in grouped(runs, lambda run: (run.name, run.seed)).values():
        best = max(same, key=progress)
        kept.append(best)
        notes += [
            f"Left out: `{run.folder}`, {cell(run.name)} with seed {run.seed} again (`{best.folder}` is counted)."
            for run in same
            if run is not best
        ]
    return kept, notes


def missing(section: Section) -> list[str]:
    """A sentence for each thing that is not as a full report would have it."""
    notes = []
    counts = {name: len(runs) for name, runs in section.evaluated.items()}
    runs = [run for run in section.runs if run.evaluation]
    if section.is_atari:
        notes += missing_of_atari(section.runs, runs)
    most = max(counts.values(), default=0)
    if fewer := [f"{cell(name)} {count}" for name, count in counts.items() if count < most]:
        notes.append(f"Fewer seeds with an evaluation than the others' {most}: {', '.join(fewer)}.")
    if single := [cell(name) for name, count in counts.items() if count == 1]:
        notes.append(f"One seed only, so without a spread, which intervals lack too: {', '.join(single)}.")
    if short := [run for run in section.runs if run.reached < run.epochs]:
        said = ", ".join(f"`{run.folder}` {run.reached} of {run.epochs}" for run in short)
        notes.append(f"Unfinished, in epochs: {said}.")
    if early := [run for run in runs if run.evaluation.epoch < run.reached]:
        said = ", ".join(f"`{run.folder}` at {run.evaluation.epoch} of {run.reached}" for run in early)
        notes.append(f"Evaluated at an earlier epoch than the last: {said}.")
    if without := [run.folder for run in section.runs if not run.evaluation]:
        notes.append(f"Without an evaluation: {listed(without, most=len(without))}.")
    few = [run for run in runs if run.evaluation.episodes < ENOUGH_EPISODES]
    for episodes, same in grouped(few, lambda run: run.evaluation.episodes).items():
        folders = [run.folder for run in same]
        notes.append(f"Fewer than {ENOUGH_EPISODES} evaluation episodes, {episodes}: {listed(folders)}.")
    if mixed := dict.fromkeys(name for name, _, _ in differing_choices(section.runs)):
        notes.append(f"Mixed protocols, so these scores cannot be compared: {cell(', '.join(mixed))}.")
    if settings := settings_that_differ(section.runs):
        notes.append(f"Runs differ in more than game and seed: {cell(', '.join(settings))}.")
    return notes


def missing_of_atari(runs: list[Run], evaluated: list[Run]) -> list[str]:
    """What only the Atari 100k benchmark asks for."""
    notes = []
    played = dict.fromkeys(run.name for run in runs)
    if absent := [game for game in RANDOM_AND_HUMAN if game not in played]:
        notes.append(f"No run of {len(absent)} of the {len(RANDOM_AND_HUMAN)} games: {', '.join(absent)}.")
    if foreign := [cell(name) for name in played if name not in RANDOM_AND_HUMAN]:
        notes.append(f"Not among the benchmark's games, so not in the aggregates: {', '.join(foreign)}.")
    if others := [run for run in evaluated if run.evaluation.steps != ATARI_100K_STEPS]:
        steps = several(run.evaluation.steps for run in others)
        folders = listed([run.folder for run in others])
        notes.append(f"Not trained on the benchmark's {ATARI_100K_STEPS} environment steps, but on {steps}: {folders}.")
    return notes


def commands(section: Section) -> list[str]:
    """How the evaluations that are missing, early or short can be had: a block of Markdown, or nothing."""
    lines = []
    for run in section.runs:
        saved = run.evaluation
        if saved is None or saved.episodes < ENOUGH_EPISODES or saved.epoch < run.reached:
            words = ["python", "scripts/evaluate.py", argument("run", run.folder), f"episodes={ENOUGH_EPISODES}", *trusted(run.env_id)]
            lines.append(" ".join(words))
    return ["\n".join(["```sh", *lines, "```"])] if lines else []
