"""Play or watch: python scripts/play.py run=<a run's folder, or a checkpoint's> where=both by=agent.

Without a run, a real environment by keyboard: python scripts/play.py env.id=deltadream/Atari-v0 env.game=Pong.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import gymnasium
import numpy as np
import torch

from agent.agent import Agent
from agent.checks import check_values, check_writable, pick_device
from agent.cli import command
from agent.config import TrainConfig
from agent.films import FORMATS, write_video
from agent.play import Both, Choose, DreamAlone, Moment, Reality, Stage, by_agent, draw, play
from agent.progress import progress
from agent.saved import changed_environment, check_group, check_spaces, load_agent, named_environment
from agent.window import Window
from envs.errors import BadInput
from envs.keys import KeyMap, keys_of
from envs.spaces import Spaces
from envs.vector import EnvConfig, make_rendered, make_single

WHERE, BY = ("real", "dream", "both"), ("keyboard", "agent")
FILM_STEPS = 200
GIF_STEPS = 2000  # all its frames are in memory at once
FASTEST = 240
FPS = 15  # where the environment does not say how fast it is for people

Label = Callable[[np.ndarray], str]  # of an action


@dataclass
class PlayConfig:
    """run:      a run's folder (its newest checkpoint is taken) or a checkpoint's; null: a real environment by keyboard
    env:         which environment; with a run it is the run's, as in evaluation, and env.id only has to be given
                 where that is "module:name": it has this module imported
    where:       "real", "dream" (from the first frame of a real episode on) or "both", the same actions in each
    by:          "keyboard" or "agent"
    wake_every:  in both: the dream starts from reality again after so many steps; null: never within an episode
    steps:       actions, then it ends; null: in a window no end, in a film 200
    seed:        of the environment, the agent's actions and the dream
    temperature: by which the agent's logits are divided, 0: the likeliest action; null: as the run is evaluated
    fps:         steps a second; null: as the environment is shown to people
    video:       a film .mp4 or .gif instead of a window
    device:      "auto", "cpu", "cuda", …
    """

    run: str | None = None
    env: EnvConfig = field(default_factory=EnvConfig)
    where: str = "real"
    by: str = "keyboard"
    wake_every: int | None = None
    steps: int | None = None
    seed: int = 0
    temperature: float | None = None
    fps: int | None = None
    video: str | None = None
    device: str = "auto"


def main(config: PlayConfig, overrides: list[str]) -> None:
    check(config)
    agent, settings, env_config = None, TrainConfig().final_evaluation, config.env.for_evaluation()
    if config.run:
        agent, trained, _ = load_agent(config.run, pick_device(config.device), named_environment(overrides))
        check_environment(config.env, trained.env, overrides)
        settings, env_config = trained.final_evaluation, trained.env.for_evaluation()
    if config.temperature is not None:
        settings = replace(settings, temperature=config.temperature)

    torch.manual_seed(config.seed)
    env = (make_rendered if config.where == "real" else make_single)(env_config, config.seed)
    try:
        if agent is not None:
            check_spaces(agent.spaces, Spaces.of(env), env_config.name)
        stage, label = make_stage(config, env, agent), env.get_wrapper_attr("label")
        fps = config.fps or env.metadata.get("render_fps") or FPS
        if config.video:
            steps = config.steps or FILM_STEPS
            film(Path(config.video), play(stage, by_agent(agent, settings.selection()), steps), label, fps, steps)
            return
        keys = keys_of(env) if config.by == "keyboard" else None
        with Window(f"{env_config.name}, {config.where}") as window:
            choose = by_keyboard(window, keys, Spaces.of(env)) if keys else by_agent(agent, settings.selection())
            legend = [*keys.legend(), ("escape", "end")] if keys else []
            print_keys(legend)
            show(window, play(stage, choose, config.steps), label, fps, legend)
    finally:
        env.close()


def check(config: PlayConfig) -> None:
    """Raises BadInput for values that are not accepted, alone or together."""
    check_values(replace(config, env=None, steps=None), prefix="evaluation.")
    if config.steps is not None and config.steps < 1:
        raise BadInput(f"steps={config.steps} was given; give 1 or more.")
    for key, value, accepted in (("where", config.where, WHERE), ("by", config.by, BY)):
        if value not in accepted:
            raise BadInput(f"{key}={value} was given; choose one of {', '.join(accepted)}.")
    if not config.run and (config.where, config.by) != ("real", "keyboard"):
        raise BadInput(
            f"where={config.where} by={config.by} needs a trained agent, and no run was given; "
            "give run=<a run's folder, or a checkpoint's>."
        )
    if config.wake_every is not None and config.where != "both":
        raise BadInput(f"wake_every={config.wake_every} was given with where={config.where}; it is for where=both.")
    if config.fps is not None and config.fps > FASTEST:
        raise BadInput(f"fps={config.fps} was given; give 1 to {FASTEST}.")
    if config.video is None:
        return
    if config.by == "keyboard":
        raise BadInput(
            f"video={config.video} was given with by=keyboard, which needs a window; give by=agent, or no video=."
        )
    if Path(config.video).suffix not in FORMATS:
        raise BadInput(f"video={config.video} was given; give a file that ends in {' or '.join(FORMATS)}.")
    if Path(config.video).suffix == ".gif" and (config.steps or 0) > GIF_STEPS:
        raise BadInput(
            f"steps={config.steps} is too long for a GIF; give at most {GIF_STEPS}, or video=<a file .mp4>."
        )
    check_writable("video", Path(config.video))


def check_environment(given: EnvConfig, trained: EnvConfig, overrides: list[str]) -> None:
    """Raises BadInput if the command line names another environment than the run's."""
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key == "env" and not value.startswith("{"):
            check_group(trained, value, override)
        elif key.split(".")[0] == "env" and changed_environment(trained, given, [override]) != trained:
            raise BadInput(
                f"{override.lstrip('+')} was given, but the run is played in its own environment, {trained.name}; leave it out."
            )


