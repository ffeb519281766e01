"""Catch: a falling ball and a paddle, the smallest game that needs its pixels.

Source: Osband et al., "Behaviour Suite for Reinforcement Learning" (bsuite), ICLR 2020
(arXiv:1908.03568), environment `catch`.
"""

from typing import Any

import gymnasium
import numpy as np

ROWS, COLUMNS = 10, 5
CELL_HEIGHT, CELL_WIDTH = 3, 6  # pixels
SIZE = 32  # pixels
TOP = (SIZE - ROWS * CELL_HEIGHT) // 2
LEFT = (SIZE - COLUMNS * CELL_WIDTH) // 2
BOARD = (40, 40, 40)
BALL = (255, 200, 0)
PADDLE = (0, 120, 255)


class CatchEnv(gymnasium.Env):
    """Be under the ball when it reaches the bottom of a 10 x 5 board.

    - observation: `[32, 32, 3]` uint8 in 0..255, cells 3 pixels high and 6 wide; where ball and
      paddle meet, the ball is drawn;
    - action: 0 left, 1 stay, 2 right; a move into a wall stays;
    - reward: at the last step +1 for a catch and -1 for a miss, 0 before;
    - the ball starts at the top of a random column and falls one row a step, the paddle starts at
      the bottom in the middle: an episode terminates after 9 steps, always.

    `ball` and `paddle` are read by tests and demonstrations: `(row, column)` and a column.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
    action_meanings = ("left", "stay", "right")

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(3)
        self.ball = (0, 0)
        self.paddle = COLUMNS // 2

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.ball = (0, int(self.np_random.integers(COLUMNS)))
        self.paddle = COLUMNS // 2
        return self._picture(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        row, column = self.ball
        self.ball = (row + 1, column)
        self.paddle = min(max(self.paddle + int(action) - 1, 0), COLUMNS - 1)
        terminated = self.ball[0] == ROWS - 1
        reward = 0.0
        if terminated:
            reward = 1.0 if self.paddle == column else -1.0
        return self._picture(), reward, terminated, False, {}

    def render(self) -> np.ndarray | None:
        """The observation 8 times as large, `[256, 256, 3]` uint8; None without a render mode."""
        if self.render_mode is None:
            return None
        return self._picture().repeat(8, axis=0).repeat(8, axis=1)

    def _picture(self) -> np.ndarray:
        picture = np.zeros((SIZE, SIZE, 3), np.uint8)
        picture[TOP : TOP + ROWS * CELL_HEIGHT, LEFT : LEFT + COLUMNS * CELL_WIDTH] = BOARD
        for (row, column), color in (((ROWS - 1, self.paddle), PADDLE), (self.ball, BALL)):
            y, x = TOP + row * CELL_HEIGHT, LEFT + column * CELL_WIDTH
            picture[y : y + CELL_HEIGHT, x : x + CELL_WIDTH] = color
        return picture
