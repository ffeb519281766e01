"""The runs below a folder, read into tables.

A run is a folder with a config.yaml that names experiment, seed, epochs and env.id. Beside it lie
metrics.csv (epoch, step, minutes, evaluate/return_mean) and evaluation_*.json. Whoever writes these
three is in the report, a baseline of another library too.
"""

import json
import os
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import pandas as pd
import yaml

from agent.storage import files
from agent.storage.metrics import read_metrics
from envs.errors import BadInput
from envs.scores import CRAFTER_ACHIEVEMENTS, RANDOM_AND_HUMAN, human_normalized_score

UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError, yaml.YAMLError
)  # fmt: skip

# Settings that name a run, or change nothing of what becomes of it.
NAMES = (
    "experiment run resume sweep seed checkpoint_every keep damaged logger env.id env.game".split()  # noqa: SIM905 (one a line is long)
)
# Of the machine, or compared as the protocol: these too may differ between seeds of one thing.
MACHINE = (  # noqa: SIM905 (one a line is long)
    "epochs env device precision learner replay.storage evaluation final_episodes evaluate_every"
).split()
# Columns of an evaluation: whole numbers, then others.
WHOLE = ["epoch", "steps", "episodes", "num_envs", "evaluation_seed"]
EVALUATION = (  # noqa: SIM905 (one a line is long)
    "temperature return_mean length_mean crafter_score protocol training_protocol returns "
    "success_rates"
).split()
# Columns of metrics.csv -> of `Runs.curves`.
CURVE = {"epoch": "epoch", "step": "step", "minutes": "minutes", "evaluate/return_mean": "score"}
CURVE |= {"evaluate/return_95_low": "low", "evaluate/return_95_high": "high"}


@dataclass
class Runs:
    """All that a report reads. Each table is indexed by the run's folder.

    Attributes:
        table: A row for each run. method: the experiment, with the agent where it is not Δ-IRIS;
            environment: its id without the module that registers it; name: the game of Atari, or
            the environment; epochs: wanted; reached: so far; the columns of the latest evaluation
            with the most episodes, missing where there is none; human_normalized_score.
        random: The same columns of an evaluation of random actions, of the runs that have one.
        curves: A row for each evaluation during training, with the bounds of its 95 % interval.
        settings: Dotted key -> value as text, without those that only name a run.
    """

    table: pd.DataFrame
    random: pd.DataFrame
    curves: pd.DataFrame
    settings: pd.DataFrame

    @property
    def is_atari(self) -> bool:
        """Whether games of Atari are played."""
        return bool(self.table.game.notna().any())

    @property
    def evaluated(self) -> pd.DataFrame:
        """The rows of the runs that have an evaluation, in the order of what they play."""
        return self.table.dropna(subset="return_mean").sort_values("name", kind="stable")

    def only(self, table: pd.DataFrame) -> "Runs":
        """These rows of the table, and what belongs to them."""
        others = (self.random, self.curves, self.settings)
        return Runs(table, *(other[other.index.isin(table.index)] for other in others))

    def groups(self, *columns: str) -> Iterator[tuple[Any, "Runs"]]:
        """Value of the column, or values of the columns -> its runs, in order of appearance."""
        for key, table in self.table.groupby(list(columns), sort=False):
            yield key if len(columns) > 1 else key[0], self.only(table)


