"""The window, on SDL's screen that nobody sees, with events as a keyboard posts them."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from agent.dream.window import Window
from envs.errors import BadInput

PICTURE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
FAST = 240


@pytest.fixture
def window(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with Window("test") as window:
        assert window.show(PICTURE, FAST)
        yield window


def post(kind: str, key: str | None = None) -> None:
    import pygame

    values = {} if key is None else {"key": pygame.key.key_code(key)}
    pygame.event.post(pygame.event.Event(getattr(pygame, kind), values))


def test_it_shows_the_picture(window: Window):
    import pygame

    shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    assert np.array_equal(shown, PICTURE)


def test_keys_are_heard_while_they_are_held(window: Window):
    post("KEYDOWN", "space"), post("KEYDOWN", "left")
    assert window.show(PICTURE, FAST)
    assert window.pressed() == window.pressed() == ["space", "left"]
    post("KEYUP", "space")
    assert window.show(PICTURE, FAST)
    assert window.pressed() == ["left"]  # it had its steps
    post("KEYDOWN", "space")
    assert window.show(PICTURE, FAST)
    assert window.pressed() == ["left", "space"]  # in the order of pressing


def test_a_tap_between_two_steps_is_not_lost(window: Window):
    post("KEYDOWN", "t"), post("KEYUP", "t")
    assert window.show(PICTURE, FAST)
    assert window.pressed() == ["t"] and window.pressed() == []
    post("KEYDOWN", "t"), post("KEYUP", "t"), post("KEYDOWN", "t")  # and held now
    assert window.show(PICTURE, FAST)
    assert window.pressed() == window.pressed() == ["t"]


def test_keys_are_forgotten_where_another_window_hears_them(window: Window):
    post("KEYDOWN", "left"), post("WINDOWFOCUSLOST")
    assert window.show(PICTURE, FAST)
    assert window.pressed() == []


@pytest.mark.parametrize(("kind", "key"), [("KEYDOWN", "escape"), ("QUIT", None)])
def test_it_can_be_left(window: Window, kind: str, key: str | None):
    post(kind, key), post("KEYDOWN", "a")
    assert not window.show(PICTURE, FAST)


def test_no_screen(monkeypatch):
    for name in ("SDL_VIDEODRIVER", "SDL_VIDEO_DRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(BadInput, match="no screen.*video="):
        Window("test")
    monkeypatch.setenv("SDL_VIDEODRIVER", "no_such_driver")
    with pytest.raises(BadInput, match="no screen.*video="):
        Window("test")


def test_no_pygame(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(BadInput, match=r"pip install -e '.\[play\]'.*video="):
        Window("test")
