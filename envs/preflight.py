"""A short play by random actions: what an environment is like, and what would hinder learning."""

from dataclasses import dataclass
from time import perf_counter

import numpy as np

from envs.config import EnvConfig
from envs.errors import BadInput, EnvironmentFailed
from envs.make import make_single
from envs.observations import DRAWN
from envs.wrappers import SeededEpisodes

CONTRAST = 50  # of 255: below it, frames look all the same to a person


@dataclass(frozen=True)
class Trial:
    """What was seen in some steps by uniformly random actions.

    Attributes:
        frames_text, actions_text: how the spaces are read.
        frames: `[steps + resets, size, size, channels]` uint8, each episode's first one included.
        rewards: `[steps]` float64.
        lengths: of the episodes that ended.
        terminated: how many of those were terminated; the others were truncated.
        seconds: for all steps and resets.
        differs_at: the first step that differed when the same seed and actions were repeated; None:
            none did.
        limit: Gymnasium's, of an episode's steps (`max_episode_steps`), if there is one.
        failures: reports of restarts (`env.on_error=restart`).
        rendered: whether the frames are rendered.
        can_render: whether they could be.
        modules: where the environment's class and its base classes are defined.
    """

    frames_text: str
    actions_text: str
    frames: np.ndarray
    rewards: np.ndarray
    lengths: tuple[int, ...]
    terminated: int
    seconds: float
    differs_at: int | None
    limit: int | None
    rendered: bool
    can_render: bool
    failures: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        return len(self.rewards)

    def doubts(self) -> list[str]:
        """Likely mistakes, however few the steps: a sentence each, with what to do about it."""
        found = []
        least, most = int(self.frames.min()), int(self.frames.max())
        other = " or env.pixels=render" if self.can_render and not self.rendered else ""
        if (self.frames == self.frames[0]).all():
            found.append(
                f"All {len(self.frames)} frames are equal: look at them, and show what the actions "
                f"change; env.image{other} chooses another view."
            )
        elif most - least < CONTRAST:
            remedy = (
                "env.pixels=render shows what people see, and env.range=[0,10] spreads the values "
                "that it uses"
                if other
                else "give the range that it uses, as env.range=[0,10]"
            )
            found.append(
                f"The frames use only {least} to {most} of 0 to 255, which is all but one colour "
                f"to a network: {remedy}."
            )
        if self.failures:
            found.append(
                f"It failed {len(self.failures)} times in {self.steps} steps "
                f"({self.failures[0].removesuffix('.')})."
            )
        if self.differs_at is not None:
            found.append(
                f"Its seed does not decide it (step {self.differs_at} was another the second "
                "time): a resumed run cuts the episodes that were running; take all randomness "
                "from reset(seed=…) to avoid that."
            )
        return found

    def warnings(self) -> list[str]:
        """As `doubts`, and what so few steps may only not have shown."""
        found = self.doubts()
        if not self.lengths and self.limit is None:
            found.append(
                f"No episode ended within {self.steps} steps: evaluation plays episodes to their "
                "ends, so see that each has one; env.kwargs.max_episode_steps=1000 sets a limit."
            )
        if len(self.lengths) > 1 and max(self.lengths) == 1:
            found.append(
                f"All {len(self.lengths)} episodes ended at their first step: nothing follows from "
                "an action, so there is no world to learn; look at when it terminates."
            )
        if not self.rewards.any():
            found.append(
                f"No reward was other than 0 in {self.steps} random steps: an agent that never "
                "meets one learns nothing; try more steps (trial=1000), or make the first rewards "
                "easier to find."
            )
        return found

    @property
    def is_constant(self) -> bool:
        """Whether all rewards were the same, and not 0."""
        return bool(self.rewards[0] and (self.rewards == self.rewards[0]).all())


def try_out(config: EnvConfig, seed: int, steps: int) -> Trial:
    """Play `steps` steps, twice.

    Raises:
        BadInput: the environment cannot be made, is not what it declares, or fails and may not be
            restarted; its own error is shown.
    """
    env = make_single(config, seed)
    try:
        started = perf_counter()
        first = _play(env, seed, steps)
        seconds = perf_counter() - started
        shown = env.get_wrapper_attr("frames_text"), env.get_wrapper_attr("text")
        limit = env.spec.max_episode_steps if env.spec else None
        rendered = env.get_wrapper_attr("is_rendered")
        can_render = "rgb_array" in (env.metadata.get("render_modes") or [])
        modules = tuple(cls.__module__ for cls in type(env.unwrapped).__mro__)
    finally:
        env.close()
    env = make_single(config, seed)
    try:
        second = _play(env, seed, steps)
    finally:
        env.close()
    went_black = _is_plain(second) and (not _is_plain(first) or config.name in DRAWN)
    if went_black and not config.parallel:
        raise BadInput(
            f"The environment {config.name} shows a single colour once it was made before in the "
            "same process: correct what it does when it is made or closed, or give "
            "env.parallel=true, a process for each."
        )
    lengths, length, terminated = [], 0, 0
    for seen in first:
        if seen.reward is None:
            length = 0
            continue
        length += 1
        if seen.terminated or seen.truncated:
            lengths.append(length)
            terminated += seen.terminated
    return Trial(
        frames_text=shown[0],
        actions_text=shown[1],
        frames=np.stack([seen.frame for seen in first]),
        rewards=np.array([seen.reward for seen in first if seen.reward is not None]),
        lengths=tuple(lengths),
        terminated=terminated,
        seconds=seconds,
        differs_at=None if went_black else _first_difference(first, second),
        limit=limit,
        rendered=rendered,
        can_render=can_render,
        failures=tuple(failure for seen in first for failure in seen.failures),
        modules=modules,
    )


@dataclass(frozen=True)
class _Seen:
    """After a reset, `reward` is None."""

    frame: np.ndarray
    reward: float | None = None
    terminated: bool = False
    truncated: bool = False
    failures: tuple[str, ...] = ()


def _play(env: SeededEpisodes, seed: int, steps: int) -> list[_Seen]:
    env.action_space.seed(seed)
    seen: list[_Seen] = []
    step = 0
    try:
        while step < steps:
            if not seen or seen[-1].terminated or seen[-1].truncated:
                observation, info = env.reset()
                seen.append(_Seen(observation.copy(), failures=tuple(info.get("failures", ()))))
            observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
            seen.append(
                _Seen(
                    observation.copy(),
                    reward,
                    terminated,
                    truncated,
                    tuple(info.get("failures", ())),
                )
            )
            step += 1
    except EnvironmentFailed as error:
        raise BadInput(f"{error.what}; correct it.") from error
    return seen


def _is_plain(play: list[_Seen]) -> bool:
    """Whether every frame is of a single colour."""
    return all((seen.frame == seen.frame[0, 0]).all() for seen in play)


def _first_difference(one: list[_Seen], other: list[_Seen]) -> int | None:
    step = 0
    for left, right in zip(one, other, strict=False):
        step += left.reward is not None
        ends = (
            (left.reward, left.terminated, left.truncated),
            (right.reward, right.terminated, right.truncated),
        )
        if ends[0] != ends[1] or not np.array_equal(left.frame, right.frame):
            return step
    return None
