"""Any image -> a frame: square, channels last, uint8."""

from collections.abc import Callable

import numpy as np
from gymnasium.spaces import Box, MultiBinary, Space
from PIL import Image

from envs.errors import BadInput

SIDES = (16, 32, 48, 64, 96, 128)  # pixels, of frames: what every encoder here folds
USUAL = 64  # the side for images that are larger than any of them
LEAST = 3  # pixels: what is lower or narrower is a table of numbers
UNBOUNDED = 1e30  # the greatest float32 is used as "no bound"
EXACT = 2**53  # up to it float64 holds all integers

ImageSpace = Box | MultiBinary


def is_image(space: Space, layout: str | None = None, has_range: bool = False) -> bool:
    """Whether a space holds images, numbers between finite bounds.

    An image is [H, W], [H, W, C], [C, H, W], or a stack of those.

    Args:
        layout: of its axes (`check_layout`); None: as in `usual_layout`.
        has_range: whether its bounds are declared elsewhere.
    """
    if (
        not isinstance(space, ImageSpace)
        or not 2 <= len(space.shape) <= 4
        or len(layout or space.shape) != len(space.shape)
    ):
        return False
    axes = layout or usual_layout(space.shape)
    height, width = space.shape[axes.index("h")], space.shape[axes.index("w")]
    return (
        min(height, width) >= LEAST
        and all(space.shape)
        and (isinstance(space, MultiBinary) or has_range or is_bounded(space))
    )


def check_layout(layout: str) -> None:
    """Raises BadInput if it does not name each axis of an image by its letter."""
    if not {"h", "w"} <= set(layout) <= set("hwcs") or len(set(layout)) != len(layout):
        raise BadInput(
            f"env.layout={layout} was given; give a letter for each axis of the image in its "
            "order: h and w for height and width, c for channels, s for a stack, as hwc, chw, "
            "shwc or hwcs."
        )


def usual_layout(shape: tuple[int, ...]) -> str:
    """The axes of an image whose layout is not given.

    Of three axes the last are channels; but the first if it is less than half of both others, or if
    only the others are equal. Of four axes the first is a stack; but the last if the first two are
    larger than all the others, or equal.
    """
    if len(shape) == 2:
        return "hw"
    first, middle, *rest = shape
    if len(shape) == 4:
        alike = first == middle != rest[0] and first > min(
            rest
        )  # not a stack of four with four channels
        return "hwcs" if alike or min(first, middle) > max(rest) else "s" + usual_layout(shape[1:])
    return "chw" if 2 * first < min(middle, *rest) or first != middle == rest[0] else "hwc"


def is_picture(rendered: object) -> bool:
    """Whether what an environment's `render()` gave is a picture for people, [h, w, 3] uint8"""
    return (
        isinstance(rendered, np.ndarray)
        and rendered.dtype == np.uint8
        and rendered.ndim == rendered.shape[-1] == 3
    )


def short(space: Space) -> str:
    """A space in a few words; a Box's own text lists its bounds element by element."""
    if isinstance(space, Box) and space.low.size:
        return f"Box({space.low.min():.4g}, {space.high.max():.4g}, {space.shape}, {space.dtype})"
    text = " ".join(str(space).split())
    return text if len(text) <= 120 else f"{text[:119]}…"


