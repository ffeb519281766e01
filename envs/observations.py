"""What an environment shows -> frames: where the image is, and whether each one is what was declared."""

import copy
import difflib
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Space, Tuple

from envs.errors import BadInput
from envs.failures import describe
from envs.images import UNBOUNDED, ImageReader, ImageSpace, check_layout, is_image, short

PIXELS = ("auto", "observation", "render")
READABLE = (
    "an image [H, W], [H, W, C] or [C, H, W] between finite bounds, its own or those of env.range (uint8, bool, integers or "
    "floats), a Dict or Tuple that holds one, or render_mode='rgb_array'"
)

MOST_REWARD = float(np.finfo(np.float32).max)  # as which it is kept

NUMBER = (bool, int, float, np.number, np.bool_)

Path = tuple[str | int, ...]
"""Keys that lead from an observation to its image; () for an observation that is one."""


def find_image(space: Space, pixels: str, image: str | None, layout: str | None = None, has_range: bool = False) -> Path | None:
    """Where in an observation the image is; None: it has to be rendered.

    pixels: one of PIXELS; image: the key of the image (`env.image`), where there are several; keys of keys have dots between
    layout, has_range: see `is_image`

    Raises:
        BadInput: `pixels`, `image` or `layout` are not accepted, there are several images, or none where there must be one.
    """
    if pixels not in PIXELS:
        raise BadInput(f"env.pixels={pixels} was given; choose one of {', '.join(PIXELS)}.")
    if layout is not None:
        check_layout(layout)
    images = {".".join(map(str, path)): path for path, inner in _leaves(space) if is_image(inner, layout, has_range)}
    if pixels == "render":
        for key, value in (("image", image), ("layout", layout)):
            if value is not None:
                raise BadInput(f"env.{key}={value} was given with env.pixels=render, which shows no observation; leave one out.")
        return None
    if image is not None:
        if image in images:
            return images[image]
        near = difflib.get_close_matches(image, images, n=1)
        there = f"did you mean {near[0]}?" if near else f"its images are {', '.join(filter(None, images)) or 'none'}."
        raise BadInput(f"env.image={image} was given, but no image of {short(space)} has this key; {there}")
    if len(images) > 1:
        raise BadInput(f"The observation holds the images {', '.join(images)}; give one of them, as env.image={next(iter(images))}.")
    if not images and layout is not None:
        raise BadInput(f"env.layout={layout} was given, but {short(space)} holds no image that can be read so; give another, or leave it out.")
    if not images and pixels == "observation":
        raise BadInput(
            f"env.pixels=observation was given, but the observation space {short(space)} holds no image; "
            f"accepted are {READABLE}: give env.pixels=render, or wrap it."
        )
    return next(iter(images.values()), None)


def check_can_render(env: gymnasium.Env, pixels: str) -> None:
    """Raises BadInput if an environment without an image that is accepted has no pictures to render either."""
    modes = env.metadata.get("render_modes") or []
    if "rgb_array" not in modes:
        why = "env.pixels=render was given" if pixels == "render" else f"The observation space {short(env.observation_space)} holds no image"
        raise BadInput(
            f"{why}, and the environment has no render_mode rgb_array ({', '.join(map(str, modes)) or 'none at all'}); accepted are {READABLE}: "
            "wrap it so that it has one of these."
        )


