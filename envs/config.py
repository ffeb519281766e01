"""Which environment is played, and how."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from envs.errors import BadInput
from envs.settings import COUNT, POSITIVE, Range, setting

BINS = 5  # on CarRacing more of them bring nothing (docs/actions.md)
ON_ERROR = ("stop", "restart")


@dataclass
class EnvConfig:
    """Which environment is played, and how.

    Attributes:
        id: Its name at Gymnasium; "module:id" imports a module first. If that does not register
            it, the module's `register_envs()` is called, where there is one.
        game: The constructor's `game`, for an id that stands for many (Atari).
        kwargs: Further arguments of its constructor, and of gymnasium.make (max_episode_steps).
            A text that reads as a tuple of Python, (128, 64), is given as that tuple.
        evaluation_kwargs: Those of them that are different in evaluation.
        pixels: What the agent sees: observation (its image), render (the rendered picture), or
            auto: the observation's image if it has one, else the rendered picture.
        image: Key of the image in an observation of several parts.
        range: [least, most] value of the image, where its space declares more than it uses, or no
            bounds; null: as declared.
        layout: The axes of the image in order, a letter each: h and w for height and width, c for
            channels, s for a stack; null: by its shape (envs/images.py).
        size: Of the frames' sides in pixels; null: by the image's (envs/images.py).
        bins: Values for each dimension of a continuous action.
        parallel: A process for each environment; else all are in this process.
        on_error: What happens when the environment fails: stop the run, or restart the environment
            and go on, its episode truncated (docs/reliability.md).
        timeout: Seconds that a step or reset of an environment with a process of its own may take.
        max_restarts: Of an environment within 1,000 of its steps; one more stops the run.
    """

    id: str = "deltadream/Crafter-v1"
    game: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    evaluation_kwargs: dict[str, Any] = field(default_factory=dict)
    pixels: str = "auto"
    image: str | None = None
    range: list[float] | None = None
    layout: str | None = None
    size: int | None = setting(None, Range(16, 1024, "16 to 1024"))
    bins: int = setting(BINS, Range(2, 255, "2 to 255"))
    parallel: bool = False
    on_error: str = "stop"
    timeout: float = setting(120.0, POSITIVE)
    max_restarts: int = setting(10, COUNT)

    def __post_init__(self) -> None:
        if not self.id:
            raise BadInput(
                "env.id has no value; give one, as in env.id=CartPole-v1 or "
                "env.id=my_module:MyEnv-v0."
            )
        if self.on_error not in ON_ERROR:
            raise BadInput(
                f"env.on_error={self.on_error} was given; choose one of {', '.join(ON_ERROR)}."
            )

    @property
    def name(self) -> str:
        """For people: the game where there is one, the id otherwise."""
        return f"{self.game} ({self.id})" if self.game else self.id

    def for_evaluation(self, parallel: bool | None = None) -> EnvConfig:
        """The environment in which a policy is evaluated; `parallel` None: as in training."""
        return replace(
            self,
            kwargs=self.kwargs | self.evaluation_kwargs,
            evaluation_kwargs={},
            parallel=self.parallel if parallel is None else parallel,
        )
