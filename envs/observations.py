"""What an environment shows -> frames, each held to what was declared."""

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from envs.config import EnvConfig
from envs.errors import BadInput, describe
from envs.images import ImageReader, ImageSpace, is_image, is_picture, short
from envs.locate import Path, leaves, part_at
from envs.scores import CRAFTER_ACHIEVEMENTS

MOST_REWARD = float(np.finfo(np.float32).max)  # as which it is kept


class Frames(gymnasium.Wrapper):
    """An environment that shows frames [side, side, channels] uint8, checked at every step.

    Of its infos, only what is read somewhere is kept (`_used`).

    Attributes:
        frames_text: how the frames come to be, for people.

    Args:
        env: the environment; where `path` is None its render_mode is "rgb_array".
        path: where its image is (`find_image`).
        config: its range, size and layout are used.

    Raises:
        BadInput: it cannot be rendered, or the range is none; later in `reset` and `step`: an
            image is not of its space, a reward is not a finite number, the action space has
            changed, or the number of values is not Gymnasium's. The sentence names the step.
    """

    def __init__(self, env: gymnasium.Env, path: Path | None, config: EnvConfig):
        super().__init__(env)
        self._path, self._name, self._declared = path, config.name, env.action_space
        self._episode, self._step = 0, 0
        parts = {key: ".".join(map(str, key)) for key, _ in leaves(env.observation_space)}
        if path is None:
            space = self._rendered_space()
            source = f"rendered (the observation, {short(env.observation_space)}, is not seen)"
        else:
            space, name = part_at(env.observation_space, path), parts.pop(path)
            source = f"observation {name}".rstrip()
            source += f" ({', '.join(parts.values())} not seen)" if parts else ""
        if config.range is not None:
            space = _narrowed(space, config.range)
        self._read = ImageReader(space, config.size, config.layout)
        self.observation_space = self._read.frames
        self.frames_text = f"{source}: {self._read.text}"

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self._episode, self._step = self._episode + 1, 0
        result = self.env.reset(seed=seed, options=options)
        observation, info = self._checked("reset()", result, "(observation, info)")
        return self._frame(observation), _used(info)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._step += 1
        result = self.env.step(action)
        values = "(observation, reward, terminated, truncated, info)"
        observation, reward, terminated, truncated, info = self._checked("step()", result, values)
        if not _is_finite(reward):
            accepted = f"finite numbers up to {MOST_REWARD:.1e} are accepted"
            raise self._refusal(f"it returned the reward {reward!r}, but {accepted}")
        frame = self._frame(observation)
        return frame, float(reward), bool(terminated), bool(truncated), _used(info)

    def _frame(self, observation: Any) -> np.ndarray:
        path, space = self._path, self._read.space
        given = self.env.render() if path is None else part_at(observation, path)
        image = np.asarray(given)
        if self._read.is_native:  # any value of its type is in its space
            is_right = image.shape == space.shape and image.dtype == space.dtype
        else:
            is_right = space.contains(image)
        if not is_right:
            did = "rendered an image" if path is None else "returned an observation"
            raise self._refusal(f"it {did} {_described(given)}, but its space is {short(space)}")
        return image if self._read.is_native else self._read(image)

    def _rendered_space(self) -> ImageSpace:
        """The space of what it renders."""
        try:
            self.env.reset(seed=0)
            image: Any = self.env.render()
        except (Exception, SystemExit) as error:
            raise BadInput(
                f"The environment {self._name} cannot be rendered: {describe(error)}; correct it, "
                "or install what it needs."
            ) from error
        if not (is_picture(image) and is_image(space := Box(0, 255, image.shape, np.uint8))):
            raise BadInput(
                f"The environment {self._name} renders an image {_described(image)} with "
                "render_mode='rgb_array'; accepted are arrays [H, W, 3] uint8: correct its "
                "render(), or show images as its observations."
            )
        return space

    def _checked(self, call: str, result: Any, accepted: str) -> tuple:
        """The values that a call returned, as many as are accepted."""
        if not isinstance(result, tuple) or len(result) != 1 + accepted.count(","):
            number = f"{len(result)} values" if isinstance(result, tuple) else "one value"
            raise self._refusal(f"{call} returned {number}, but {accepted} is accepted")
        space = self.env.action_space
        if space is not self._declared and space != self._declared:
            before = f"it was {short(self._declared)} when it was made"
            raise self._refusal(f"its action space is {short(space)}, but {before}")
        if not isinstance(result[-1], Mapping):
            raise self._refusal(f"{call} returned the info {result[-1]!r:.100}, no dictionary")
        return result

    def _refusal(self, what: str) -> BadInput:
        where = f"at step {self._step} of its" if self._step else "in the reset that begins its"
        return BadInput(
            f"The environment {self._name} is not what it declares: {where} episode "
            f"{self._episode} {what}; correct the environment."
        )


def _used(info: Mapping[str, Any]) -> dict[str, Any]:
    """Crafter's achievements, and whether a game continues (SeededEpisodes).

    The rest is left out: a vector environment makes arrays of infos, and fails where types differ.
    """
    used: dict[str, Any] = {}
    counts: Any = info.get("achievements")
    is_crafters = isinstance(counts, Mapping) and set(counts) == set(CRAFTER_ACHIEVEMENTS)
    if is_crafters and all(isinstance(count, int | np.integer) for count in counts.values()):
        used["achievements"] = {name: int(count) for name, count in counts.items()}
    if isinstance(info.get("game_continues"), bool):
        used["game_continues"] = info["game_continues"]
    return used


def _narrowed(space: ImageSpace, bounds: list[float]) -> Box:
    """An image's space with other bounds. Raises BadInput if these are none, or not of its type."""
    is_range = len(bounds) == 2 and bounds[0] < bounds[1]
    if not is_range or np.array(bounds).astype(space.dtype).tolist() != list(bounds):
        raise BadInput(
            f"env.range={bounds} was given for images of {short(space)}; give [least, most], "
            "two numbers of their type."
        )
    dtype: Any = space.dtype
    return Box(bounds[0], bounds[1], space.shape, dtype)


def _is_finite(reward: Any) -> bool:
    try:
        return math.isfinite(reward) and abs(reward) <= MOST_REWARD
    except TypeError:  # not a number at all
        return False


def _described(image: Any) -> str:
    """What is not an image of its space, for a sentence."""
    if image is None:
        return "that is None"
    image = np.asarray(image)
    if not (image.size and np.issubdtype(image.dtype, np.number)):
        return f"with the shape {image.shape} and the type {image.dtype}"
    least, most = image.min(), image.max()
    return f"with the shape {image.shape}, {image.dtype} from {least:.4g} to {most:.4g}"
