"""The runs below a folder: found, read, checked and compared.

What lies there is data that anybody may have written: YAML and JSON are parsed, never run, and what
is not as our commands write it is left out, with one line that says why.
"""

from __future__ import annotations

import csv
import json
import math
import os
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from agent import files
from agent.logger import read_metrics
from envs.errors import BadInput
from envs.scores import CRAFTER_ACHIEVEMENTS

# What the command that evaluates writes, and of which type it is there.
FIELDS: dict[str, tuple[type, ...]] = {
    "experiment": (str,),
    "game": (str, type(None)),
    "run_seed": (int,),
    "checkpoint": (str,),
    "epoch": (int,),
    "epochs": (int,),
    "steps": (int,),
    "environment": (str,),
    "protocol": (dict,),
    "training_protocol": (dict,),
    "policy": (str,),
    "episodes": (int,),
    "num_envs": (int,),
    "seed": (int,),
    "temperature": (int, float, type(None)),
    "return_mean": (int, float),
    "returns": (list,),
    "lengths": (list,),
}

# Settings that name a run, or change nothing of what becomes of it.
NAMES = ("experiment", "run", "resume", "sweep", "seed", "checkpoint_every", "keep", "damaged", "logger", "env.id", "env.game")
# Settings of the machine, or that are compared as a run's protocol: these too may differ between seeds.
MACHINE = ("epochs", "env", "device", "precision", "learner", "replay.storage", "evaluation", "final_episodes", "evaluate_every")

# Bytes that are read: ours have some kilobytes, and a hundred for each episode.
MOST_CONFIG, MOST_EVALUATION = 2**18, 16 * 2**20


class Point(NamedTuple):
    """An evaluation during training, as the log has it.

    minutes:   that the run had taken to learn so far; not a number where the log does not tell; epoch, step: that it had come to
    low, high: of the mean return's 95 % interval; the mean itself where the log has none
    """

    minutes: float
    epoch: int
    step: int
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class SavedEvaluation:
    """An evaluation's JSON file.

    epoch, steps: of the training that came before; environment steps
    protocol, training_protocol: name -> value, the environment's choices in evaluation and in training
    returns:      of its episodes
    crafter_score, success_rates: in percent; None and {} where the environment is not Crafter
    """

    path: Path
    epoch: int
    steps: int
    episodes: int
    num_envs: int
    seed: int
    temperature: float | None
    protocol: dict[str, Any]
    training_protocol: dict[str, Any]
    returns: tuple[float, ...]
    length: float
    crafter_score: float | None
    success_rates: dict[str, float]

    @property
    def score(self) -> float:
        """Their mean."""
        return math.fsum(self.returns) / self.episodes

    def choices(self) -> dict[str, Any]:
        """What two runs must share for their scores to be compared."""
        return {
            **{f"{name} in evaluation": value for name, value in self.protocol.items()},
            **{f"{name} in training": value for name, value in self.training_protocol.items()},
        }


@dataclass
class Run:
    """A run's folder.

    environment: the id without the module that registers it
    game:        of Atari, else None
    epochs:      that it shall have
    reached:     that it has, as far as its log and its evaluation tell
    settings:    dotted key -> value of all but its `NAMES`
    points:      evaluations in training
    evaluation, random: of the agent and of random actions: the latest epoch's with the most episodes
    agent:       what it is made of, "" for Δ-IRIS
    """

    folder: Path
    env_id: str
    experiment: str
    game: str | None
    seed: int
    epochs: int
    settings: dict[str, Any]
    points: list[Point] = field(default_factory=list)
    reached: int = 0
    evaluation: SavedEvaluation | None = None
    random: SavedEvaluation | None = None
    agent: str = ""

    @property
    def series(self) -> str:
        """What its seeds share: the experiment, and the agent where it is not Δ-IRIS."""
        return f"{self.experiment}, {self.agent}" if self.agent else self.experiment

    def curve(self, against: Literal["step", "minutes"]) -> list[tuple[float, float, float]]:
        """(epoch, what the run had come to then, score). The last epochs learn without playing: of several evaluations at the
        same step the last one counts."""
        return list({(place := getattr(point, against)): (point.epoch, place, point.score) for point in self.points}.values())

    @property
    def timed(self) -> bool:
        """Whether the log tells the time of all evaluations."""
        return all(math.isfinite(point.minutes) for point in self.points)

    @property
    def environment(self) -> str:
        return self.env_id.rpartition(":")[2]

    @property
    def name(self) -> str:
        """What is played."""
        return self.game or self.environment


