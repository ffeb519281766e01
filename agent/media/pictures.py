"""Pictures from frames: film strips, reality beside the dream.

Frames are NumPy arrays [T, H, W, 3] uint8 in 0..255, T images from first to last. Nothing here
knows of models. Enlarging repeats pixels, so that what is shown is what the agent sees.
"""

from __future__ import annotations

import colorsys
import contextlib
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

GAP = 3  # between the frames of a strip, in pixels of the picture
MARGIN = 10  # around everything
CAPTION = 22  # height of a line of text above a frame
CELL = 24  # height of a cell that shows a token
CELL_WIDTH = 29  # the least that holds four digits
VALUE = 38  # height of a value with its name above it
KEY_LINE = 17  # height of a line of the list of keys


def to_rgb(frames: np.ndarray) -> np.ndarray:
    """Frames as people see them. [..., H, W, C] uint8 -> [..., H, W, 3] uint8

    Three channels are red, green and blue; one is grey. With any other number each channel has its
    own colour, and the brightest is seen.
    """
    channels = frames.shape[-1]
    if channels in (1, 3):
        return np.broadcast_to(frames, (*frames.shape[:-1], 3))
    colours = np.array(
        [colorsys.hsv_to_rgb(c / channels, 0.6, 1) for c in range(channels)], np.float32
    )
    shown = np.zeros((*frames.shape[:-1], 3), np.float32)
    for c, colour in enumerate(colours):
        np.maximum(shown, frames[..., c, None] * colour, out=shown)
    return shown.round().astype(np.uint8)


def shown(env: gymnasium.Env, observation: np.ndarray) -> np.ndarray:
    """What an environment renders, if it is a picture, or else the observation as RGB.

    observation: [H, W, C] -> [h, w, 3] uint8
    """
    if env.render_mode is not None:
        with contextlib.suppress(Exception, SystemExit):  # a stranger's render()
            if is_picture(picture := env.render()):
                return picture
    return to_rgb(observation)


