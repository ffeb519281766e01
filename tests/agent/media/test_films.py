"""Films: files that others can read."""

from __future__ import annotations

from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
from PIL import Image

from agent.media.films import write_video
from envs.errors import BadInput


@pytest.mark.parametrize("size", [(64, 64), (63, 65), (30, 17), (210, 160)])
def test_mp4_is_readable_again(tmp_path: Path, size: tuple[int, int]) -> None:
    smooth = np.linspace(0, 250, 12).astype(np.uint8)[:, None, None, None]
    frames = np.broadcast_to(smooth, (12, *size, 3)).copy()
    write_video(tmp_path / "deep" / "film.mp4", frames, fps=12)
    with imageio.get_reader(tmp_path / "deep" / "film.mp4") as reader:
        meta, back = reader.get_meta_data(), np.stack([np.asarray(frame) for frame in reader])
    assert meta["fps"] == 12 and meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p")
    assert back.shape == (12, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert np.abs(back[:, : size[0], : size[1]].astype(int) - frames).max() < 8  # lossy


def test_gif_loops_and_keeps_its_colours(tmp_path: Path) -> None:
    """Few colours, as games have: they come back exactly, the rare one too."""
    palette = np.random.default_rng(0).integers(0, 256, (40, 3), dtype=np.uint8)
    frames = palette[np.random.default_rng(1).integers(0, 39, (30, 64, 64))]
    frames[:, 10, 10] = palette[39]
    write_video(tmp_path / "film.gif", frames, fps=20)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 30 and film.info["loop"] == 0 and film.info["duration"] == 50
        for t in range(30):
            film.seek(t)
            assert np.abs(np.asarray(film.convert("RGB")).astype(int) - frames[t]).max() <= 4


def test_gif_merges_equal_frames_into_a_longer_one(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)[[0, 0, 0, 1]]
    write_video(tmp_path / "film.gif", frames, fps=10)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 2 and film.info["duration"] == 300


def test_other_formats_are_refused(tmp_path: Path) -> None:
    for name in ("film.avi", "film"):
        with pytest.raises(BadInput, match=r"\.mp4 or \.gif"):
            write_video(tmp_path / name, np.zeros((2, 64, 64, 3), np.uint8))
    assert not list(tmp_path.iterdir())
