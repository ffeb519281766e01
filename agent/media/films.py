"""Films: frames [T, H, W, 3] uint8 in 0..255 as MP4 and GIF."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from PIL import Image

from agent.storage import files
from envs.errors import BadInput

FORMATS = (".mp4", ".gif")


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float = 15) -> None:
    """Write frames [H, W, 3] uint8 as .mp4 (H.264, plays in every browser) or looping .gif.

    An MP4 is encoded as its frames come, and has even sizes: an odd one gets a black row or column.
    A GIF shows a frame for a multiple of 10 ms; equal frames in a row become one that stays longer.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise BadInput(f"{path} was given for a film; give a name that ends in .mp4 or .gif.")
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, gif(frames, fps) if path.suffix == ".gif" else mp4(frames, fps))


def mp4(frames: Iterable[np.ndarray], fps: float) -> bytes:
    """The bytes of an MP4 whose index comes first, so that a browser plays while it loads."""
    return imageio.imwrite(  # type: ignore[call-overload]  # it takes an iterator, too
        "<bytes>",
        frames,
        plugin="FFMPEG",
        extension=".mp4",
        is_batch=True,
        fps=fps,
        codec="libx264",
        quality=8,
        macro_block_size=1,
        output_params=["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-movflags", "+faststart"],
        ffmpeg_log_level="error",
    )


def gif(frames: Iterable[np.ndarray], fps: float) -> bytes:
    """The bytes of a looping GIF."""
    first, *rest = map(Image.fromarray, frames)
    buffer = io.BytesIO()
    duration = max(20, round(100 / fps) * 10)  # ms; below 20 browsers fall back to 100
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=duration, loop=0)
    return buffer.getvalue()