class ImageReader:
    """Makes frames of the images of a space: the range becomes 0..255, the size a square.

    Each element's declared bounds become 0 and 255, so False 0 and True 255. An image of less than
    half the side is enlarged by a whole factor and centred on black (0), so that pixel art stays
    sharp. Any other size is stretched to the square by Pillow's bilinear filter, which is
    antialiased where it shrinks.

    Attributes:
        side, channels: of a frame, [side, side, channels] uint8.
        text: what is done, for people.

    Args:
        space: `is_image`.
        layout: of its axes, None: `usual_layout`.
        side: of a frame; None: the image's own if it is a square with one of `SIDES`, else the
            next larger of them (32 or more, so that nothing small is lost), and `USUAL` for
            images beyond all of them.

    Raises:
        BadInput: the side is out of range.
    """

    def __init__(self, space: ImageSpace, side: int | None = None, layout: str | None = None):
        if side is not None and not SIDES[0] <= side <= 1024:
            raise BadInput(
                f"env.size={side} was given; give the frames' side in pixels, one of "
                f"{_listed(SIDES)}, say."
            )
        self.space = space
        layout = layout or usual_layout(space.shape)
        self._axes = tuple(layout.index(axis) for axis in "hwsc" if axis in layout)
        height, width, *channels = (space.shape[axis] for axis in self._axes)
        self.channels = int(np.prod(channels, dtype=int))
        self.side = side or _side(height, width)
        self._shape, self._in_order = (
            (height, width, self.channels),
            self._axes == tuple(range(len(space.shape))),
        )

        low, high = (0, 1) if isinstance(space, MultiBinary) else (space.low, space.high)
        self._low, self._high = _uniform(low), _uniform(high)
        self._all_bytes = space.dtype == np.uint8 and np.all(low == 0) and np.all(high == 255)
        self._is_free = (
            self._all_bytes or space.dtype == bool
        )  # no value of the type is out of range
        self.is_native = (
            self._all_bytes
            and self._in_order
            and space.shape == (self.side, self.side, self.channels)
        )

        factor = self.side // max(height, width)
        self._resize: Callable[[np.ndarray], np.ndarray] | None = None
        if (height, width) != (self.side, self.side):
            self._resize = self._enlarge if factor >= 2 else self._stretch
        self._factor = factor
        self._margins = [
            ((self.side - factor * n) // 2, -((factor * n - self.side) // 2))
            for n in (height, width)
        ]
        self.text = (
            f"{self.side}×{self.side}×{self.channels} of {short(space)}, read as {layout} "
            f"(env.layout): {', '.join(self._told())}"
        )

    def _told(self) -> list[str]:
        told = []
        if self.space.dtype == bool or isinstance(self.space, MultiBinary):
            told.append("off 0 and on 255")
        elif not self._all_bytes:
            told.append(f"{np.min(self._low):.4g} to {np.max(self._high):.4g} as 0 to 255")
        height, width, _ = self._shape
        if self._resize == self._enlarge:
            border = " on black" if any(sum(margin) for margin in self._margins) else ""
            told.append(
                f"{height}×{width} enlarged {self._factor} times, nearest neighbour{border}"
            )
        elif self._resize:
            kind = "shrunk" if max(height, width) > self.side else "enlarged"
            told.append(
                f"{height}×{width} {'' if height == width else 'stretched, '}{kind} by an "
                "antialiased bilinear filter"
            )
        return told or ["as it is"]

    def fault(self, image: np.ndarray) -> str | None:
        """What the space forbids in an image, for a sentence; None if nothing."""
        if image.shape != self.space.shape:
            return f"the shape {image.shape}"
        if image.dtype != self.space.dtype and not np.can_cast(image.dtype, self.space.dtype):
            return f"the type {image.dtype}"
        if self._is_free:
            return None
        if isinstance(self._low, np.ndarray) or isinstance(self._high, np.ndarray):
            wrong = image[~((image >= self._low) & (image <= self._high))]
        else:
            ends = np.array([image.min(), image.max()])  # NaN is both
            wrong = ends[~((ends >= self._low) & (ends <= self._high))]
        return f"the value {wrong[0]}" if wrong.size else None

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """An image of the space -> a frame."""
        if not self._all_bytes:
            image = self._to_bytes(image)
        if not self._in_order:
            image = image.transpose(self._axes)
        image = image.reshape(self._shape)
        return image if self._resize is None else self._resize(image)

    def _to_bytes(self, image: np.ndarray) -> np.ndarray:
        if image.dtype == bool:
            return image.view(np.uint8) * np.uint8(255)
        span = np.subtract(self._high, self._low, dtype=np.float64)
        scaled = np.subtract(image, self._low, dtype=np.float64) * (
            255 / np.where(span > 0, span, 1)
        )
        return np.rint(scaled).astype(np.uint8)

    def _enlarge(self, image: np.ndarray) -> np.ndarray:
        blocks = image.repeat(self._factor, axis=0).repeat(self._factor, axis=1)
        return np.pad(blocks, [*self._margins, (0, 0)])

    def _stretch(self, image: np.ndarray) -> np.ndarray:
        if self.channels == 3:
            return _resized(image, self.side)
        # One by one: Pillow would take a fourth channel for transparency, and knows no fifth.
        return np.stack([_resized(image[..., i], self.side) for i in range(self.channels)], axis=-1)


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(
        Image.fromarray(np.ascontiguousarray(image)).resize((side, side), Image.Resampling.BILINEAR)
    )


def _side(height: int, width: int) -> int:
    longest = max(height, width)
    if height == width and height in SIDES:
        return height
    return next((side for side in SIDES[1:] if side >= longest), USUAL)


def is_bounded(space: Box) -> bool:
    """Whether a space's bounds mean something. The ends of a wide type stand for no bounds."""
    if not np.issubdtype(space.dtype, np.floating) and space.dtype.itemsize <= 2:
        return True
    limit = (
        UNBOUNDED
        if np.issubdtype(space.dtype, np.floating)
        else min(np.iinfo(space.dtype).max, EXACT)
    )
    return all(
        bool((np.abs(bound.astype(np.float64)) < limit).all()) for bound in (space.low, space.high)
    )


def _uniform(bound: np.ndarray | int) -> np.ndarray | float | int:
    """A bound as one number, where it is the same for all elements."""
    bound = np.asarray(bound)
    return bound.flat[0].item() if bound.size and (bound == bound.flat[0]).all() else bound


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
