"""Pictures: pixels where they belong."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from agent.media.pictures import (
    BACKGROUND,
    CAPTION,
    GAP,
    MARGIN,
    VALUE,
    Panel,
    fitted,
    scene,
    shown,
    side_by_side,
    strip,
    token_colour,
)  # fmt: skip


def random_frames(number: int, height: int = 64, width: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (number, height, width, 3), dtype=np.uint8)


def enlarged(frame: np.ndarray, scale: int) -> np.ndarray:
    return np.kron(frame, np.ones((scale, scale, 1), np.uint8))


def test_strip_places_every_pixel() -> None:
    rows = [random_frames(5), random_frames(3, seed=1)]
    picture = strip(rows, ["reality", "a much longer label"], scale=2)
    assert picture.dtype == np.uint8
    assert picture.shape[0] == 2 * MARGIN + 2 * 128 + GAP
    left = picture.shape[1] - MARGIN - 5 * 128 - 4 * GAP
    assert left > 2 * MARGIN + 100  # room for the longest label
    for i, row in enumerate(rows):
        for t, frame in enumerate(row):
            y, x = MARGIN + i * (128 + GAP), left + t * (128 + GAP)
            assert np.array_equal(picture[y : y + 128, x : x + 128], enlarged(frame, 2))
    assert (
        picture[MARGIN + 128 + GAP :, left + 3 * (128 + GAP) :] == BACKGROUND
    ).all()  # the shorter row's rest
    assert (picture[:, :left] != BACKGROUND).any() and (picture[:, :MARGIN] == BACKGROUND).all()


def test_strip_without_labels_and_with_wrong_ones() -> None:
    picture = strip([random_frames(2)], [""], scale=1)
    assert picture.shape == (64 + 2 * MARGIN, 2 * 64 + GAP + 2 * MARGIN, 3)
    for rows, labels in [
        ([random_frames(2)], []),
        ([random_frames(2), random_frames(2, 32)], ["a", "b"]),
        ([random_frames(2).astype(np.float32)], ["a"]),
        ([random_frames(2).transpose(0, 3, 1, 2)], ["a"]),
        ([random_frames(0)], ["a"]),
    ]:
        with pytest.raises(ValueError, match="give"):
            strip(rows, labels)


@pytest.mark.parametrize(
    ("size", "scale", "number"),
    [
        ((64, 64), 4, None),
        ((64, 64), 4, 4),
        ((64, 64), 4, 16),
        ((33, 47), 3, 5),
        ((84, 84), 1, 1),
        ((64, 64), 4, 0),
    ],
)
def test_side_by_side(size: tuple[int, int], scale: int, number: int | None) -> None:
    top, bottom = random_frames(3, *size), random_frames(3, *size, seed=1)
    tokens = None if number is None else np.random.default_rng(2).integers(0, 1024, (3, number))
    film = side_by_side(top, bottom, tokens=tokens, scale=scale)
    height, width = size[0] * scale, size[1] * scale
    assert film.dtype == np.uint8 and film.shape[0] == 3
    assert film.shape[1] % 2 == film.shape[2] % 2 == 0
    y = MARGIN // 2 + CAPTION
    # A row of background at the very bottom makes an odd height even.
    padding = int((film[:, -MARGIN - 1, MARGIN : MARGIN + width] == BACKGROUND).all())
    bottom_y = film.shape[1] - MARGIN - height - padding
    for t in range(3):
        assert np.array_equal(
            film[t, y : y + height, MARGIN : MARGIN + width], enlarged(top[t], scale)
        )
        second = film[t, bottom_y : bottom_y + height, MARGIN : MARGIN + width]
        assert np.array_equal(second, enlarged(bottom[t], scale))
        between = film[t, y + height : bottom_y - CAPTION]
        for token in () if tokens is None else tokens[t]:
            assert (between == token_colour(int(token))).all(-1).any()
    assert not np.array_equal(film[0, :y, MARGIN:], film[1, :y, MARGIN:])  # the step is counted


def test_negative_tokens_are_empty_cells() -> None:
    frames = random_frames(2)
    film = side_by_side(frames, frames, tokens=np.array([[-1, -1], [3, 700]]))
    between = film[:, MARGIN // 2 + CAPTION + 256 : -MARGIN - 256 - CAPTION]
    assert len(np.unique(between[0].reshape(-1, 3), axis=0)) < len(
        np.unique(between[1].reshape(-1, 3), axis=0)
    )
    for token in (3, 700):
        assert not (between[0] == token_colour(token)).all(-1).any()


def test_side_by_side_refuses_films_that_differ() -> None:
    for bottom, tokens in [
        (random_frames(3), None),
        (random_frames(2, 32), None),
        (random_frames(2), np.zeros((1, 4))),
    ]:
        with pytest.raises(ValueError, match="differ"):
            side_by_side(random_frames(2), bottom, tokens=tokens)


def test_a_long_note_is_cut() -> None:
    """The title beside it can be read."""
    panels = [Panel(random_frames(1)[0], "reality", "", {"reward": "+1.00"})]
    short, long = (
        scene(panels, "step 3", note, scale=4)[: MARGIN // 2 + CAPTION]
        for note in ("", "0: +0.5, " * 2000)
    )
    assert (
        short.shape == long.shape
        and np.array_equal(short[:, :50], long[:, :50])
        and (long[:, -50:] != BACKGROUND).any()
    )


def test_scene_places_every_pixel() -> None:
    frames = random_frames(2, 20, 64)
    real = Panel(frames[0], "reality", "", {"reward": "1"})
    panels = [real, Panel(frames[1], "dream", "2 steps", {"end": "0"}, [3, -1])]
    keys = [("left", "go left"), ("space", "fire"), *[("x", "more")] * 10]
    plain = scene(panels, "step 3", "left", scale=2)
    first, second = (scene(panels, "step 3", "left", keys, marked, scale=2) for marked in (0, 1))
    y, beside = MARGIN // 2 + 2 * CAPTION, 2 * MARGIN + 128
    for picture in (plain, first):
        assert picture.dtype == np.uint8 and picture.shape[0] % 2 == picture.shape[1] % 2 == 0
        for x, frame in ((MARGIN, frames[0]), (beside, frames[1])):
            assert np.array_equal(picture[y : y + 40, x : x + 128], enlarged(frame, 2))
        below = picture[y + 40 + VALUE :]
        assert (below[:, beside : beside + 128] == token_colour(3)).all(-1).any()
        assert (below[:, :beside] == BACKGROUND).all()
    assert plain.shape[1] == beside + 128 + MARGIN
    # The list is as high as it needs to be, and of two lists only the bright lines differ.
    assert (
        first.shape == second.shape
        and first.shape[0] > plain.shape[0]
        and first.shape[1] > plain.shape[1] + 80
    )
    rows = np.flatnonzero((first != second).any((1, 2)))
    assert len(rows) and rows.min() >= y and rows.max() < y + 40
    assert (first[:, : plain.shape[1]] == second[:, : plain.shape[1]]).all()


def test_token_colours_differ() -> None:
    colours = {token_colour(token) for token in range(1024)}
    assert len(colours) > 1000
    assert (
        min(min(colour) for colour in colours) > 30 and max(max(colour) for colour in colours) < 220
    )


class Moody(gymnasium.Env):
    """Its pictures change their size, and some of them cannot be had."""

    render_mode = "rgb_array"
    pictures = [
        np.full((8, 6, 3), 1, np.uint8),
        np.full((4, 6, 3), 2, np.uint8),
        None,
        ValueError(),
    ]

    def render(self):
        picture, *self.pictures = self.pictures
        if isinstance(picture, Exception):
            raise picture
        return picture


def test_pictures_of_a_renderer_that_cannot_be_relied_on():
    env, observation = Moody(), np.full((3, 3, 3), 9, np.uint8)
    pictures = [fitted(shown(env, observation), 8, 6) for _ in range(4)]
    assert [picture.shape for picture in pictures] == [(8, 6, 3)] * 4
    assert [int(picture.mean()) for picture in pictures] == [1, 2, 9, 9]
