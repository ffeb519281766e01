"""Evaluate a saved policy: python scripts/evaluate.py run=<a run's folder, or a checkpoint's> episodes=100."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.checks import check_values, check_writable, pick_device
from agent.cli import command
from agent.evaluation import evaluate
from agent.files import check_leads_nowhere
from agent.previews import write_best_and_median
from agent.progress import progress
from agent.results import describe_evaluation, result_path, write_result
from agent.run import spaces_of
from agent.saved import changed_environment, check_spaces, load_agent, named_environment, steps_of
from envs.errors import BadInput
from envs.vector import EnvConfig


@dataclass
class EvaluateConfig:
    """run: a run's folder (its newest checkpoint is taken) or a checkpoint's
    episodes, num_envs, temperature, seed, parallel, max_steps: as in agent/evaluation.py (EvaluationConfig); null: as the run itself
             is evaluated in the end
    device:  "auto", "cpu", "cuda", …
    random:  play by uniformly random actions instead, the base line
    films:   film the best and the median episode, beside the output
    output:  where to write the results as JSON; null: into the run's folder
    env:     changes of the run's environment, or with env=<name> another one, where the agent's spaces are the same; env.id
             has to be given if it is "module:name": it has this module imported
    """

    run: str | None = None
    episodes: int | None = None
    num_envs: int | None = None
    temperature: float | None = None
    seed: int | None = None
    parallel: bool | None = None
    max_steps: int | None = None
    device: str = "auto"
    random: bool = False
    films: bool = True
    output: str | None = None
    env: EnvConfig = field(default_factory=EnvConfig)


def main(config: EvaluateConfig, overrides: list[str]) -> None:
    if not config.run:
        raise BadInput("No run was given; give run=<a run's folder, or a checkpoint's>.")
    check_values(replace(config, env=None), prefix="evaluation.")
    agent, trained, saved = load_agent(config.run, pick_device(config.device), named_environment(overrides))
    env = changed_environment(trained.env, config.env, overrides)
    if env != trained.env and not config.output:
        raise BadInput(
            "The run's folder holds evaluations in its own environment, and another was given; say where this one shall lie, "
            "as output=<file.json>."
        )
    trained = replace(trained, env=env)
    check_spaces(agent.spaces, spaces_of(env.for_evaluation(), 0), env.name)
    given = {name: getattr(config, name) for name in ("episodes", "num_envs", "temperature", "seed", "parallel", "max_steps")}
    settings = replace(trained.final_evaluation, **{name: value for name, value in given.items() if value is not None})
    steps = steps_of(saved)
    policy = "random" if config.random else "agent"
    output = Path(config.output) if config.output else result_path(saved.run, policy, saved.epoch, settings, saved.paused)
    if not config.output:
        check_leads_nowhere(output, saved.run)
    check_writable("output", output)

    with progress("evaluate", settings.episodes, "episode") as bar:
        result = evaluate(agent, trained.env, settings, bar.update, config.random)
    about = describe_evaluation(trained, settings, policy, saved.folder, saved.epoch, steps)
    print_table(about, result.summary())
    for remark in result.remarks():
        print(remark)
    write_result(output, about, result)
    print(f"written to {output}")
    if config.films:
        for film in write_best_and_median(output.with_suffix(""), trained.env, result):
            print(f"film: {film}")


def print_table(about: dict[str, Any], summary: dict[str, float]) -> None:
    """One line an entry that says something; the achievements' rates as a block of their own."""
    about = {name: value for name, value in about.items() if value not in (None, {})}
    scores = {name: value for name, value in summary.items() if "/" not in name}
    rates = {name.partition("/")[2]: value for name, value in summary.items() if "/" in name}
    width = max(map(len, (*about, *scores, *rates)))
    for name, value in about.items():
        print(f"{name:<{width}}  {value}")
    print()
    for name, value in scores.items():
        print(f"{name:<{width}}  {value:10.3f}")
    if rates:
        print(f"\n{'success rate':<{width}}   percent")
    for name, value in rates.items():
        print(f"{name:<{width}}  {value:8.1f}")


if __name__ == "__main__":
    command("evaluate", EvaluateConfig, main)
