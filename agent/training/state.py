"""Where a run stands within an epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agent.data.collect import Episode, to_json
from agent.training.components import PARTS

STAGES = ("collect", *PARTS, "evaluate")


@dataclass
class RunState:
    """Where a run stands within an epoch.

    Attributes:
        stage: One of STAGES: under way, or next.
        done: Of it: environment steps, or updates.
        metrics: Of the epoch's stages that are over.
        episodes: That ended since the epoch began to collect.
        restarts: Of environments that failed since then.
        averages: Of the part that is learning (`Averages.state_dict`).
    """

    stage: str = STAGES[0]
    done: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    episodes: list[Episode] = field(default_factory=list)
    restarts: int = 0
    averages: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return vars(self) | {"episodes": [to_json(episode) for episode in self.episodes]}

    @classmethod
    def of(cls, state: dict[str, Any]) -> RunState:
        """The inverse of `state_dict`."""
        episodes = [Episode(**fields) for fields in state["episodes"]]
        return cls(**state | {"episodes": episodes})
