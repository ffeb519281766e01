"""The command that tries an environment before training in it."""

from __future__ import annotations

import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from agent.config import TrainConfig
from agent.runs.checks import check_writable
from envs.settings import COUNT, setting
from envs.trial import try_out


@dataclass
class CheckEnvConfig(TrainConfig):
    """A trial of an environment for an experiment.

    Attributes:
        trial: Random steps to play, twice.
        sheet: Where to draw the frames, as PNG.
    """

    trial: int = setting(100, COUNT)
    sheet: str = "check_env.png"

    def check(self) -> None:
        """As `TrainConfig.check`; also that the picture can be written."""
        super().check()
        check_writable("sheet", Path(self.sheet))


def check_env(config: CheckEnvConfig, overrides: list[str]) -> None:
    """Play random steps, print what they tell, and draw frames as the agent will see them."""
    config.check()
    trial = try_out(config.env, config.seed, config.trial)
    from agent.runs.preflight import contact_sheet, page, problems  # torch takes seconds to import

    path = Path(config.sheet)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(contact_sheet(trial)).save(path, format="PNG")
    print(f"{config.env.name} for experiment={config.experiment}\n")
    for name, text in page(config, trial).items():
        print(textwrap.fill(text, 110, initial_indent=f"{name:<10}", subsequent_indent=" " * 10))
    given = [o for o in overrides if not o.startswith(("trial=", "sheet="))]
    print(f"picture   {path}\n\ncommand: python scripts/train.py {shlex.join(given)}")
    found = problems(config, trial)
    print("\nTo look at:" if found else "\nNothing stands against it.")
    for problem in found:
        print(textwrap.fill(problem, 110, initial_indent="- ", subsequent_indent="  "))