def fitted(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture [h, w, 3] uint8 of the size that a film has: itself, or stretched."""
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST))


def strip(rows: Sequence[np.ndarray], labels: Sequence[str], scale: int = 2) -> np.ndarray:
    """Rows of frames under one another, each with its label at the left.

    rows:   arrays [T, H, W, 3] uint8; T may differ between rows, H and W may not
    scale:  every pixel of a frame becomes scale x scale pixels
    Returns [h, w, 3] uint8.
    """
    rows = [checked(row) for row in rows]
    height, width = rows[0].shape[1:3]
    if len(labels) != len(rows) or any(row.shape[1:3] != (height, width) for row in rows):
        shapes = [row.shape for row in rows]
        raise ValueError(
            f"{len(labels)} labels for rows of shapes {shapes}: give one a row, and one frame size."
        )
    height, width = height * scale, width * scale
    font = _font(13)
    left = MARGIN + max((round(font.getlength(label)) for label in labels), default=0)
    left += MARGIN if any(labels) else 0
    columns = max(len(row) for row in rows)
    canvas = _canvas(
        left + columns * (width + GAP) - GAP + MARGIN, 2 * MARGIN + len(rows) * (height + GAP) - GAP
    )
    draw = ImageDraw.Draw(canvas)
    for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = MARGIN + i * (height + GAP)
        draw.text((left - MARGIN, top + height // 2), label, BRIGHT, font, anchor="rm")
        for t, frame in enumerate(row):
            canvas.paste(_enlarged(frame, scale), (left + t * (width + GAP), top))
    return np.asarray(canvas)


def side_by_side(
    top: np.ndarray,
    bottom: np.ndarray,
    captions: tuple[str, str] = ("reality", "dream"),
    tokens: np.ndarray | None = None,
    scale: int = 4,
) -> np.ndarray:
    """Two films of the same length, one above the other, and what the tokens between them were.

    top, bottom: [T, H, W, 3] uint8, the same shape
    captions:    what to write above each; the number of the step stands at the right
    tokens:      [T, K] integers, drawn with frame t: those that led to it; negative where none did,
                 as before a first frame. The same token has the same colour everywhere.
    Returns [T, h, w, 3] uint8, h and w even.
    """
    top, bottom = checked(top), checked(bottom)
    if top.shape != bottom.shape or (tokens is not None and len(tokens) != len(top)):
        shape = None if tokens is None else np.shape(tokens)
        raise ValueError(
            f"top {top.shape}, bottom {bottom.shape} and tokens {shape} differ in length or size."
        )
    _, height, width, _ = top.shape
    height, width = height * scale, width * scale
    lines = [] if tokens is None else _lines(np.shape(tokens)[1], width)
    band = len(lines) * (CELL + GAP) + MARGIN - GAP if lines else 0
    second = CAPTION + MARGIN // 2 + height + MARGIN + band
    total = second + CAPTION + height + MARGIN
    font, digits = _font(14), _font(11)
    frames = []
    for t in range(len(top)):
        canvas = _canvas(width + 2 * MARGIN + width % 2, total + total % 2)
        draw = ImageDraw.Draw(canvas)
        for y, caption, film in ((MARGIN // 2, captions[0], top), (second, captions[1], bottom)):
            draw.text((MARGIN, y + CAPTION // 2), caption, BRIGHT, font, anchor="lm")
            canvas.paste(_enlarged(film[t], scale), (MARGIN, y + CAPTION))
        draw.text((MARGIN + width, MARGIN // 2 + CAPTION // 2), f"step {t}", DIM, font, anchor="rm")
        if lines:
            _draw_tokens(
                draw, tokens[t], (MARGIN, MARGIN // 2 + CAPTION + height + MARGIN), width, digits
            )
        frames.append(np.asarray(canvas))
    return np.stack(frames)


class Panel(NamedTuple):
    """A frame with what is known of it.

    frame:         [H, W, 3] uint8
    caption, note: above it, at the left and at the right
    values:        name -> what to write, in a row below it
    tokens:        [K] integers below the values, or none; negative: an empty cell
    """

    frame: np.ndarray
    caption: str
    note: str
    values: Mapping[str, str]
    tokens: np.ndarray | Sequence[int] = ()


def scene(
    panels: Sequence[Panel],
    title: str,
    note: str,
    keys: Sequence[tuple[str, str]] = (),
    marked: int | None = None,
    scale: int = 6,
) -> np.ndarray:
    """Panels beside one another, and a list of keys at the right.

    title, note: above all, at the left and at the right
    keys:        (keys, what they do) a line; the line `marked` is bright
    Returns [h, w, 3] uint8, h and w even; both depend on shapes, numbers and keys only.
    """
    fonts = {size: _font(size) for size in (11, 13, 14)}
    widths = [panel.frame.shape[1] * scale for panel in panels]
    heights = [
        CAPTION
        + panel.frame.shape[0] * scale
        + VALUE
        + len(_lines(len(panel.tokens), width)) * (CELL + GAP)
        for panel, width in zip(panels, widths, strict=True)
    ]
    right = MARGIN + sum(widths) + MARGIN * (len(panels) - 1)  # of the last panel
    columns = [
        max((round(fonts[13].getlength(line[i])) for line in keys), default=0) for i in (0, 1)
    ]
    width = right + MARGIN + (sum(columns) + 3 * MARGIN if keys else 0)
    top = MARGIN // 2 + CAPTION
    height = top + max(*heights, CAPTION + len(keys) * KEY_LINE) + MARGIN
    canvas = _canvas(width + width % 2, height + height % 2)
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, top - CAPTION // 2), title, BRIGHT, fonts[14], anchor="lm")
    note = _cut(note, fonts[14], right - 2 * MARGIN - fonts[14].getlength(title))
    draw.text((right, top - CAPTION // 2), note, BRIGHT, fonts[14], anchor="rm")
    x = MARGIN
    for panel, width in zip(panels, widths, strict=True):
        _draw_panel(canvas, draw, panel, (x, top), scale, fonts)
        x += width + MARGIN
    for i, (held, meaning) in enumerate(keys):
        colour = BRIGHT if i == marked else DIM
        y = top + CAPTION + i * KEY_LINE + KEY_LINE // 2
        draw.text((x + MARGIN, y), held, colour, fonts[13], anchor="lm")
        draw.text((x + 2 * MARGIN + columns[0], y), meaning, colour, fonts[13], anchor="lm")
    return np.asarray(canvas)


def token_colour(token: int) -> tuple[int, int, int]:
    """A colour for a token. Neighbouring indices differ, as their order means nothing."""
    hue = (
        token * 0.6180339887498949 % 1
    )  # the golden ratio spreads any run of indices over the circle
    lightness = 0.42 + 0.16 * (token * 0.7548776662466927 % 1)
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.55)
    return round(red * 255), round(green * 255), round(blue * 255)


def checked(frames: np.ndarray) -> np.ndarray:
    """The frames. Raises ValueError if they are not [T, H, W, 3] uint8."""
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.size == 0:
        raise ValueError(
            f"frames are {frames.dtype} of shape {frames.shape}; give uint8 [T, H, W, 3], T >= 1."
        )
    return frames


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _cut(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """A text, or as much of it as fits so many pixels."""
    kept = text[: int(width)]  # no letter is narrower than a pixel
    while kept and font.getlength(kept + "…" * (kept != text)) > width:
        kept = kept[:-1]
    return kept + "…" * (kept != text)


def _canvas(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), BACKGROUND)


def _enlarged(frame: np.ndarray, scale: int) -> Image.Image:
    return Image.fromarray(frame.repeat(scale, axis=0).repeat(scale, axis=1))


def _lines(number: int, width: int) -> list[np.ndarray]:
    """The tokens 0..number-1 on as few lines of cells as fit `width` pixels, evenly filled."""
    per_line = max(1, (width + GAP) // (CELL_WIDTH + GAP))
    return np.array_split(np.arange(number), -(-number // per_line)) if number else []


def _cells(number: int, width: int) -> tuple[list[int], list[int]]:
    """(left edges, widths) of `number` cells that fill `width` pixels exactly, GAP apart."""
    edges = np.linspace(0, width + GAP, number + 1).round().astype(int)
    return edges[:-1].tolist(), (np.diff(edges) - GAP).tolist()


def _draw_panel(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    panel: Panel,
    at: tuple[int, int],
    scale: int,
    fonts,
) -> None:
    x, y = at
    height, width = panel.frame.shape[0] * scale, panel.frame.shape[1] * scale
    draw.text((x, y + CAPTION // 2), panel.caption, BRIGHT, fonts[13], anchor="lm")
    draw.text((x + width, y + CAPTION // 2), panel.note, DIM, fonts[13], anchor="rm")
    canvas.paste(_enlarged(panel.frame, scale), (x, y + CAPTION))
    y += CAPTION + height
    for (name, value), left in zip(
        panel.values.items(), _cells(len(panel.values), width)[0], strict=True
    ):
        draw.text((x + left, y + 10), name, DIM, fonts[11], anchor="lm")
        draw.text((x + left, y + 25), value, BRIGHT, fonts[14], anchor="lm")
    _draw_tokens(draw, panel.tokens, (x, y + VALUE), width, fonts[11])


def _draw_tokens(
    draw: ImageDraw.ImageDraw, tokens: Sequence[int], at: tuple[int, int], width: int, font
) -> None:
    for i, line in enumerate(_lines(len(tokens), width)):
        top = at[1] + i * (CELL + GAP)
        for k, x, w in zip(line, *_cells(len(line), width), strict=True):
            _draw_token(
                draw, int(tokens[k]), (at[0] + x, top, at[0] + x + w - 1, top + CELL - 1), font
            )


def _draw_token(
    draw: ImageDraw.ImageDraw, token: int, box: tuple[int, int, int, int], font
) -> None:
    if token < 0:
        draw.rounded_rectangle(box, 4, EMPTY_CELL)
        return
    colour = token_colour(token)
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140  # luma of ITU-R BT.601
    draw.rounded_rectangle(box, 4, colour)
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    draw.text(middle, str(token), BACKGROUND if bright else BRIGHT, font, anchor="mm")
