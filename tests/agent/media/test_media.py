"""Films that others can read, and pictures with every pixel where it belongs."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from agent.media.films import write_video
from agent.media.pictures import (
    BACKGROUND,
    GAP,
    LINE,
    MARGIN,
    Panel,
    enlarged,
    scene,
    shown,
    strip,
    to_rgb,
    token_colour,
)
from envs.errors import BadInput


def random_frames(number: int, height: int = 64, width: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (number, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(64, 64), (63, 65)])
def test_an_mp4_is_readable_again(tmp_path: Path, size: tuple[int, int]):
    smooth = np.linspace(0, 250, 12).astype(np.uint8)[:, None, None, None]
    frames = np.broadcast_to(smooth, (12, *size, 3)).copy()
    path = tmp_path / "deep" / "film.mp4"
    write_video(path, iter(frames), fps=12)
    meta, back = imageio.immeta(path), imageio.imread(path)
    assert meta["fps"] == 12 and meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p")
    assert back.shape == (12, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert np.abs(back[:, : size[0], : size[1]].astype(int) - frames).max() < 8  # lossy


def test_a_gif_loops_and_keeps_its_colours(tmp_path: Path):
    """Few colours, as games have: they come back, the rare one too."""
    palette = np.random.default_rng(0).integers(0, 256, (40, 3), dtype=np.uint8)
    frames = palette[np.random.default_rng(1).integers(0, 39, (30, 64, 64))]
    frames[:, 10, 10] = palette[39]
    write_video(tmp_path / "film.gif", frames, fps=20)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 30 and film.info["loop"] == 0 and film.info["duration"] == 50
        for t in range(30):
            film.seek(t)
            assert np.abs(np.asarray(film.convert("RGB")).astype(int) - frames[t]).max() <= 4


def test_other_formats_are_refused(tmp_path: Path):
    with pytest.raises(BadInput, match=r"\.mp4 or \.gif"):
        write_video(tmp_path / "film.avi", random_frames(2))
    assert not list(tmp_path.iterdir())


def test_a_film_that_breaks_off_leaves_nothing(tmp_path: Path):
    with pytest.raises(ValueError):
        write_video(tmp_path / "film.mp4", [*random_frames(2), *random_frames(1, 32)])
    assert not list(tmp_path.iterdir())


def test_a_strip():
    """Of rows of different lengths."""
    rows = [random_frames(5), random_frames(3, seed=1)]
    picture = strip(rows, ["reality", "a much longer label"], scale=2)
    assert picture.dtype == np.uint8 and picture.shape[0] == 2 * MARGIN + 2 * 128 + GAP
    left = picture.shape[1] - MARGIN - 5 * 128 - 4 * GAP
    for i, row in enumerate(rows):
        for t, frame in enumerate(row):
            y, x = MARGIN + i * (128 + GAP), left + t * (128 + GAP)
            assert np.array_equal(picture[y : y + 128, x : x + 128], enlarged(frame, 2))
    assert (picture[MARGIN + 128 + GAP :, left + 3 * (128 + GAP) :] == BACKGROUND).all()
    assert (picture[:, :left] != BACKGROUND).any() and (picture[:, :MARGIN] == BACKGROUND).all()


def test_a_scene():
    """Frames beside one another; values and tokens below, empty cells for negative ones."""
    frames = random_frames(2, 20, 64)
    real = Panel(frames[0], "reality", "", {"reward": "1"})
    picture = scene(
        [real, Panel(frames[1], "dream", "2 ahead", {"reward": "0"}, [3, -1, 700, 3, 5])],
        "step 3",
        "left",
        scale=2,
    )
    y, second = 2 * LINE, 2 * MARGIN + 128
    for x, frame in ((MARGIN, frames[0]), (second, frames[1])):
        assert np.array_equal(picture[y : y + 40, x : x + 128], enlarged(frame, 2))
        assert (picture[y + 40 : y + 40 + LINE, x : x + 128] != BACKGROUND).any()
    below = picture[y + 40 + LINE :]
    for token in (3, 700, 5):
        assert (below[:, second:] == token_colour(token)).all(-1).any()
    assert (below[:, :second] == BACKGROUND).all()
    other = scene([real, real], "step 4", scale=2)
    assert not np.array_equal(picture[:LINE, :100], other[:LINE, :100])


def test_token_colours_differ():
    assert len({token_colour(token) for token in range(1024)}) > 1000


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_frames_as_people_see_them(channels: int):
    frames = np.zeros((4, 8, 8, channels), np.uint8)
    frames[0, 0, 0, -1] = 200
    picture = to_rgb(frames)
    assert picture.shape == (4, 8, 8, 3) and picture.dtype == np.uint8
    assert picture[0, 0, 0].max() == 200 and not picture[1:].any()


class Sometimes(gymnasium.Env):
    """Renders a picture, and then none."""

    render_mode = "rgb_array"
    pictures = iter([np.full((8, 6, 3), 1, np.uint8), None])

    def render(self):
        return next(self.pictures)


def test_without_a_rendered_picture_the_observation_is_shown():
    env, observation = Sometimes(), np.full((3, 3, 3), 9, np.uint8)
    assert [int(shown(env, observation).mean()) for _ in range(2)] == [1, 9]
