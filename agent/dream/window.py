"""A window that shows pictures and hears the keyboard: pygame, as Gymnasium's own `play` does."""

from __future__ import annotations

import os
import sys

import numpy as np

from envs.errors import BadInput

FILM_INSTEAD = "for a film without one give run=<a run>, by=agent and video=<a file .mp4 or .gif>"


class Window:
    """Opens with its first picture, and closes at the end of a `with` block.

    Raises:
        BadInput: pygame is not installed, or there is no screen.
    """

    def __init__(self, title: str) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            import pygame
        except ImportError as error:
            raise BadInput(
                "A window needs pygame, which is not installed; run `pip install -e '.[play]'`, or "
                f"{FILM_INSTEAD}."
            ) from error
        self._pygame = pygame
        self._title = title
        self._held: list[str] = []  # in the order in which they were pressed
        self._tapped: list[str] = []  # pressed and released since `pressed` was last asked
        self._new: set[str] = set()  # pressed since then
        try:
            if not sees_a_screen():
                raise pygame.error("no display")
            pygame.display.init()
        except pygame.error as error:
            raise BadInput(
                f"There is no screen to open a window on ({error}); {FILM_INSTEAD}."
            ) from error
        self._clock = pygame.time.Clock()

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *error: object) -> None:
        self._pygame.display.quit()

    def show(self, picture: np.ndarray, fps: float) -> bool:
        """Show [h, w, 3] uint8, 1 / fps seconds after the picture before.

        The first picture's size is the window's.

        Returns:
            False once a person wants to leave.
        """
        pygame = self._pygame
        screen = pygame.display.get_surface()
        if screen is None:
            screen = pygame.display.set_mode((picture.shape[1], picture.shape[0]))
            pygame.display.set_caption(self._title)
        pygame.surfarray.blit_array(screen, picture.swapaxes(0, 1))
        pygame.display.flip()
        self._clock.tick(fps)
        return all([self._hear(event) for event in pygame.event.get()])  # noqa: C419 (hear all)

    def pressed(self) -> list[str]:
        """The keys held, and those tapped since the last call, each in the order of pressing."""
        keys = [*self._held, *(key for key in self._tapped if key not in self._held)]
        self._tapped, self._new = [], set()
        return keys

    def _hear(self, event) -> bool:
        """Remember what an event says of keys; False if it ends the game."""
        pygame = self._pygame
        if event.type == pygame.KEYDOWN:
            self._held.append(pygame.key.name(event.key))
            self._new.add(self._held[-1])
        elif event.type == pygame.KEYUP:
            key = pygame.key.name(event.key)
            self._held = [other for other in self._held if other != key]
            if key in self._new:  # too short for a step to notice
                self._tapped.append(key)
        elif event.type == pygame.WINDOWFOCUSLOST:  # what is released elsewhere is not heard
            self._held, self._tapped = [], []
        return event.type != pygame.QUIT and not (
            event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE
        )


def sees_a_screen() -> bool:
    """Whether SDL has a screen; without one it draws where nobody sees it."""
    variables = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "SDL_VIDEO_DRIVER")
    return not sys.platform.startswith("linux") or any(os.environ.get(name) for name in variables)
