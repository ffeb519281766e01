"""The command that evaluates a saved policy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.runs.checks import check_writable
from agent.runs.resume import (
    changed_environment,
    check_spaces,
    config_from_state,
    spaces_from_state,
)
from agent.storage import checkpoint
from envs.config import EnvConfig
from envs.errors import BadInput
from envs.make import spaces_of
from envs.settings import COUNT, ENVIRONMENTS, SEED, WEIGHT, check_values, setting

CHANGES = ("episodes", "num_envs", "temperature", "seed", "parallel", "max_steps")


@dataclass
class EvaluateConfig:
    """An evaluation.

    Attributes:
        run: A run's folder (its newest checkpoint is taken), or a checkpoint's.
        episodes: How many; null, here and in the five below: as the run is evaluated at its end.
        num_envs: Played at once, by one call of the policy.
        temperature: By which logits are divided before an action is sampled; 0: the likeliest.
        seed: Of the environments and of the sampled actions.
        parallel: A process for each environment.
        max_steps: Of an episode, which is cut there.
        device: auto, cpu, cuda, …
        random: Play by uniformly random actions instead.
        films: Film the best and the median episode, beside the output.
        output: Where to write the results as JSON; null: into the run's folder.
        env: Changes of the run's environment, or with env=<name> another one with the same
            spaces; env.id has to be given if it is "module:name", which imports that module.
    """

    run: str | None = None
    episodes: int | None = setting(None, COUNT)
    num_envs: int | None = setting(None, ENVIRONMENTS)
    temperature: float | None = setting(None, WEIGHT)
    seed: int | None = setting(None, SEED)
    parallel: bool | None = None
    max_steps: int | None = setting(None, COUNT)
    device: str = "auto"
    random: bool = False
    films: bool = True
    output: str | None = None
    env: EnvConfig = field(default_factory=EnvConfig)


def evaluate_run(config: EvaluateConfig, overrides: list[str]) -> None:
    """Check, play, write and print. Raises BadInput."""
    if not config.run:
        raise BadInput("No run was given; give run=<a run's folder, or a checkpoint's>.")
    check_values(config)
    saved = checkpoint.load(Path(config.run))
    trained = config_from_state(saved.state)
    env = changed_environment(trained.env, config.env, overrides)
    if env != trained.env and not config.output:
        raise BadInput(
            "The run's folder holds evaluations in its own environment, and another was given; say "
            "where this one shall lie, as output=<file.json>."
        )
    trained = replace(trained, env=env)
    check_spaces(spaces_from_state(saved.state), spaces_of(env.for_evaluation(), 0), env.name)
    given = {name: getattr(config, name) for name in CHANGES if getattr(config, name) is not None}
    settings = replace(trained.final_evaluation, **given)
    check_writable("output", Path(config.output or saved.run / "evaluation.json"))

    from agent.evaluation.evaluate import evaluate  # here: torch takes seconds to import
    from agent.execution import pick_device
    from agent.media.previews import write_best_and_median
    from agent.runs.load import agent_of
    from agent.runs.results import describe_evaluation, result_path, write_result
    from agent.training.progress import progress

    policy = "random" if config.random else "agent"
    own = result_path(saved.run, policy, saved.epoch, settings, saved.paused)
    output = Path(config.output) if config.output else own
    agent = agent_of(saved, trained, pick_device(config.device))
    with progress("evaluate", settings.episodes, "episode") as bar:
        result = evaluate(agent, trained.env, settings, bar.update, config.random)
    steps = saved.state["replay"]["steps_added"]
    about = describe_evaluation(trained, settings, policy, saved.folder, saved.epoch, steps)
    write_result(output, about, result)
    print_table(about, result.summary())
    for remark in result.remarks():
        print(remark)
    print(f"written to {output}")
    if config.films:
        for film in write_best_and_median(output.with_suffix(""), trained.env, result):
            print(f"film: {film}")


def print_table(about: dict[str, Any], summary: dict[str, float]) -> None:
    """Print a line for each entry that has a value, and the achievements' rates as a block."""

    about = {name: value for name, value in about.items() if value not in (None, {})}
    scores = {name: value for name, value in summary.items() if "/" not in name}
    rates = {name.partition("/")[2]: value for name, value in summary.items() if "/" in name}
    width = max(map(len, (*about, *scores, *rates)))
    for name, value in about.items():
        print(f"{name:<{width}}  {value}")
    print()
    for name, value in scores.items():
        print(f"{name:<{width}}  {value:>10.5g}")
    if rates:
        print(f"\n{'success rate':<{width}}   percent")
    for name, value in rates.items():
        print(f"{name:<{width}}  {value:8.1f}")