def find_runs(folder: Path) -> tuple[list[Run], list[str]]:
    """The runs below `folder` in the order of their paths, and a line for each file and folder that was left out.

    A run is a folder with a config.yaml; others may lie in it, but not in what it writes. Raises BadInput if there is none.
    """
    if not folder.is_dir():
        raise BadInput(f"runs={folder} is not a folder; give runs=<a folder below which runs lie>.")
    runs: list[Run] = []
    left_out: list[str] = []

    def note(error: OSError) -> None:
        left_out.append(f"{error.filename}: left out ({error.strerror}).")

    for place, below, names in os.walk(folder, onerror=note):
        below.sort()
        if "config.yaml" not in names:
            continue
        try:
            run = read_config(Path(place))
        except (OSError, ValueError, LookupError, yaml.YAMLError, RecursionError) as error:
            left_out.append(f"{place}: left out, its config.yaml is not one of ours ({reason(error)}).")
            continue
        below[:] = [name for name in below if name not in files.FOLDERS]
        left_out += read_results(run)
        runs.append(run)
    if not runs:
        others = f" that can be read ({left_out[0]})" if left_out else ""
        raise BadInput(f"runs={folder} holds no run{others}; give a folder below which runs lie, with their config.yaml.")
    return runs, left_out


def reason(error: Exception) -> str:
    """An error in one line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


class PlainLoader(yaml.SafeLoader):
    """YAML without tags of Python's and without aliases, by which a short file may stand for a huge one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it refers to a part of itself")
        return super().compose_node(parent, index)


def read_config(folder: Path) -> Run:
    """The run as its config.yaml describes it. Raises ValueError and what reading and parsing raise."""
    text = files.read(folder / "config.yaml", folder, MOST_CONFIG).decode("utf-8")
    if "${" in text:
        raise ValueError("it holds ${…}, which stands for something else")
    config = yaml.load(text, PlainLoader)
    env = config.get("env") if isinstance(config, dict) else None
    if not isinstance(env, dict):
        raise ValueError("it has no env")
    for name, holder, types in (
        ("experiment", config, str), ("seed", config, int), ("epochs", config, int), ("id", env, str),
        ("game", env, (str, type(None))),
    ):  # fmt: skip
        value = holder.get(name)
        if not isinstance(value, types) or isinstance(value, bool):
            raise ValueError(f"{name} is {reprlib.repr(value)}")
    # Ours have some two hundred.
    settings = dict(islice(flat(config), 10_000))
    return Run(
        folder=folder,
        env_id=env["id"],
        experiment=config["experiment"],
        agent=agent_of(settings),
        game=env.get("game"),
        seed=config["seed"],
        epochs=config["epochs"],
        settings={name: value for name, value in settings.items() if not is_of(NAMES, name)},
    )


def is_of(groups: tuple[str, ...], name: str) -> bool:
    """Whether a dotted setting is one of these, or below one."""
    return name.startswith(tuple(f"{group}." for group in groups))


def agent_of(settings: dict[str, Any]) -> str:
    """What a run's agent is made of, "" for Δ-IRIS."""
    world, policy = (settings.get(f"agent.{part}.kind.") for part in ("tokenizer", "policy"))
    return "" if (world, policy) in ((None, None), ("delta", "cnn_lstm")) else f"{world} world, {policy} policy"


def flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A nested configuration's ("dotted.key.", value)."""
    if not isinstance(config, dict):
        yield prefix, config
        return
    for name, value in config.items():
        yield from flat(value, f"{prefix}{name}.")


def read_results(run: Run) -> list[str]:
    """Fills in what the run's folder holds besides its configuration; a line for each file that was left out."""
    left_out = []
    try:
        rows = read_metrics(run.folder / "metrics.csv")
    except (OSError, ValueError, csv.Error) as error:
        left_out.append(f"{run.folder / 'metrics.csv'}: left out ({reason(error)}).")
        rows = []
    for row in rows:
        score = row.get("evaluate/return_mean", math.nan)
        if math.isfinite(score):
            bounds = (row.get(f"evaluate/return_95_{bound}", score) for bound in ("low", "high"))
            run.points.append(Point(row.get("minutes", math.nan), row["epoch"], row["step"], score, *bounds))
    found: dict[str, list[SavedEvaluation]] = {"agent": [], "random": []}
    for policy, evaluations in found.items():
        for path in sorted(run.folder.glob(f"evaluation_{policy}_*.json")):
            try:
                evaluations.append(read_evaluation(path, run, policy))
            except (OSError, ValueError, OverflowError, RecursionError) as error:
                left_out.append(f"{path}: left out, it is not an evaluation of this run ({reason(error)}).")
    latest = {policy: max(all_, key=lambda e: (e.epoch, e.episodes), default=None) for policy, all_ in found.items()}
    run.evaluation, run.random = latest["agent"], latest["random"]
    run.reached = max([row["epoch"] for row in rows] + [e.epoch for e in found["agent"]], default=0)
    return left_out


