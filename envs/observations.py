"""What an environment shows -> frames, each held to what was declared."""

import copy
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Space

from envs.errors import BadInput
from envs.failures import describe
from envs.images import UNBOUNDED, ImageReader, ImageSpace, is_image, short
from envs.locate import Path, leaves, part_at
from envs.scores import CRAFTER_ACHIEVEMENTS

MOST_REWARD = float(np.finfo(np.float32).max)  # as which it is kept
CRAFTER = set(CRAFTER_ACHIEVEMENTS)

DRAWN: set[str] = set()
"""Names of environments that rendered more than a single colour in this process."""


class Frames(gymnasium.Wrapper):
    """An environment that shows frames [side, side, channels] uint8, checked at every step.

    Of its infos, only what is read somewhere is kept (`_used`).

    Attributes:
        frames_text: how the frames come to be, for people.
        is_rendered: whether they are rendered, and not observations.

    Args:
        env: the environment; where `path` is None its render_mode is "rgb_array".
        path: where its image is (`find_image`).
        size: of the frames, None: see `ImageReader`.
        bounds: [least, most] value of an image, None: what its space declares.
        layout: of its axes, None: see `ImageReader`.
        name: of the environment, for errors.

    Raises:
        BadInput: it cannot be rendered, or the size is not accepted; later in `reset` and `step`:
            an image is not of its space, a reward is not a finite number, an end is neither true
            nor false, an info is no dictionary, the action space has changed, or the number of
            values is not Gymnasium's. The sentence names the step.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        path: Path | None,
        size: int | None,
        bounds: list[float] | None,
        name: str,
        layout: str | None = None,
    ):
        super().__init__(env)
        self._path, self._name, self.is_rendered = path, name, path is None
        self._episode, self._step = 0, 0
        if path is None:
            space, why = (
                self._rendered_space(),
                f"rendered (the observation, {short(env.observation_space)}, is not seen)",
            )
        else:
            space, hidden = (
                part_at(env.observation_space, path),
                [".".join(map(str, p)) for p, _ in leaves(env.observation_space) if p != path],
            )
            why = f"observation {'.'.join(map(str, path))}".rstrip() + (
                f" ({', '.join(hidden)} not seen)" if hidden else ""
            )
        self._read = ImageReader(
            space if bounds is None else _narrowed(space, bounds), size, layout
        )
        self.frames_text = f"{why}: {self._read.text}"
        self._is_native = path == () and self._read.is_native
        self._shape, self._dtype = space.shape, space.dtype
        self._actions, self._declared = env.action_space, copy.deepcopy(env.action_space)
        if not self._is_native:
            self.observation_space = Box(
                0, 255, (self._read.side, self._read.side, self._read.channels), np.uint8
            )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self._episode, self._step = self._episode + 1, 0
        result = self.env.reset(seed=seed, options=options)
        self._check_actions(self.env.action_space)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise self._refusal(
                "reset() returned", _kind(result), "(observation, info) is accepted"
            )
        return self._frame(result[0]), self._used(result[1])

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._step += 1
        result = self.env.step(action)
        if not (isinstance(result, tuple) and len(result) == 5):
            raise self._refusal(
                "step() returned",
                _kind(result),
                "(observation, reward, terminated, truncated, info) is accepted",
            )
        observation, reward, terminated, truncated, info = result
        if not _is_finite(reward):
            raise self._refusal(
                "it returned the reward",
                repr(reward),
                f"finite numbers up to {MOST_REWARD:.1e} are accepted",
            )
        for end, value in (("terminated", terminated), ("truncated", truncated)):
            if not _is_flag(value):
                raise self._refusal(
                    f"it returned {end} as", repr(value), "True or False is accepted"
                )
        if self.env.action_space is not self._actions:
            self._check_actions(self.env.action_space)
        return (
            self._frame(observation),
            float(reward),
            bool(terminated),
            bool(truncated),
            self._used(info),
        )

    def _check_actions(self, space: Space) -> None:
        if space != self._declared:
            raise self._refusal(
                "its action space is",
                short(space),
                f"it was {short(self._declared)} when it was made",
            )

    def _frame(self, observation: Any) -> np.ndarray:
        if (  # a plain frame, the usual case
            self._is_native
            and type(observation) is np.ndarray
            and observation.shape == self._shape
            and observation.dtype == self._dtype
        ):
            return observation
        read, (did, what) = (
            self._read,
            ("rendered", "an image") if self._path is None else ("returned", "an observation"),
        )
        given = self.env.render() if self._path is None else self._picked(observation)
        image = np.asarray(given)
        fault = read.fault(image)
        if fault is not None:
            fault = f"that is {_kind(given)}" if image.dtype == object else f"with {fault}"
            raise self._refusal(f"it {did} {what}", fault, f"its space is {short(read.space)}")
        return image if read.is_native else read(image)

    def _used(self, info: dict[str, Any]) -> dict[str, Any]:
        """Crafter's achievements, and whether a game continues (SeededEpisodes). The rest is left
        out: a vector environment makes arrays of infos, and fails where their types differ."""
        if not isinstance(info, Mapping):
            raise self._refusal(
                "it returned the info", repr(info)[:100], "a dictionary is accepted"
            )
        used, counts = {}, info.get("achievements")
        if isinstance(counts, Mapping) and _are_achievements(counts):
            used["achievements"] = {name: int(count) for name, count in counts.items()}
        if _is_flag(info.get("game_continues")):
            used["game_continues"] = bool(info["game_continues"])
        return used

    def _picked(self, observation: Any) -> Any:
        try:
            return part_at(observation, self._path)
        except (KeyError, IndexError, TypeError):
            keys = ".".join(map(str, self._path))
            raise self._refusal(
                "it returned an observation without", keys, "its space has it"
            ) from None

    def _rendered_space(self) -> ImageSpace:
        """Images are rendered as uint8, or, by some, as floats from 0 to 1."""
        for done, call in (
            ("reset", partial(self.env.reset, seed=0)),
            ("rendered", self.env.render),
        ):
            try:
                image = call()
            except (Exception, SystemExit) as error:
                raise BadInput(
                    f"The environment {self._name} cannot be {done}: {describe(error)}; correct "
                    "it, or install what it needs."
                ) from error
        if isinstance(image, np.ndarray):
            is_float = (
                np.issubdtype(image.dtype, np.floating)
                and image.size
                and 0 <= image.min() <= image.max() <= 1
            )
            space = (
                Box(0, 1, image.shape, image.dtype)
                if is_float
                else Box(0, 255, image.shape, np.uint8)
            )
            if (is_float or image.dtype == np.uint8) and is_image(space):
                if (image != image[0, 0]).any():
                    DRAWN.add(self._name)
                return space
        raise BadInput(
            f"The environment {self._name} renders {_kind(image)} with render_mode='rgb_array'; "
            "accepted are arrays [H, W, 3] uint8: correct its render(), or show images as its "
            "observations."
        )

    def _refusal(self, what: str, value: Any, accepted: str) -> BadInput:
        where = (
            f"at step {self._step} of its episode"
            if self._step
            else "in the reset that begins its episode"
        )
        return BadInput(
            f"The environment {self._name} is not what it declares: {where} {self._episode} "
            f"{what} {value}, but {accepted}; correct the environment."
        )


def _narrowed(space: ImageSpace, bounds: list[float]) -> Box:
    """An image's space with other bounds. Raises BadInput if these are none, or not of its type."""
    try:
        least, most = bounds
        if not (
            isinstance(space, Box)
            and -UNBOUNDED < least < most < UNBOUNDED
            and np.array(bounds).astype(space.dtype).tolist() == [least, most]
        ):
            raise ValueError
        return Box(least, most, space.shape, space.dtype)
    except ValueError as error:
        raise BadInput(
            f"env.range={list(bounds)} was given for images of {short(space)}; give [least, most], "
            "two numbers of their type."
        ) from error


def _are_achievements(counts: Mapping[str, Any]) -> bool:
    """Crafter's, and each a count that an array holds."""
    numbers = (isinstance(n, int | np.integer) and 0 <= n < 2**63 for n in counts.values())
    return set(counts) == CRAFTER and all(numbers)


def _is_finite(reward: Any) -> bool:
    try:
        return math.isfinite(reward) and abs(reward) <= MOST_REWARD
    except TypeError:  # not a number at all
        return False


def _is_flag(value: Any) -> bool:
    try:
        return bool(value in (0, 1))  # of any type, but for texts, which would all be true
    except (TypeError, ValueError):  # several at once
        return False


def _kind(value: Any) -> str:
    """What a value is, in a few words."""
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} {value.dtype}"
    if isinstance(value, tuple | list):
        return (
            f"{'a list of ' * isinstance(value, list)}{len(value)} value{'s' * (len(value) != 1)}"
        )
    return repr(value) if value is None else type(value).__name__
