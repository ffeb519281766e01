"""Pictures from frames: film strips, panels with values and tokens.

Frames are NumPy arrays [H, W, 3] uint8 in 0..255. Nothing here knows of models. Enlarging repeats
pixels, so that what is shown is what the agent sees.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import gymnasium
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from envs.images import is_picture

BACKGROUND = (22, 24, 29)
BRIGHT = (236, 238, 242)
DIM = (140, 146, 158)
EMPTY_CELL = (36, 39, 46)

GAP = 3  # between frames or cells, in pixels
MARGIN = 10  # around everything
LINE = 22  # height of a line of text
CELL = 29, 24  # width and height of a cell that shows a token


def to_rgb(frames: np.ndarray) -> np.ndarray:
    """Frames as people see them. [..., H, W, C] uint8 -> [..., H, W, 3] uint8

    Three channels are red, green and blue; one is grey. With any other number each channel has its
    own colour, and the brightest is seen.
    """
    channels = frames.shape[-1]
    if channels in (1, 3):
        return np.broadcast_to(frames, (*frames.shape[:-1], 3))
    shown = np.zeros((*frames.shape[:-1], 3), np.float32)
    for c in range(channels):
        colour = np.array(colorsys.hsv_to_rgb(c / channels, 0.6, 1), np.float32)
        np.maximum(shown, frames[..., c, None] * colour, out=shown)
    return shown.round().astype(np.uint8)


def shown(env: gymnasium.Env, observation: np.ndarray) -> np.ndarray:
    """What an environment renders, if it is a picture, or else the observation as RGB."""
    picture = env.render() if env.render_mode is not None else None
    return np.asarray(picture) if is_picture(picture) else to_rgb(observation)


def enlarged(frame: np.ndarray, scale: int) -> np.ndarray:
    """Every pixel becomes scale × scale pixels. [H, W, C] -> [scale H, scale W, C]"""
    return frame.repeat(scale, axis=0).repeat(scale, axis=1)


def strip(rows: Sequence[np.ndarray], labels: Sequence[str], scale: int = 2) -> np.ndarray:
    """Rows of frames [T, H, W, 3] under one another, each with its label -> [h, w, 3] uint8."""
    font = ImageFont.load_default(13)
    left = 2 * MARGIN + max(round(font.getlength(label)) for label in labels)
    height, width = (scale * side + GAP for side in rows[0].shape[1:3])
    size = left + width * max(map(len, rows)) - GAP + MARGIN, 2 * MARGIN + height * len(rows) - GAP
    canvas = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = MARGIN + i * height
        draw.text((left - MARGIN, top + height // 2), label, BRIGHT, font, anchor="rm")
        for t, frame in enumerate(row):
            canvas.paste(Image.fromarray(enlarged(frame, scale)), (left + t * width, top))
    return np.asarray(canvas)


class Panel(NamedTuple):
    """A frame with what is known of it.

    Attributes:
        frame: [H, W, 3] uint8.
        caption: Above it, at the left.
        note: Above it, at the right.
        values: What to write in a line each below it, by name.
        tokens: [K] integers in cells below the values; a negative one is an empty cell.
    """

    frame: np.ndarray
    caption: str
    note: str = ""
    values: Mapping[str, str] = {}
    tokens: np.ndarray | Sequence[int] = ()


def scene(panels: Sequence[Panel], title: str, note: str = "", scale: int = 6) -> np.ndarray:
    """Panels of one size beside one another -> [h, w, 3] uint8.

    The size follows from the frames' and from how many values and tokens there are.
    """
    height, width = (scale * side for side in panels[0].frame.shape[:2])
    per_line = max(1, (width + GAP) // (CELL[0] + GAP))
    below = max(
        LINE * len(panel.values) + (CELL[1] + GAP) * -(-len(panel.tokens) // per_line)
        for panel in panels
    )
    size = MARGIN + (width + MARGIN) * len(panels), 2 * LINE + height + below + MARGIN
    canvas = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    _draw_line(draw, title, note, MARGIN, 0, size[0] - 2 * MARGIN)
    for i, panel in enumerate(panels):
        x, y = MARGIN + i * (width + MARGIN), LINE
        _draw_line(draw, panel.caption, panel.note, x, y, width)
        canvas.paste(Image.fromarray(enlarged(panel.frame, scale)), (x, y + LINE))
        y += LINE + height
        for name, value in panel.values.items():
            _draw_line(draw, name, value, x, y, width)
            y += LINE
        for k, token in enumerate(panel.tokens):
            line, column = divmod(k, per_line)
            at = x + column * (CELL[0] + GAP), y + line * (CELL[1] + GAP)
            _draw_token(draw, int(token), at)
    return np.asarray(canvas)


def token_colour(token: int) -> tuple[int, int, int]:
    """A colour for a token. Neighbouring indices differ, as their order means nothing."""
    hue = token * 0.618034 % 1  # the golden ratio spreads any run of indices over the circle
    lightness = 0.42 + 0.16 * (token * 0.754878 % 1)
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.55)
    return round(red * 255), round(green * 255), round(blue * 255)


def _draw_line(
    draw: ImageDraw.ImageDraw, left: str, right: str, x: int, y: int, width: int
) -> None:
    """A line of text from (x, y), one part at each end."""
    font = ImageFont.load_default(13)
    draw.text((x, y + LINE // 2), left, BRIGHT, font, anchor="lm")
    draw.text((x + width, y + LINE // 2), right, DIM, font, anchor="rm")


def _draw_token(draw: ImageDraw.ImageDraw, token: int, at: tuple[int, int]) -> None:
    box = (*at, at[0] + CELL[0] - 1, at[1] + CELL[1] - 1)
    draw.rounded_rectangle(box, 4, EMPTY_CELL if token < 0 else token_colour(token))
    if token >= 0:
        middle = at[0] + CELL[0] / 2, at[1] + CELL[1] / 2
        draw.text(middle, str(token), BRIGHT, ImageFont.load_default(11), anchor="mm")
