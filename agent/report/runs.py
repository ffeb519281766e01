"""The runs below a folder, read into tables.

A run is a folder with a config.yaml that names experiment, seed, epochs and env.id. Beside it lie
metrics.csv (epoch, step, minutes, evaluate/return_mean) and evaluation_*.json (policy, epoch,
steps, returns). Whatever writes these three files is in the report, a baseline of another library
too.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agent.storage import files
from envs.errors import BadInput
from envs.scores import CRAFTER_ACHIEVEMENTS, RANDOM_AND_HUMAN

# Settings that name a run, or that decide how it is run and not what is learned.
ASIDE = """
    experiment run resume sweep seed epochs checkpoint_every keep damaged logger device precision
    learner replay.storage evaluation final_episodes evaluate_every env.id env.game env.parallel
    env.timeout env.on_error env.max_restarts
""".split()  # noqa: SIM905 (one a line is long)
# Column of metrics.csv -> of `Runs.curves`.
CURVE = {"epoch": "epoch", "step": "steps", "minutes": "minutes", "evaluate/return_mean": "score"}
# Columns of `Runs.table` that an evaluation fills.
EVALUATION = """
    epoch steps episodes score return_95_low return_95_high crafter_score success_rates
""".split()  # noqa: SIM905 (one a line is long)


@dataclass
class Runs:
    """All that a report reads.

    Attributes:
        table: A row for each run, indexed by its folder. method: the experiment, with the agent
            where it is not Δ-IRIS, and with the settings in which it differs from most runs of it;
            environment: its id without the module; name: Atari's game, or the environment;
            reached: epochs so far; EVALUATION of the newest evaluation, whose mean return is the
            score; NaN where there is none.
        random: A row for each evaluation of random actions: name and EVALUATION.
        curves: A row for each evaluation during training: run, epoch, steps, minutes, score.
        left_out: A sentence for each run that is not in the tables.
    """

    table: pd.DataFrame
    random: pd.DataFrame
    curves: pd.DataFrame
    left_out: list[str]

    @property
    def evaluated(self) -> pd.DataFrame:
        """The rows of the runs that have an evaluation, in the order of what they play."""
        return self.table.dropna(subset="score").sort_values("name", kind="stable")

    @property
    def is_atari(self) -> bool:
        """Whether one of the games of Atari 100k is played."""
        return bool(self.table["name"].isin(list(RANDOM_AND_HUMAN)).any())

    @property
    def is_crafter(self) -> bool:
        """Whether there are scores of Crafter."""
        return bool(self.table.crafter_score.notna().any())

    def only(self, table: pd.DataFrame) -> "Runs":
        """These rows of the table, and what belongs to them."""
        random = self.random[self.random["name"].isin(table["name"])]
        return Runs(table, random, self.curves[self.curves.index.isin(table.index)], self.left_out)


def find_runs(folder: Path, minutes: float | None = None) -> Runs:
    """Read the runs below a folder, at any depth.

    Args:
        folder: Where they lie.
        minutes: Count each run by its last evaluation in training within so many minutes.

    Raises:
        BadInput: There is no run.
    """
    rows, random, curves, settings, left_out = [], [], [], [], []
    for path in sorted(folder.rglob("config.yaml")):
        run = path.parent
        if set(files.FOLDERS) & set(path.relative_to(folder).parts):
            continue  # what a run keeps
        try:
            config, curve = files.read_config(run), read_curve(run)
            row = {"run": str(run)} | read_run(config) | newest_evaluation(run, "agent")
            other = {"name": row["name"]} | newest_evaluation(run, "random")
        except Exception as error:  # whatever a foreign or damaged file leads to
            reason = " ".join(str(error).split())[:200]
            left_out.append(f"`{run}`: left out ({type(error).__name__}: {reason}).")
            continue
        rows.append(row | {"reached": int(np.nanmax([0, *curve.epoch, row["epoch"]]))})
        random.append(other)
        curves.append(curve.dropna(subset="score"))
        settings.append(pd.json_normalize(config).iloc[0].map(str))
    if not rows:
        raise BadInput(" ".join([f"runs={folder} holds no run.", *left_out[:1]]))
    table, curve = pd.DataFrame(rows).set_index("run"), pd.concat(curves)
    if minutes:
        curve = curve[curve.minutes <= minutes]
        table[EVALUATION] = curve.groupby(level=0).last().reindex(table.index, columns=EVALUATION)
    name_what_differs(table, pd.DataFrame(settings, index=table.index))
    furthest = table.sort_values(["reached", "epoch"], ascending=False, kind="stable")
    again = furthest.index[furthest.duplicated(["method", "name", "seed"])]
    left_out += [f"`{run}`: left out, another run of its seed came further." for run in again]
    others = pd.DataFrame(random).dropna(subset="score")
    others = others.drop_duplicates(["name", "score"])  # of the same seed: the same episodes
    return Runs(table, others, curve, left_out).only(table.drop(again))


def read_run(config: dict[str, Any]) -> dict[str, Any]:
    """The columns of the table that a configuration decides."""
    environment = config["env"]["id"].rpartition(":")[2]
    parts = [config.get("agent", {}).get(part, {}) for part in ("tokenizer", "dynamics", "policy")]
    kinds = " ".join(part["kind"] for part in parts if "kind" in part)
    is_delta_iris = kinds in ("", "delta delta cnn_lstm")
    return {
        "method": str(config["experiment"]) + ("" if is_delta_iris else f", {kinds}"),
        "seed": int(config["seed"]),
        "epochs": int(config["epochs"]),
        "env_id": config["env"]["id"],
        "environment": environment,
        "name": config["env"].get("game") or environment,
    }


def read_curve(run: Path) -> pd.DataFrame:
    """A row for each epoch of metrics.csv, indexed by the run; no file is no rows."""
    path = run / "metrics.csv"
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(CURVE))
    rows = rows.reindex(columns=list(CURVE)).rename(columns=CURVE).astype(float)
    return rows.set_index(pd.Index([str(run)] * len(rows), name="run"))


def newest_evaluation(run: Path, policy: str) -> dict[str, Any]:
    """A policy's newest evaluation, of these the one of most episodes: EVALUATION -> its value."""
    found = [json.loads(path.read_text()) for path in sorted(run.glob("evaluation_*.json"))]
    found = [content for content in found if content["policy"] == policy]
    row: dict[str, Any] = dict.fromkeys(EVALUATION, np.nan)
    if not found:
        return row
    newest = max(found, key=lambda content: (content["epoch"], len(content["returns"])))
    row |= {name: newest[name] for name in EVALUATION if name in newest}
    row |= {"score": float(np.mean(newest["returns"])), "episodes": len(newest["returns"])}
    if "crafter_score" in newest:
        rates = [newest[f"success_rate/{name}"] for name in CRAFTER_ACHIEVEMENTS]
        row["success_rates"] = np.array(rates, float)
    return row


def name_what_differs(table: pd.DataFrame, settings: pd.DataFrame) -> None:
    """Add to a run's method the settings in which it differs from most runs of that method."""
    aside = tuple(f"{group}." for group in ASIDE)
    settings = settings[[key for key in settings if not f"{key}.".startswith(aside)]]
    for _, own in settings.groupby([table.environment, table.method]):
        for key, values in own.items():
            usual = [*values.mode(), None][0]
            for run, value in values[values.notna() & (values != usual)].items():
                table.loc[run, "method"] += f" {key}={value}"
