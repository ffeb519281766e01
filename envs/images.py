"""Any image -> a frame: square, channels last, uint8."""

from typing import Any

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
    """Whether a space holds images: [H, W], [H, W, C], [C, H, W], or a stack of those.

    Args:
        layout: of its axes (`check_layout`); None: as in `usual_layout`.
        has_range: whether its bounds are declared elsewhere; else they must be finite.
    """
    if not isinstance(space, ImageSpace) or not 2 <= len(space.shape) <= 4:
        return False
    axes = layout or usual_layout(space.shape)
    if len(axes) != len(space.shape) or not all(space.shape):
        return False
    sides = space.shape[axes.index("h")], space.shape[axes.index("w")]
    is_finite = has_range or isinstance(space, MultiBinary) or is_bounded(space)
    return min(sides) >= LEAST and is_finite


def is_bounded(space: Box) -> bool:
    """Whether a space's bounds mean something. The ends of a wide type stand for no bounds."""
    dtype: Any = space.dtype
    if np.issubdtype(dtype, np.floating):
        limit = UNBOUNDED
    elif dtype.itemsize <= 2:
        return True
    else:
        limit = min(np.iinfo(dtype).max, EXACT)
    bounds = np.stack([space.low, space.high]).astype(np.float64)
    return bool((np.abs(bounds) < limit).all())


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
    first, second, *rest = shape
    if len(shape) == 3:
        is_first = 2 * first < min(shape[1:]) or first != second == shape[2]
        return "chw" if is_first else "hwc"
    are_equal = first == second != rest[0] and first > min(rest)  # no stack of four, four channels
    are_larger = min(first, second) > max(rest)
    return "hwcs" if are_equal or are_larger else "s" + usual_layout(shape[1:])


def is_picture(rendered: Any) -> bool:
    """Whether what `render()` gave is a picture for people, [h, w, 3] uint8."""
    is_bytes = isinstance(rendered, np.ndarray) and rendered.dtype == np.uint8
    return is_bytes and rendered.ndim == rendered.shape[-1] == 3


def is_plain(frame: np.ndarray) -> bool:
    """Whether a frame [..., C] is of a single colour."""
    return bool((frame == frame.reshape(-1, frame.shape[-1])[0]).all())


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
        frames: the space of the frames, [side, side, channels] uint8.
        is_native: whether the images are such frames already.
        text: what is done, for people.

    Args:
        space: `is_image`.
        side: of a frame; None: the image's own if it is a square with one of `SIDES`, else the
            next larger of them (32 or more, so that nothing small is lost), and `USUAL` for
            images beyond all of them.
        layout: of its axes, None: `usual_layout`.
    """

    def __init__(self, space: ImageSpace, side: int | None = None, layout: str | None = None):
        layout = layout or usual_layout(space.shape)
        self.space = space
        self._axes = [layout.index(axis) for axis in "hwsc" if axis in layout]
        height, width, *channels = (space.shape[axis] for axis in self._axes)
        self._shape = height, width, int(np.prod(channels, dtype=int))
        self._side = side = side or _side(height, width)
        self._factor = side // max(height, width)  # by which it is enlarged, if 2 or more
        self.frames = Box(0, 255, (side, side, self._shape[2]), np.uint8)
        self.is_native = space == self.frames and self._axes == sorted(self._axes)

        low, high = (0, 1) if isinstance(space, MultiBinary) else (space.low, space.high)
        self._low, span = np.float64(low), np.subtract(high, low, dtype=np.float64)
        self._scale = 255 / np.where(span > 0, span, 1)
        self._is_bytes = space.dtype == np.uint8 and np.all(self._scale == 1)
        done = [] if self._is_bytes else [f"{np.min(low):.4g} to {np.max(high):.4g} as 0 to 255"]
        if self._factor >= 2:
            done.append(f"{height}×{width} enlarged {self._factor} times")
        elif (height, width) != (side, side):
            done.append(f"{height}×{width} stretched by an antialiased bilinear filter")
        self.text = (
            f"{side}×{side}×{self._shape[2]} of {short(space)}, read as {layout} (env.layout): "
            f"{', '.join(done) or 'as it is'}"
        )

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """An image of the space -> a frame."""
        if not self._is_bytes:
            image = np.rint((image - self._low) * self._scale).astype(np.uint8)
        image = image.transpose(self._axes).reshape(self._shape)
        if self._factor >= 2:
            image = image.repeat(self._factor, axis=0).repeat(self._factor, axis=1)
            rest = [self._side - length for length in image.shape[:2]]
            return np.pad(image, [*((n // 2, n - n // 2) for n in rest), (0, 0)])
        if image.shape == self.frames.shape:
            return image
        if image.shape[2] == 3:
            return _stretched(image, self._side)
        # One by one: Pillow would take a fourth channel for transparency, and knows no fifth.
        channels = [_stretched(channel, self._side) for channel in np.moveaxis(image, -1, 0)]
        return np.stack(channels, axis=-1)


def _stretched(image: np.ndarray, side: int) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))


def _side(height: int, width: int) -> int:
    if height == width and height in SIDES:
        return height
    return next((side for side in SIDES[1:] if side >= max(height, width)), USUAL)
