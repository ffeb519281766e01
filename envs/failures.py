"""What happens when an environment fails: the run stops and says so, or it is made anew."""

import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, SupportsFloat

import gymnasium
import numpy as np

from envs.config import EnvConfig
from envs.errors import BadInput, EnvironmentFailed, describe
from envs.workers import Failure, Remote

WITHIN = 1000  # steps of an environment, within which env.max_restarts are accepted


class Restarted(Exception):
    """The environment failed, and a new one, not reset yet, has taken its place.

    seen: the last observation before; None: there was none.
    """

    def __init__(self, message: str, seen: np.ndarray | None) -> None:
        super().__init__(message)
        self.seen = seen


class Guarded(gymnasium.Wrapper):
    """An environment whose failures stop the run (EnvironmentFailed), or restart it (Restarted).

    A failure is any exception, SystemExit, and what happens to a process of its own.

    Args:
        make: makes the environment, the first one and its replacements.
        config: says what is done (`on_error`, `max_restarts`).
        name: of the environment, for people.

    Raises:
        BadInput: the environment is not what it declares (Frames), and may not be restarted.
    """

    def __init__(self, make: Callable[[], gymnasium.Env], config: EnvConfig, name: str) -> None:
        super().__init__(make())
        self._make, self._config, self._name = make, config, name
        self._episode, self._step, self._steps = 0, 0, 0
        self._restarts: list[int] = []  # the numbers of steps taken before
        self._seen: np.ndarray | None = None

    def ask(self, command: str, data: Any = None) -> None:
        """Have an environment in a process begin what `reset` or `step` will wait for."""
        if isinstance(self.env, Remote):
            self.env.ask(command, data)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self._episode, self._step = self._episode + 1, 0
        try:
            observation, info = self.env.reset(seed=seed, options=options)
        except (Exception, SystemExit) as error:
            self._restart(error, f"in the reset that begins its episode {self._episode}")
        self._seen = observation.copy()  # the environment's own array may change
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        self._step, self._steps = self._step + 1, self._steps + 1
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except (Exception, SystemExit) as error:
            self._restart(error, f"at step {self._step} of its episode {self._episode}")
        self._seen = observation.copy()
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Of an environment that fails in this, too, nothing more is wanted."""
        with suppress(Exception, SystemExit):
            self.env.close()

    def _restart(self, error: BaseException, where: str) -> NoReturn:
        report = self._report(error, where)
        self.close()
        while True:
            try:
                self.env = self._make()
                break
            except (Exception, SystemExit) as again:
                report = self._report(again, "when it was made anew")
        raise Restarted(report, self._seen) from error

    def _report(self, error: BaseException, where: str) -> str:
        """A sentence about one more restart. Raises EnvironmentFailed if it is not accepted."""
        most = self._config.max_restarts
        if isinstance(error, Failure):
            why, trace = error.why, error.trace
        else:
            why, trace = describe(error), "".join(traceback.format_exception(error))
        what = f"The environment {self._name} failed {where}: {why}"
        if isinstance(error, BadInput):  # it says all that there is to say
            what = str(error).removesuffix(".")
        if self._config.on_error == "stop":
            if isinstance(error, BadInput):
                raise error
            raise EnvironmentFailed(
                what, "correct it, or have it restarted by env.on_error=restart", trace
            ) from error
        self._restarts = [at for at in self._restarts if self._steps - at < WITHIN]
        if len(self._restarts) == most:
            what += f", after {most} restarts within {WITHIN} steps (env.max_restarts={most})"
            raise EnvironmentFailed(what, "correct it", trace) from error
        self._restarts.append(self._steps)
        return f"{what}; it is restarted."
