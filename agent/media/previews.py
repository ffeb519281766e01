"""What the agent sees, decodes and dreams, as pictures of an episode that it played."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agent.agent import Agent
from agent.evaluation.evaluate import Evaluation, Played
from agent.imagination import dream
from agent.media.films import write_video
from agent.media.pictures import Panel, scene, shown, strip, to_rgb
from agent.segment import Segment
from envs.config import EnvConfig
from envs.errors import describe
from envs.make import make_rendered

COLUMNS = 12
DREAM_STEPS = 100
EPISODE_STEPS = 1000


def to_pictures(frames: Tensor) -> np.ndarray:
    """[T, C, H, W] uint8 -> [T, H, W, 3] uint8."""
    return to_rgb(frames.cpu().permute(0, 2, 3, 1).numpy())


def stretch(recording: Segment, steps: int) -> Segment:
    """At most `steps` consecutive steps from the episode's middle."""
    first = max(0, (len(recording.frames) - steps) // 2)
    return recording[first : first + steps]


@torch.no_grad()
def dreamt(agent: Agent, recording: Segment, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """A dream of at most so many steps under the actions of an episode [T], after the burn-in.

    Returns:
        Real frames [burn-in + steps, C, H, W]; imagined ones [steps, C, H, W] and their tokens.
    """
    burn_in = min(agent.config.actor_critic.burn_in, len(recording.frames) - 1)
    real = stretch(recording, burn_in + steps).to(agent.device)
    frames, tokens = dream(agent.world, real.unsqueeze(0), burn_in)
    return real.frames, frames[0], tokens[0]


@torch.no_grad()
def pictures(agent: Agent, recording: Segment) -> dict[str, np.ndarray]:
    """ "reconstruction" and "dream", each with reality above: name -> [h, w, 3] uint8.

    recording: an episode [T]
    """
    seen = stretch(recording, COLUMNS + 1).to(agent.device)
    decoded = agent.tokenizer.reconstruction(seen.unsqueeze(0))[0]
    real, imagined, _ = dreamt(agent, recording, COLUMNS)
    return {
        "reconstruction": strip(
            [to_pictures(seen.frames[1:]), to_pictures(decoded)], ["real", "decoded"]
        ),
        "dream": strip(
            [to_pictures(real[-len(imagined) :]), to_pictures(imagined)], ["real", "dreamt"]
        ),
    }


def write_episode(path: Path, recording: Segment) -> None:
    """A film of the episode, its first frames if it is long."""
    write_video(path, to_pictures(recording.frames[:EPISODE_STEPS]))


def write_dream(paths: list[Path], agent: Agent, recording: Segment) -> None:
    """A film of reality and the dream from the same frames under the same actions beside it."""
    real, imagined, tokens = dreamt(agent, recording, DREAM_STEPS)
    burn_in = len(real) - len(imagined)
    dreams = to_pictures(torch.cat([real[:burn_in], imagined]))
    none = torch.full((burn_in, tokens.shape[-1]), -1)
    steps = zip(to_pictures(real), dreams, torch.cat([none, tokens.cpu()]).numpy(), strict=True)
    film = []
    for t, (frame, imagined_frame, codes) in enumerate(steps):
        panels = [Panel(frame, "reality"), Panel(imagined_frame, "dream", tokens=codes)]
        film.append(scene(panels, f"step {t}", scale=4))
    for path in paths:
        write_video(path, film)


def write_best_and_median(stem: Path, env: EnvConfig, result: Evaluation) -> list[Path]:
    """Replay an evaluation's best and median episodes into <stem>_best.mp4 and <stem>_median.mp4.

    Returns:
        The films that were written.
    """
    order = np.argsort(result.returns, kind="stable")
    films = []
    for name, index in (("best", order[-1]), ("median", order[(len(order) - 1) // 2])):
        film = stem.with_name(f"{stem.name}_{name}.mp4")
        try:
            again = watch(film, env.for_evaluation(), result.played[index])
        except (Exception, SystemExit) as error:  # a film is optional
            print(f"{film} was not made: {describe(error)}.", file=sys.stderr)
            continue
        # Sums of 0.1 differ in how they are rounded.
        if math.isclose(again, result.returns[index], rel_tol=1e-6, abs_tol=1e-6):
            films.append(film)
        else:  # an environment that its seed does not decide
            film.unlink()
    return films


def watch(path: Path, env: EnvConfig, played: Played) -> float:
    """Replay an episode and film it, rendered or else as the agent saw it. Returns its return."""
    rewards: list[float] = []

    def frames(game) -> Iterator[np.ndarray]:
        for observation, reward, _ in game.go_to(played.position):
            # Not an earlier episode of the same game, which a lost life ended.
            if game.episode == played.position[1]:
                rewards.append(reward)
                yield shown(game, observation)

    with closing(make_rendered(env, played.seed)) as game:
        write_video(path, frames(game))
    return float(sum(rewards))
