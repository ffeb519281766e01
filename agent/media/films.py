"""Films: frames as MP4 and GIF.

Frames are NumPy arrays [T, H, W, 3] uint8 in 0..255, T images from first to last.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
from PIL import Image

from agent.media.pictures import checked
from agent.storage import files
from envs.errors import BadInput

FORMATS = (".mp4", ".gif")
logging.getLogger("imageio_ffmpeg").setLevel(
    logging.ERROR
)  # what it warns of on a full disk is told by an error of ours


def write_video(path: Path, frames: np.ndarray | Iterable[np.ndarray], fps: float = 15) -> None:
    """Write frames [T, H, W, 3] uint8 as .mp4 (H.264, plays in every browser) or looping .gif.

    An MP4 can also take an iterator of frames [H, W, 3], written as they come. It needs even sizes:
    an odd one gets its last row or column twice. A GIF shows a frame for a multiple of 10 ms, and
    equal frames in a row become one that stays longer.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise BadInput(
            f"{path} does not end in .mp4 or .gif; choose one of these two formats by the file's "
            "name."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        files.write(path, gif(np.stack(list(frames)), fps))
        return
    frames = checked(frames) if isinstance(frames, np.ndarray) else frames
    beside = path.with_name(f".writing-{path.name}")
    # faststart puts the index first, so that a browser plays while it loads.
    writer = imageio.get_writer(
        beside,
        format="FFMPEG",
        fps=fps,
        codec="libx264",
        pixelformat="yuv420p",
        quality=8,
        macro_block_size=1,
        output_params=["-movflags", "+faststart"],
        ffmpeg_log_level="quiet",
    )
    try:
        for frame in frames:
            padded = np.pad(
                frame, ((0, len(frame) % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge"
            )
            with _failing_as(path):
                writer.append_data(padded)
        with _failing_as(path):
            writer.close()
            if not is_whole_mp4(beside):
                raise OSError
        os.replace(beside, path)
    finally:
        with contextlib.suppress(OSError):
            writer.close()
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def _failing_as(path: Path) -> Iterator[None]:
    """ffmpeg does not say why it could not write: report a full disk where the disk is full."""
    try:
        yield
    except OSError as error:
        files.check_room(path)
        raise OSError(errno.EIO, "ffmpeg could not write it", str(path)) from error


def is_whole_mp4(path: Path) -> bool:
    """Whether the boxes of an MP4 fill the file, and one of them is the index."""
    names, size = [], path.stat().st_size if path.exists() else 0
    at = 0
    with open(path, "rb") if size else io.BytesIO() as file:
        while at + 8 <= size:
            file.seek(at)
            length, name = struct.unpack(">I4s", file.read(8))
            if length == 1:  # then it is a long one
                length = int.from_bytes(file.read(8), "big")
            if length < 8:
                return False
            names.append(name)
            at += length
    return at == size and b"moov" in names


def gif(frames: np.ndarray, fps: float) -> bytes:
    """The bytes of a looping GIF of frames [T, H, W, 3] uint8, in one palette of 256 colours."""
    frames = checked(frames)
    # One palette for all, from up to 24 frames: one per frame would flicker. A colour counts by
    # the square root of its pixels, or a large meadow takes the palette and the player turns grey.
    chosen = frames[np.linspace(0, len(frames) - 1, min(24, len(frames))).round().astype(int)]
    packed, pixels = np.unique(
        chosen.reshape(-1, 3) @ np.array([1 << 16, 1 << 8, 1]), return_counts=True
    )
    colours = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1).astype(np.uint8)
    sample = Image.fromarray(colours.repeat(np.sqrt(pixels).astype(int), axis=0)[None])
    palette = sample.quantize(256, Image.Quantize.FASTOCTREE)
    images = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]
    buffer = io.BytesIO()
    duration = max(20, round(100 / fps) * 10)  # below 20 ms browsers fall back to 100
    images[0].save(
        buffer, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0
    )
    return buffer.getvalue()
