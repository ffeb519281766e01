"""A window that shows pictures and hears the keyboard: pygame, as Gymnasium's own `play` does."""

from __future__ import annotations

import os
import sys

import numpy as np

from envs.errors import BadInput

FILM_INSTEAD = "for a film without one give by=agent and video=<a file .mp4 or .gif>"
SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")  # without one SDL draws unseen


class PlayerWindow:
    """Opens with its first picture; raises BadInput without pygame or a screen.

    Attributes:
        keys: Those held, and those tapped during the last picture, in the order of pressing.
    """

    def __init__(self, title: str) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            import pygame
        except ImportError as error:
            raise BadInput(
                f"A window needs pygame; run `pip install -e '.[play]'`, or {FILM_INSTEAD}."
            ) from error
        if sys.platform.startswith("linux") and not any(map(os.environ.get, SCREENS)):
            raise BadInput(f"There is no screen to open a window on; {FILM_INSTEAD}.")
        pygame.display.init()
        pygame.display.set_caption(title)
        self._pygame, self._clock = pygame, pygame.time.Clock()
        self.keys: list[str] = []
        self._held: list[str] = []

    def show(self, picture: np.ndarray, fps: float) -> bool:
        """Show [h, w, 3] uint8 for 1 / fps seconds; False once Escape or the window closes it."""
        pygame = self._pygame
        screen = pygame.display.get_surface() or pygame.display.set_mode(picture.shape[1::-1])
        pygame.surfarray.blit_array(screen, picture.swapaxes(0, 1))
        pygame.display.flip()
        self._clock.tick(fps)
        pressed, left = [], False
        for event in pygame.event.get():
            key = pygame.key.name(event.key) if hasattr(event, "key") else ""
            left |= event.type == pygame.QUIT or key == "escape"
            if event.type == pygame.KEYDOWN:
                pressed.append(key)
                self._held.append(key)
            elif event.type == pygame.KEYUP and key in self._held:
                self._held.remove(key)
        self.keys = [*self._held, *(key for key in pressed if key not in self._held)]
        return not left

    def close(self) -> None:
        self._pygame.display.quit()