class Frames(gymnasium.Wrapper):
    """An environment that shows frames [side, side, channels] uint8, and is held to its word at every step.

    Of its infos, numbers and dictionaries of numbers are kept.

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
        BadInput: it cannot be rendered, the size is not accepted; and later in `reset` and `step`: an image is not of its
            space, a reward is not a finite number, an end is neither true nor false, an info is no dictionary, the action space is
            no longer what it was, or there are not as many values as Gymnasium's API has. The sentence names the step.
    """

    def __init__(
        self, env: gymnasium.Env, path: Path | None, size: int | None, bounds: list[float] | None, name: str, layout: str | None = None
    ):
        super().__init__(env)
        self._path, self._name, self.is_rendered = path, name, path is None
        self._episode, self._step = 0, 0
        self._kinds: dict[str, bool] = {}  # of an info's keys: whether it is a dictionary
        if path is None:
            space, why = self._rendered_space(), f"rendered (the observation, {short(env.observation_space)}, is not seen)"
        else:
            space, hidden = _at(env.observation_space, path), [".".join(map(str, p)) for p, _ in _leaves(env.observation_space) if p != path]
            why = f"observation {'.'.join(map(str, path))}".rstrip() + (f" ({', '.join(hidden)} not seen)" if hidden else "")
        self._read = ImageReader(space if bounds is None else _narrowed(space, bounds), size, layout)
        self.frames_text = f"{why}: {self._read.text}"
        self._is_native = path == () and self._read.is_native
        self._shape, self._dtype = space.shape, space.dtype
        self._actions, self._declared = env.action_space, copy.deepcopy(env.action_space)
        if not self._is_native:
            self.observation_space = Box(0, 255, (self._read.side, self._read.side, self._read.channels), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self._episode, self._step = self._episode + 1, 0
        result = self.env.reset(seed=seed, options=options)
        self._check_actions(self.env.action_space)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise self._refusal("reset() returned", _kind(result), "(observation, info) is accepted")
        return self._frame(result[0]), self._numbers(result[1])

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._step += 1
        result = self.env.step(action)
        if not (isinstance(result, tuple) and len(result) == 5):
            raise self._refusal("step() returned", _kind(result), "(observation, reward, terminated, truncated, info) is accepted")
        observation, reward, terminated, truncated, info = result
        if not _is_finite(reward):
            raise self._refusal("it returned the reward", repr(reward), f"finite numbers up to {MOST_REWARD:.1e} are accepted")
        for end, value in (("terminated", terminated), ("truncated", truncated)):
            if not _is_flag(value):
                raise self._refusal(f"it returned {end} as", repr(value), "True or False is accepted")
        if self.env.action_space is not self._actions:
            self._check_actions(self.env.action_space)
        return self._frame(observation), float(reward), bool(terminated), bool(truncated), self._numbers(info)

    def _check_actions(self, space: Space) -> None:
        if space != self._declared:
            raise self._refusal("its action space is", short(space), f"it was {short(self._declared)} when it was made")

    def _frame(self, observation: Any) -> np.ndarray:
        if self._is_native and type(observation) is np.ndarray:
            if observation.shape == self._shape and observation.dtype == self._dtype:  # there is no more to it
                return observation
        read, (did, what) = self._read, ("rendered", "an image") if self._path is None else ("returned", "an observation")
        given = self.env.render() if self._path is None else self._picked(observation)
        image = np.asarray(given)
        fault = read.fault(image)
        if fault is not None:
            fault = f"that is {_kind(given)}" if image.dtype == object else f"with {fault}"
            raise self._refusal(f"it {did} {what}", fault, f"its space is {short(read.space)}")
        return image if read.is_native else read(image)

    def _numbers(self, info: dict[str, Any]) -> dict[str, Any]:
        """An info's numbers, and dictionaries of them, by name, as long as each stays what it was first. Of anything else a vector
        environment makes no array, but an error. What is called `failures` is ours (SeededEpisodes)."""
        if not isinstance(info, Mapping):
            raise self._refusal("it returned the info", repr(info)[:100], "a dictionary is accepted")
        kept = {}
        for key, value in info.items():
            if isinstance(value, dict):
                value = {name: number for name, number in value.items() if isinstance(name, str) and _is_number(number)}
            elif not _is_number(value):
                continue
            if isinstance(key, str) and key != "failures" and self._kinds.setdefault(key, isinstance(value, dict)) == isinstance(value, dict):
                kept[key] = value
        return kept

    def _picked(self, observation: Any) -> Any:
        try:
            return _at(observation, self._path)
        except (KeyError, IndexError, TypeError):
            keys = ".".join(map(str, self._path))
            raise self._refusal("it returned an observation without", keys, "its space has it") from None

    def _rendered_space(self) -> ImageSpace:
        """Images are rendered as uint8, or, by some, as floats from 0 to 1."""
        for done, call in (("reset", partial(self.env.reset, seed=0)), ("rendered", self.env.render)):
            try:
                image = call()
            except (Exception, SystemExit) as error:
                raise BadInput(f"The environment {self._name} cannot be {done}: {describe(error)}; correct it, or install what it needs.") from error
        if isinstance(image, np.ndarray):
            is_float = np.issubdtype(image.dtype, np.floating) and image.size and 0 <= image.min() <= image.max() <= 1
            space = Box(0, 1, image.shape, image.dtype) if is_float else Box(0, 255, image.shape, np.uint8)
            if (is_float or image.dtype == np.uint8) and is_image(space):
                return space
        raise BadInput(
            f"The environment {self._name} renders {_kind(image)} with render_mode='rgb_array'; accepted are arrays "
            "[H, W, 3] uint8: correct its render(), or show images as its observations."
        )

    def _refusal(self, what: str, value: Any, accepted: str) -> BadInput:
        where = f"at step {self._step} of its episode" if self._step else "in the reset that begins its episode"
        return BadInput(
            f"The environment {self._name} is not what it declares: {where} {self._episode} {what} {value}, but {accepted}; "
            "correct the environment."
        )


def _narrowed(space: ImageSpace, bounds: list[float]) -> Box:
    """An image's space with other bounds. Raises BadInput if these are none, or not of its type."""
    try:
        least, most = bounds
        if not (isinstance(space, Box) and -UNBOUNDED < least < most < UNBOUNDED and np.array(bounds).astype(space.dtype).tolist() == [least, most]):
            raise ValueError
        return Box(least, most, space.shape, space.dtype)
    except ValueError as error:
        raise BadInput(
            f"env.range={list(bounds)} was given for images of {short(space)}; give [least, most], two numbers of their type."
        ) from error


def _leaves(space: Space, path: Path = ()) -> list[tuple[Path, Space]]:
    """All spaces within, with their paths."""
    if isinstance(space, Dict | Tuple):
        inner = space.items() if isinstance(space, Dict) else enumerate(space)
        return [leaf for key, within in inner for leaf in _leaves(within, (*path, key))]
    return [(path, space)]


def _at(observation: Any, path: Path) -> Any:
    for key in path:
        observation = observation[key]
    return observation


def _is_number(value: Any) -> bool:
    """Whether a vector environment can hold it in an array."""
    return isinstance(value, NUMBER) and (not isinstance(value, int) or abs(value) < 2**63)


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
        return f"{'a list of ' * isinstance(value, list)}{len(value)} value{'s' * (len(value) != 1)}"
    return repr(value) if value is None else type(value).__name__