def make_stage(config: PlayConfig, env: gymnasium.Env, agent: Agent | None) -> Stage:
    if agent is None or config.where == "real":
        return Reality(env)
    return DreamAlone(env, agent) if config.where == "dream" else Both(env, agent, config.wake_every)


def by_keyboard(window: Window, keys: KeyMap, spaces: Spaces) -> Choose:
    """Whoever sits before the window as a player."""
    return lambda frame, begins: np.array(np.unravel_index(keys.action(window.pressed()), spaces.actions))


def film(path: Path, moments: Iterator[Moment], label: Label, fps: float, steps: int) -> None:
    """Writes the moments as a film."""

    def pictures() -> Iterator[np.ndarray]:
        for moment in moments:
            bar.update(moment.action is not None)
            yield draw(moment, label)

    with progress("film", steps, "step") as bar:
        write_video(path, pictures(), fps)
    print(f"film: {path}")


def show(
    window: Window, moments: Iterator[Moment], label: Label, fps: float, keys: Sequence[tuple[str, str]] = ()
) -> None:
    """Shows the moments in a window until they end or a person leaves, and tells of every episode that is over."""
    for moment in moments:
        if not window.show(draw(moment, label, keys), fps):
            return
        if moment.view.over:
            sides = {"reality": moment.view.real, "dream": moment.view.dream}
            returns = ", ".join(f"{name} {side.total:+.2f}" for name, side in sides.items() if side is not None)
            print(f"episode {moment.episode} is over at step {moment.step}: return in {returns}", flush=True)


def print_keys(legend: Sequence[tuple[str, str]]) -> None:
    """The keys and what they do, one a line."""
    width = max((len(held) for held, _ in legend), default=0)
    for held, meaning in legend:
        print(f"{held:<{width}}  {meaning}", flush=True)


if __name__ == "__main__":
    command("play", PlayConfig, main)