def find_runs(folder: Path) -> tuple[Runs, list[str]]:
    """Read the runs below a folder, in the order of their paths.

    Returns:
        The runs, and a sentence for each file and folder that was left out.

    Raises:
        BadInput: There is no run.
    """
    if not folder.is_dir():
        raise BadInput(f"runs={folder} is not a folder; give runs=<a folder below which runs lie>.")
    rows: dict[str, dict[str, Any]] = {}
    settings: dict[str, dict[str, str]] = {}
    evaluations: list[dict[str, Any]] = []
    curves = [pd.DataFrame(columns=list(CURVE.values()), dtype=float)]
    left_out: list[str] = []

    def leave_out(path: object, error: Exception, what: str = "") -> None:
        reason = shorten(str(error), 200, placeholder=" …").strip(".'") or type(error).__name__
        left_out.append(f"{path}: left out{what} ({reason}).")

    for place, below, names in os.walk(folder, onerror=lambda error: leave_out(folder, error)):
        below.sort()
        if "config.yaml" not in names:
            continue
        try:
            rows[place], settings[place] = read_run(Path(place))
        except UNREADABLE as error:
            leave_out(place, error, ", its config.yaml is not one of ours")
            continue
        below[:] = [name for name in below if name not in files.FOLDERS]  # what a run writes
        try:
            curves.append(read_curve(Path(place)))
        except UNREADABLE as error:
            leave_out(Path(place) / "metrics.csv", error)
        for path in sorted(Path(place).glob("evaluation_*.json")):
            try:
                evaluations.append({"run": place, **read_evaluation(path, rows[place])})
            except UNREADABLE as error:
                leave_out(path, error, ", it is not an evaluation of this run")
    if not rows:
        others = f" that can be read ({left_out[0]})" if left_out else ""
        raise BadInput(f"runs={folder} holds no run{others}; give a folder below which runs lie.")

    found = pd.DataFrame(evaluations, columns=["run", "policy", *WHOLE, *EVALUATION])
    found = found.astype(dict.fromkeys(WHOLE, "Int64") | {"return_mean": float})
    found = found.sort_values(["epoch", "episodes"], kind="stable").set_index("run")
    found = found.groupby(["run", "policy"]).tail(1)
    agent, random = (
        found[found.policy == policy].drop(columns="policy") for policy in ("agent", "random")
    )
    curve = pd.concat(curves)
    table = pd.DataFrame(list(rows.values()), index=list(rows)).join(agent)
    reached = pd.concat([curve.epoch, agent.epoch.astype(float)]).groupby(level=0).max()
    table["reached"] = reached.reindex(table.index).fillna(0).astype(int)
    table["human_normalized_score"] = [
        human_normalized_score(name, score) if name in RANDOM_AND_HUMAN else np.nan
        for name, score in zip(table["name"], table.return_mean, strict=True)
    ]
    curve = curve[np.isfinite(curve.score)]
    known = pd.DataFrame(list(settings.values()), index=list(settings)).fillna("absent")
    curve = curve.fillna({"low": curve.score, "high": curve.score})
    return Runs(table, random, curve, known), left_out


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a run's config.yaml: its columns of the table, and its settings."""
    config = files.read_config(folder)
    env = config.get("env")
    if not isinstance(env, dict):
        raise ValueError("it has no env")
    run: dict[str, Any] = {name: config.get(name) for name in ("experiment", "seed", "epochs")}
    run |= {"env_id": env.get("id"), "game": env.get("game")}
    check_kinds(run, {"experiment": str, "seed": int, "epochs": int, "env_id": str})
    settings = flat(config)
    parts = [settings.get(f"agent.{part}.kind") for part in ("tokenizer", "dynamics", "policy")]
    kind = " ".join(json.loads(part) for part in parts if part)
    is_plain = kind in ("", "delta delta cnn_lstm")
    environment = run["env_id"].rpartition(":")[2]
    run["method"] = run["experiment"] if is_plain else f"{run['experiment']}, {kind}"
    run |= {"environment": environment, "name": str(run["game"] or environment)}
    return run, {name: text for name, text in settings.items() if not is_of(NAMES, name)}


def check_kinds(given: dict[str, Any], kinds: dict[str, Any]) -> None:
    """Raise ValueError if a value is of another type, or missing."""
    for name, kind in kinds.items():
        if name not in given:
            raise ValueError(f"{name} is missing")
        if not isinstance(given[name], kind):
            raise ValueError(f"{name} is {reprlib.repr(given[name])}")


def flat(config: Any, prefix: str = "") -> dict[str, str]:
    """Dotted key -> value as text, of a nested configuration."""
    if not isinstance(config, dict):
        return {prefix.strip("."): json.dumps(config, ensure_ascii=False, default=str)}
    found: dict[str, str] = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.")
    return found


def is_of(groups: list[str], name: str) -> bool:
    """Whether a dotted setting is one of these, or below one."""
    return f"{name}.".startswith(tuple(f"{group}." for group in groups))


