"""Try an environment before training in it: python scripts/check_env.py env=gym env.id=CartPole-v1 [experiment=…].

Some random steps tell how its spaces are read, what its rewards, episodes and speed mean for the experiment, and what
would go wrong; a picture shows its frames as the agent will see them.
"""

import textwrap
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from agent.checks import check_config, check_writable
from agent.cli import command
from agent.config import TrainConfig
from agent.preflight import contact_sheet, page, problems
from agent.run import spaces_of
from envs.errors import BadInput
from envs.preflight import try_out

WIDTH = 110


@dataclass
class CheckEnvConfig(TrainConfig):
    """trial: random steps to play, twice
    sheet: where to draw the frames, as PNG
    """

    trial: int = 100
    sheet: str = "check_env.png"


def main(config: CheckEnvConfig, overrides: list[str]) -> None:
    check_config(config)
    if config.trial < 1:
        raise BadInput(f"trial={config.trial} was given; give 1 or more.")
    path = Path(config.sheet)
    check_writable("sheet", path)
    if path.suffix != ".png":
        raise BadInput(f"sheet={path} was given; give a file that ends in .png.")
    spaces = spaces_of(config.env, config.seed)
    trial = try_out(config.env, config.seed, config.trial)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(contact_sheet(trial)).save(path)

    print(f"{config.env.name} for experiment={config.experiment}\n")
    for name, text in [*page(config, trial, spaces), ("picture", str(path))]:
        print(textwrap.fill(text, WIDTH, initial_indent=f"{name:<10}", subsequent_indent=" " * 10))
    found = problems(config, trial, spaces)
    print("\n" + ("Nothing stands against it." if not found else f"{len(found)} to look at:" if len(found) > 1 else "One thing to look at:"))
    for problem in found:
        print(textwrap.fill(problem, WIDTH, initial_indent="- ", subsequent_indent="  "))


if __name__ == "__main__":
    command("check_env", CheckEnvConfig, main)