def read_evaluation(path: Path, run: Run, policy: str) -> SavedEvaluation:
    """The evaluation in a JSON file. Raises OSError, ValueError: it is no evaluation of the `run` by the `policy`."""

    def refuse(constant: str) -> None:
        raise ValueError(f"it holds {constant}, which is no JSON")

    content = json.loads(files.read(path, run.folder, MOST_EVALUATION).decode("utf-8"), parse_constant=refuse)
    check_evaluation(content, run, policy)
    is_crafter = "crafter_score" in content
    return SavedEvaluation(
        path=path,
        epoch=content["epoch"],
        steps=content["steps"],
        episodes=content["episodes"],
        num_envs=content["num_envs"],
        seed=content["seed"],
        temperature=content["temperature"],
        protocol=content["protocol"],
        training_protocol=content["training_protocol"],
        returns=tuple(content["returns"]),
        length=math.fsum(content["lengths"]) / content["episodes"],
        crafter_score=content["crafter_score"] if is_crafter else None,
        success_rates={name: content[f"success_rate/{name}"] for name in CRAFTER_ACHIEVEMENTS} if is_crafter else {},
    )


def check_evaluation(content: Any, run: Run, policy: str) -> None:
    """Raises ValueError if a JSON file's content is not an evaluation of the run by the policy."""
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    for name, types in FIELDS.items():
        if name not in content:
            raise ValueError(f"{name} is missing")
        # To Python true is a whole number.
        if not isinstance(content[name], types) or isinstance(content[name], bool):
            raise ValueError(f"{name} is {reprlib.repr(content[name])}")
    own = {"experiment": run.experiment, "game": run.game, "run_seed": run.seed, "environment": run.env_id}
    for name, value in {**own, "policy": policy}.items():
        if content[name] != value:
            raise ValueError(f"{name} is {reprlib.repr(content[name])}, the run's is {reprlib.repr(value)}")
    returns, lengths, episodes = content["returns"], content["lengths"], content["episodes"]
    if not 1 <= episodes == len(returns) == len(lengths):
        raise ValueError(f"{episodes} episodes, {len(returns)} returns and {len(lengths)} lengths")
    numbers = {"returns": returns, "lengths": lengths, "return_mean": [content["return_mean"]]}
    if "crafter_score" in content:
        names = ["crafter_score", *(f"success_rate/{name}" for name in CRAFTER_ACHIEVEMENTS)]
        numbers |= {name: [content.get(name)] for name in names}
    for name, values in numbers.items():
        for number in values:
            if not isinstance(number, int | float) or isinstance(number, bool) or not math.isfinite(number):
                raise ValueError(f"{reprlib.repr(number)} stands in {name} where a finite number is accepted")
    mean = math.fsum(returns) / episodes
    if not math.isclose(mean, content["return_mean"], rel_tol=1e-6, abs_tol=1e-6):
        raise ValueError(f"return_mean is {content['return_mean']}, the mean of the returns {mean}")


def differing_choices(runs: list[Run]) -> Iterator[tuple[str, str, str]]:
    """(choice, its value and a run, another value and run) in what must be alike for scores to be compared.

    Random actions have no temperature.
    """
    rules = [(run, saved.choices()) for run in runs for saved in (run.evaluation, run.random) if saved]
    temperatures = [(run, {"temperature": run.evaluation.temperature}) for run in runs if run.evaluation]
    for rows in (rules, temperatures):
        for run, choices in rows[1:]:
            other, theirs = rows[0]
            for name in dict.fromkeys([*theirs, *choices]):
                if (name in theirs, theirs.get(name)) != (name in choices, choices.get(name)):
                    yield name, f"{shown(theirs, name)} in {other.folder}", f"{shown(choices, name)} in {run.folder}"


def check_protocols(runs: list[Run]) -> None:
    """Raises BadInput if two runs of an experiment in one environment were evaluated or trained by different rules.

    All games of Atari are one environment.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.series, run.environment), []).append(run)
    for group in groups.values():
        for name, one, other in differing_choices(group):
            raise BadInput(
                f"Two protocols in one report: {name} is {one} and {other}; report them apart, or give mixed=true."
            )


def shown(choices: dict[str, Any], name: str) -> str:
    """A choice as it is printed."""
    return json.dumps(choices[name], ensure_ascii=False, default=str) if name in choices else "absent"


def settings_that_differ(runs: list[Run]) -> list[str]:
    """Names of the settings in which runs differ: averaged they would not be seeds of one thing."""
    names = dict.fromkeys(name for run in runs for name in run.settings if not is_of(MACHINE, name))
    first = runs[0].settings
    return [name.strip(".") for name in names if any(run.settings.get(name) != first.get(name) for run in runs)]
