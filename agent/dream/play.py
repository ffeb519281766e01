"""The command that plays or shows: reality, a run's dream, or both under the same actions."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agent.config import TrainConfig
from agent.dream.window import PlayerWindow
from agent.media.films import FORMATS, write_video
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
from envs.keys import KeyMap, keys_of
from envs.make import make_rendered, make_single
from envs.settings import COUNT, SEED, WEIGHT, Range, check_values, setting
from envs.spaces import Spaces

if TYPE_CHECKING:
    from agent.dream.player import Choose

FILM_STEPS = 200
FPS = 15  # where the environment does not say how fast it is for people


@dataclass
class PlayConfig:
    """What is played, by whom, and where it is shown.

    Attributes:
        run: A run's folder (its newest checkpoint is taken) or a checkpoint's; null: a real
            environment by keyboard.
        env: The environment; with a run, changes of the run's, as in evaluation. env.id has to be
            given if the run's is "module:name", which imports that module.
        where: real, dream (from a real first frame on) or both, the same actions in each.
        by: keyboard or agent.
        wake_every: In both: steps after which the dream starts from reality again; null: never
            within an episode.
        steps: Actions, then it ends; null: in a window no end, in a film 200.
        seed: Of the environment, the agent's actions and the dream.
        temperature: By which logits are divided before an action is sampled, 0: the likeliest;
            null: as the run is evaluated.
        fps: Steps a second; null: as the environment is shown to people.
        video: A film .mp4 or .gif instead of a window.
        device: auto, cpu, cuda, …
    """

    run: str | None = None
    env: EnvConfig = field(default_factory=EnvConfig)
    where: str = setting("real", ("real", "dream", "both"))
    by: str = setting("keyboard", ("keyboard", "agent"))
    wake_every: int | None = setting(None, COUNT)
    steps: int | None = setting(None, COUNT)
    seed: int = setting(0, SEED)
    temperature: float | None = setting(None, WEIGHT)
    fps: int | None = setting(None, Range(1, 240, "1 to 240"))
    video: str | None = None
    device: str = "auto"

    def check(self) -> None:
        """Raises BadInput for values that are not accepted, alone or together."""
        check_values(self)
        if not self.run and (self.where, self.by) != ("real", "keyboard"):
            raise BadInput(
                f"where={self.where} by={self.by} needs a trained agent, and no run was given; "
                "give run=<a run's folder, or a checkpoint's>."
            )
        if self.wake_every is not None and self.where != "both":
            raise BadInput(f"wake_every={self.wake_every} was given; it is for where=both.")
        if self.video is None:
            return
        path = Path(self.video)
        if self.by == "keyboard":
            raise BadInput(f"video={path} was given with by=keyboard; give by=agent, or no video.")
        if path.suffix not in FORMATS:
            raise BadInput(f"video={path} was given; give a file that ends in .mp4 or .gif.")
        check_writable("video", path)


def play(config: PlayConfig, overrides: list[str]) -> None:
    """Check, play, and show in a window or write a film. Raises BadInput."""
    config.check()
    env_config, settings, spaces = config.env, TrainConfig().final_evaluation, None
    if config.run:
        saved = checkpoint.load(Path(config.run))
        trained = config_from_state(saved.state)
        env_config = changed_environment(trained.env, config.env, overrides)
        settings, spaces = trained.final_evaluation, spaces_from_state(saved.state)
    env_config = env_config.for_evaluation()
    temperature = settings.temperature if config.temperature is None else config.temperature
    with ExitStack() as stack:
        if config.video is None:
            window = PlayerWindow(f"{env_config.name}, {config.where}")
            stack.callback(window.close)
        make = make_rendered if config.where == "real" else make_single
        env = make(env_config, config.seed)
        stack.callback(env.close)
        if spaces is not None:
            check_spaces(spaces, Spaces.of(env), env_config.name)
        keys = keys_of(env) if config.by == "keyboard" else None
        fps = config.fps or env.metadata.get("render_fps") or FPS

        import torch  # takes seconds

        from agent.dream import player
        from agent.execution import pick_device
        from agent.runs.load import agent_of

        torch.manual_seed(config.seed)
        device = pick_device(config.device)
        agent = agent_of(saved, trained, device) if config.run else None
        stage = player.Stage(env, agent, config.where, config.wake_every)
        if keys is None:
            choose = player.by_agent(agent, temperature)
        else:
            choose = by_keyboard(window, keys, Spaces.of(env))
        if config.video:
            played = player.play(stage, choose, config.steps or FILM_STEPS)
            write_video(Path(config.video), played, fps)
            print(f"film: {config.video}")
            return
        for picture in player.play(stage, choose, config.steps):
            if not window.show(picture, fps):
                return


def by_keyboard(window: PlayerWindow, keys: KeyMap, spaces: Spaces) -> Choose:
    """Whoever sits before the window as a player; prints which keys are which action."""
    for held, meaning in [*keys.legend(), ("escape", "end")]:
        print(f"{held:<14}  {meaning}", flush=True)
    return lambda frame, begins: np.array(
        np.unravel_index(keys.action(window.keys), spaces.actions)
    )