def read_curve(run: Path) -> pd.DataFrame:
    """Read metrics.csv: a row for each epoch, with a score where there was an evaluation."""
    rows = pd.DataFrame(read_metrics(run / "metrics.csv"), dtype=float)
    rows.index = [str(run)] * len(rows)
    return rows.reindex(columns=list(CURVE)).rename(columns=CURVE)


def read_evaluation(path: Path, run: dict[str, Any]) -> dict[str, Any]:
    """Read an evaluation's JSON file; raise ValueError if it is none of the run."""
    content = json.loads(path.read_text("utf-8"))
    kinds: dict[str, Any] = dict.fromkeys(("epoch", "steps", "num_envs", "seed"), int)
    kinds |= {"protocol": dict, "training_protocol": dict, "temperature": int | float | None}
    check_kinds(content, kinds)
    own = {"experiment": "experiment", "game": "game", "run_seed": "seed", "environment": "env_id"}
    for name, column in own.items():
        if content[name] != run[column]:
            given, its = reprlib.repr(content[name]), reprlib.repr(run[column])
            raise ValueError(f"{name} is {given}, the run's is {its}")
    if content["policy"] not in ("agent", "random"):
        raise ValueError(f"policy is {reprlib.repr(content['policy'])}")
    returns, lengths = (np.array(content[name], float) for name in ("returns", "lengths"))
    if not (len(returns) and np.isfinite(returns).all() and returns.shape == lengths.shape):
        raise ValueError("returns and lengths are not a finite number for each episode")
    row = {name: content[name] for name in ("policy", *kinds)}
    row |= {"evaluation_seed": content["seed"], "episodes": len(returns), "returns": returns}
    row |= {"return_mean": returns.mean(), "length_mean": lengths.mean()}
    if "crafter_score" in content:
        row["crafter_score"] = float(content["crafter_score"])
        row["success_rates"] = [
            float(content[f"success_rate/{name}"]) for name in CRAFTER_ACHIEVEMENTS
        ]
    return row


def protocols(runs: Runs, is_random: bool = True) -> pd.DataFrame:
    """What runs must share for their scores to be compared: a row for each evaluation, of text.

    Random actions are left out on demand; they have no temperature, which is NaN.
    """
    rows = [
        {f"{name} in evaluation": text for name, text in flat(row.protocol).items()}
        | {f"{name} in training": text for name, text in flat(row.training_protocol).items()}
        | {"run": folder}
        for of_policy in (runs.evaluated, runs.random)[: 1 + is_random]
        for folder, row in of_policy.iterrows()
    ]
    choices = pd.DataFrame(rows, columns=None if rows else ["run"]).fillna("absent")
    choices = choices.set_index("run")
    return choices.assign(temperature=runs.table.temperature.reindex(choices.index))


def differing(table: pd.DataFrame) -> list[str]:
    """The columns in which rows differ."""
    return [name for name in table if table[name].nunique() > 1]


def check_protocols(runs: Runs) -> None:
    """Check that the runs of a method in an environment have one protocol; Atari is one.

    Raises:
        BadInput: Two differ.
    """
    for _, group in runs.groups("method", "environment"):
        choices = protocols(group)
        for name in differing(choices):
            values = choices[name].dropna()
            other = values[values != values.iloc[0]]
            raise BadInput(
                f"Two protocols in one report: {name} is {values.iloc[0]} in {values.index[0]} and "
                f"{other.iloc[0]} in {other.index[0]}; report them apart, or give mixed=true."
            )


def one_per_seed(runs: Runs) -> tuple[Runs, list[str]]:
    """Keep of the runs of one method, game and seed, which are not independent, the furthest.

    Returns:
        Those that are kept, and a sentence for each other one.
    """
    by = ["method", "name", "seed"]
    order = ["epoch", "episodes", "reached"]
    best = runs.table.sort_values(order, ascending=False, kind="stable").drop_duplicates(by)
    counted = pd.Series(best.index, pd.MultiIndex.from_frame(best[by]))
    again = runs.table.drop(best.index)
    notes = [
        f"Left out: `{folder}`, {run['name']} with seed {run.seed} again "
        f"(`{counted[tuple(run[by])]}` is counted)."
        for folder, run in again.iterrows()
    ]
    return runs.only(runs.table.drop(again.index)), notes
