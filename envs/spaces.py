"""What an agent sees and does, in numbers: all that its networks need to know of an environment."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import gymnasium
from gymnasium.spaces import Box, MultiDiscrete

FEW = 8  # factors, which a person is shown one by one


@dataclass(frozen=True)
class Spaces:
    """Square frames and actions of one or more factors, as `make_single` makes of any spaces.

    Attributes:
        channels: of a frame, uint8 in 0..255.
        size: a frame's height and width.
        actions: the number of choices in each factor of an action. An action is an int64 array
            `[len(actions)]`; Discrete(n) has the one factor n.
    """

    channels: int
    size: int
    actions: tuple[int, ...]

    @classmethod
    def of(cls, env: gymnasium.Env) -> "Spaces":
        """Those of an environment with pictures `[H, H, C]` and MultiDiscrete actions."""
        frames, actions = cast(Box, env.observation_space), cast(MultiDiscrete, env.action_space)
        size, _, channels = frames.shape
        return cls(channels, size, tuple(map(int, actions.nvec)))

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(channels, height, width), as the networks have it."""
        return self.channels, self.size, self.size

    def __str__(self) -> str:
        text = f"frames {self.size}×{self.size}×{self.channels}, actions {times(self.actions)}"
        return text + f" ({len(self.actions)} factors)" * (len(self.actions) > FEW)


def times(counts: Sequence[int]) -> str:
    """The first few of many."""
    return " × ".join([*map(str, counts[:FEW]), *["…"] * (len(counts) > FEW)])
