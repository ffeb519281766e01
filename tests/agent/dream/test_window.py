"""The window, on SDL's screen that nobody sees, with events as a keyboard posts them."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from agent.dream.window import PlayerWindow
from envs.errors import BadInput

PICTURE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


@pytest.fixture
def window(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    window = PlayerWindow("test")
    assert window.show(PICTURE, 240)
    yield window
    window.close()


def keys_after(window: PlayerWindow, *events: str) -> list[str] | None:
    """The keys after a picture during which some are pressed (+) or released (−)."""
    import pygame

    for event in events:
        kind = pygame.KEYDOWN if event[0] == "+" else pygame.KEYUP
        pygame.event.post(pygame.event.Event(kind, key=pygame.key.key_code(event[1:])))
    return window.keys if window.show(PICTURE, 240) else None


def test_it_shows_the_picture(window: PlayerWindow):
    import pygame

    shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    assert np.array_equal(shown, PICTURE)


def test_keys_that_are_held_and_tapped(window: PlayerWindow):
    assert keys_after(window, "+space", "+left") == ["space", "left"]
    assert keys_after(window) == ["space", "left"]
    assert keys_after(window, "-space") == ["left"]  # it had its steps
    assert keys_after(window, "+space") == ["left", "space"]  # in the order of pressing
    assert keys_after(window, "-left", "+t", "-t") == ["space", "t"]
    assert keys_after(window) == ["space"]
    assert keys_after(window, "+d", "-d", "+d") == ["space", "d"]
    assert keys_after(window, "+escape") is None


def test_no_screen(monkeypatch):
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(BadInput, match="no screen.*video="):
        PlayerWindow("test")


def test_no_pygame(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(BadInput, match=r"pip install -e '.\[play\]'.*video="):
        PlayerWindow("test")
