"""What the agent sees, remembers and dreams, as pictures of an episode that it played."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agent.agent import Agent
from agent.evaluation.evaluate import Evaluation, Played
from agent.imagination import dream
from agent.media.films import write_video
from agent.media.pictures import fitted, shown, side_by_side, strip, to_rgb
from agent.segment import Segment
from envs.config import EnvConfig
from envs.failures import describe
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
def pictures(agent: Agent, recording: Segment) -> dict[str, np.ndarray]:
    """ "reconstruction" and "dream", each with reality above: name -> [h, w, 3] uint8.

    recording: an episode [T]
    """
    recording = recording.to(agent.device)
    shown = stretch(recording, COLUMNS + 1)
    real = to_pictures(shown.frames[1:])
    burn_in = min(agent.config.actor_critic.burn_in, len(recording.frames) - 1)
    dreamt_from = stretch(recording, COLUMNS + burn_in)
    dreamt, _ = dream(agent.world, dreamt_from.unsqueeze(0), burn_in)
    return {
        "reconstruction": strip(
            [real, to_pictures(agent.tokenizer.reconstruction(shown.unsqueeze(0))[0])],
            ["real", "decoded"],
        ),
        "dream": strip(
            [to_pictures(dreamt_from.frames[burn_in:]), to_pictures(dreamt[0])], ["real", "dreamt"]
        ),
    }


def write_episode(path: Path, recording: Segment) -> None:
    """A film of the episode, its first frames if it is long."""
    write_video(path, to_pictures(recording.frames[:EPISODE_STEPS]))


def write_best_and_median(stem: Path, env: EnvConfig, result: Evaluation) -> list[Path]:
    """Replay an evaluation's best and median episodes into <stem>_best.mp4 and <stem>_median.mp4.

    Args:
        env: As in training.

    Returns:
        The films that were written.
    """
    order = np.argsort(result.returns, kind="stable")
    films = []
    for name, index in (("best", order[-1]), ("median", order[(len(order) - 1) // 2])):
        film = stem.with_name(f"{stem.name}_{name}.mp4")
        try:
            again = watch(film, env.for_evaluation(), result.played[index])
        except (Exception, SystemExit) as error:  # of a stranger's environment, of ffmpeg
            print(f"{film} was not made: {describe(error)}.", file=sys.stderr)
            continue
        if math.isclose(
            again, result.returns[index], rel_tol=1e-6, abs_tol=1e-6
        ):  # sums of 0.1 differ in how they are rounded
            films.append(film)
        else:  # an environment that its seed does not decide
            film.unlink()
    return films


def watch(path: Path, env: EnvConfig, played: Played) -> float:
    """Replay an episode and film it, rendered or else as the agent saw it. Returns its return."""
    rewards: list[float] = []
    size: list[int] = []
    game = make_rendered(env, played.seed)

    def frames() -> Iterator[np.ndarray]:
        for observation, reward, _ in game.go_to(played.position):
            if (
                game.episode < played.position[1]
            ):  # an earlier one of the same game, which a lost life ended
                continue
            rewards.append(reward)
            picture = shown(game, observation)
            size.extend(picture.shape[: 2 - len(size)])  # the first one's
            yield fitted(picture, *size)

    write_video(path, frames())
    game.close()
    return float(sum(rewards))


def write_dream(paths: list[Path], agent: Agent, recording: Segment) -> None:
    """A film of reality above and the dream from the same frames under the same actions below."""
    recording = stretch(recording, DREAM_STEPS).to(agent.device)
    burn_in = min(agent.config.actor_critic.burn_in, len(recording.frames) - 1)
    dreamt, tokens = dream(agent.world, recording.unsqueeze(0), burn_in)
    none = torch.full((burn_in, tokens.shape[-1]), -1)
    film = side_by_side(
        to_pictures(recording.frames),
        to_pictures(torch.cat([recording.frames[:burn_in], dreamt[0]])),
        ("reality", "dream"),
        torch.cat([none, tokens[0].cpu()]).numpy(),
    )
    for path in paths:
        write_video(path, film)
