"""Crafter under the Gymnasium API.

Source: Hafner, "Benchmarking the Spectrum of Agent Capabilities", ICLR 2022 (arXiv:2109.06780);
the game itself is the `crafter` package, unchanged.
"""

import collections
from typing import Any

import crafter
import gymnasium
import numpy as np

from envs.errors import BadInput

SIZE = 64  # pixels; the size of the paper's observation
CELLS = 9  # that are seen, along each side
RENDER_SIZE = 576  # pixels; 9 x 9 cells of 64


class CrafterEnv(gymnasium.Env):
    """Survive and unlock 22 achievements, seen from above.

    - observation: `[size, size, 3]` uint8 in 0..255, 9 × 9 cells of as many whole pixels as fit;
      the rest is black;
    - action: one of 17, in the order of `crafter.constants.actions`, which are `action_meanings`;
    - reward: +1 for each step that unlocks achievements not yet unlocked in this episode, and
      ±0.1 for each health point gained or lost;
    - terminated: the player's health is 0; truncated: it lives, and `length` steps are over;
    - `info["achievements"]`: how often each of the 22 was achieved in the running episode, by name.

    A seed given to `reset` decides everything that follows, in this process or another: the world,
    every creature, the noise of the night, and the seeds of the episodes after it.

    Args:
        length: steps until an episode is truncated.
        size: pixels of the observation's side; the paper's 64 leave a black row and column, 63
            none.
        render_mode: None, or "rgb_array": `render()` returns `[576, 576, 3]` uint8.

    Raises:
        BadInput: `length` is below 1, or `size` below 9.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, length: int = 10_000, size: int = SIZE, render_mode: str | None = None):
        if length < 1 or size < CELLS:
            raise BadInput(
                f"Crafter was given length={length} and size={size}; give a length of 1 step or "
                f"more (the paper's is 10000) and a size of {CELLS} pixels or more ({SIZE})."
            )
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_meanings = tuple(crafter.constants.actions)
        self.action_space = gymnasium.spaces.Discrete(len(self.action_meanings))
        self._game = _deterministic_game(length, size)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode in a new world; without a seed it continues from `np_random`."""
        super().reset(seed=seed, options=options)
        # The package derives a world from these two numbers.
        self._game._seed = int(self.np_random.integers(2**31 - 1))
        self._game._episode = 0
        observation = self._game.reset()
        return observation, {"achievements": self._game._player.achievements.copy()}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, done, info = self._game.step(action)
        terminated = info["discount"] == 0
        achievements = {"achievements": info["achievements"]}
        return observation, float(reward), terminated, done and not terminated, achievements

    def render(self) -> np.ndarray | None:
        """The present view, `[576, 576, 3]` uint8; None without `render_mode="rgb_array"`."""
        if self.render_mode is None:
            return None
        # Drawing at night draws noise from the world's own generator: put it back, so that an
        # episode that is watched is the same episode.
        random = self._game._world.random
        state = random.get_state()
        picture = self._game.render((RENDER_SIZE, RENDER_SIZE))
        random.set_state(state)
        return picture


def _deterministic_game(length: int, size: int) -> crafter.Env:
    """The package's game, made to depend on its seed alone, and without the map in its info."""
    game = crafter.Env(size=(size, size), length=length, seed=0)
    world = _OrderedWorld(game._world.area, crafter.constants.materials, game._world._chunk_size)
    game._world = game._local_view._world = world
    # A picture of the whole world at every step, which nothing here reads.
    game._sem_view = lambda: None
    return game


class _OrderedWorld(crafter.engine.World):
    """A world whose chunks keep their objects in the order in which these came.

    The package keeps them in sets, whose order follows memory addresses, and every tenth step it
    picks a creature of a chunk by its place in that order to remove it: the same seed and actions
    drift apart after a few hundred steps.
    """

    def reset(self, seed: int | None = None) -> None:
        super().reset(seed)
        self._chunks: Any = collections.defaultdict(_OrderedSet)


class _OrderedSet(dict):
    """The two methods of a set that the package calls, in order of insertion."""

    def add(self, item: Any) -> None:
        self[item] = None

    def remove(self, item: Any) -> None:
        del self[item]
