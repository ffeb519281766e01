"""A short play by random actions: what an environment is like, and what would hinder learning."""

from contextlib import closing
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from envs.config import EnvConfig
from envs.errors import BadInput, EnvironmentFailed
from envs.images import is_plain
from envs.make import make_single
from envs.spaces import Spaces

CONTRAST = 50  # of 255: below it, frames look all the same to a person


@dataclass(frozen=True)
class Trial:
    """What was seen in some steps by uniformly random actions.

    Attributes:
        spaces: what an agent sees and does.
        frames_text, actions_text: how the environment's own spaces are read.
        frames: `[steps + resets, size, size, channels]` uint8, each episode's first one included.
        rewards: `[steps]` float64.
        lengths: of the episodes that ended.
        terminated: how many of those were terminated; the others were truncated.
        seconds: for all steps and resets.
        differs_at: the first step that differed when the same seed and actions were repeated; None:
            none did.
        limit: Gymnasium's, of an episode's steps (`max_episode_steps`), if there is one.
        failures: reports of restarts (`env.on_error=restart`).
    """

    spaces: Spaces
    frames_text: str
    actions_text: str
    frames: np.ndarray
    rewards: np.ndarray
    lengths: tuple[int, ...]
    terminated: int
    seconds: float
    differs_at: int | None
    limit: int | None
    failures: list[str] = field(default_factory=list)

    def mistakes(self) -> list[str]:
        """Likely mistakes, however few the steps: a sentence each, with what to do about it."""
        found, least, most = [], int(self.frames.min()), int(self.frames.max())
        if (self.frames == self.frames[0]).all():
            found.append(
                f"All {len(self.frames)} frames are equal: look at them, and show what the actions "
                "change; env.image or env.pixels=render chooses another view."
            )
        elif most - least < CONTRAST:
            found.append(
                f"The frames use only {least} to {most} of 0 to 255, which is all but one colour "
                "to a network: give the range that is used, as env.range=[0,10], or what people "
                "see, by env.pixels=render."
            )
        if self.failures:
            found.append(f"It failed in {len(self.rewards)} steps: {' '.join(self.failures)}")
        if self.differs_at is not None:
            found.append(
                f"Its seed does not decide it (step {self.differs_at} was another the second "
                "time): a resumed run cuts the episodes that were running; take all randomness "
                "from reset(seed=…) to avoid that."
            )
        return found

    def warnings(self) -> list[str]:
        """As `mistakes`, and what so few steps may only not have shown."""
        found, steps, reward = self.mistakes(), len(self.rewards), self.rewards[0]
        if not self.lengths and self.limit is None:
            found.append(
                f"No episode ended within {steps} steps: evaluation plays episodes to their ends, "
                "so see that each has one; env.kwargs.max_episode_steps=1000 sets a limit."
            )
        if len(self.lengths) > 1 and max(self.lengths) == 1:
            found.append(
                f"All {len(self.lengths)} episodes ended at their first step: nothing follows from "
                "an action, so there is no world to learn; look at when it terminates."
            )
        # Where episodes terminate, their length can still be learned.
        if (self.rewards == reward).all() and not (reward and self.terminated):
            found.append(
                f"Each of {steps} random steps had the reward {reward:.4g}: an agent that never "
                "meets another learns nothing; try more steps (trial=1000), or reward what comes "
                "before."
            )
        return found


def try_out(config: EnvConfig, seed: int, steps: int) -> Trial:
    """Play `steps` steps, twice.

    Raises:
        BadInput: the environment cannot be made, is not what it declares, or fails and may not be
            restarted; its own error is shown.
    """
    first, facts = _play(config, seed, steps)
    second, _ = _play(config, seed, steps)
    plain = [all(is_plain(seen.frame) for seen in play) for play in (first, second)]
    went_black = plain == [False, True]
    if went_black and not config.parallel:
        raise BadInput(
            f"The environment {config.name} shows a single colour once it was made before in the "
            "same process: correct what it does when it is made or closed, or give "
            "env.parallel=true, a process for each."
        )
    played = [seen for seen in first if seen.reward is not None]
    ends = np.flatnonzero([seen.terminated or seen.truncated for seen in played])
    return Trial(
        frames=np.stack([seen.frame for seen in first]),
        rewards=np.array([seen.reward for seen in played]),
        lengths=tuple(np.diff(ends, prepend=-1).tolist()),
        terminated=sum(seen.terminated for seen in played),
        differs_at=None if went_black else _first_difference(first, second),
        **facts,
    )


class _Seen(NamedTuple):
    """What a step showed, or a reset, whose `reward` is None."""

    frame: np.ndarray
    reward: float | None = None
    terminated: bool = False
    truncated: bool = False


def _play(config: EnvConfig, seed: int, steps: int) -> tuple[list[_Seen], dict[str, Any]]:
    """What random actions show, and the other facts of a `Trial`."""
    seen: list[_Seen] = []
    failures: list[str] = []
    with closing(make_single(config, seed)) as env:
        env.action_space.seed(seed)
        started = perf_counter()
        try:
            for _ in range(steps):
                if not seen or seen[-1].terminated or seen[-1].truncated:
                    frame, info = env.reset()
                    seen.append(_Seen(frame.copy()))
                    failures += info.get("failures", [])
                frame, reward, terminated, truncated, info = env.step(env.action_space.sample())
                seen.append(_Seen(frame.copy(), float(reward), terminated, truncated))
                failures += info.get("failures", [])
        except EnvironmentFailed as error:
            raise BadInput(f"{error.what}; correct it.") from error
        return seen, {
            "spaces": Spaces.of(env),
            "frames_text": env.get_wrapper_attr("frames_text"),
            "actions_text": env.get_wrapper_attr("text"),
            "limit": env.spec.max_episode_steps if env.spec else None,
            "seconds": perf_counter() - started,
            "failures": failures,
        }


def _first_difference(first: list[_Seen], second: list[_Seen]) -> int | None:
    """The step at which two plays differ; 0 is the first reset."""
    step = 0
    for one, other in zip(first, second, strict=False):
        step += one.reward is not None
        if one[1:] != other[1:] or not np.array_equal(one.frame, other.frame):
            return step
    return None
