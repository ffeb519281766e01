"""What happens when an environment fails: the run stops and says so, or it is made anew."""

import gc
import signal
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import gymnasium
import numpy as np

from envs.errors import BadInput, EnvironmentFailed
from envs.rendering import remedy

WITHIN = 1000  # of an environment's steps, so many restarts are accepted


@dataclass(frozen=True)
class Conduct:
    """What an environment may do: see EnvConfig for on_error, timeout and max_restarts.

    Attributes:
        name: of the environment, for people.
        max_steps: after which an episode is truncated; None: no limit but the environment's own.
    """

    name: str
    on_error: str
    timeout: float
    max_restarts: int
    max_steps: int | None = None


class Restarted(Exception):
    """The environment failed, and a new one has taken its place, which has not been reset.

    Its message tells of it. seen: the last observation before; None: there was none.
    """

    def __init__(self, message: str, seen: np.ndarray | None) -> None:
        super().__init__(message)
        self.seen = seen


class Restarts:
    """Counts restarts: `conduct.max_restarts` are accepted within any WITHIN environment steps.

    Attributes:
        steps: taken so far; the caller counts them.
    """

    def __init__(self, conduct: Conduct) -> None:
        self.conduct, self.steps = conduct, 0
        self._at: deque[int] = deque()

    def accept(self, what: str, trace: str = "") -> str:
        """One more -> a sentence about it. what: "failed at step 3: …"

        Raises:
            EnvironmentFailed: it is not to be restarted, or was too often.
        """
        conduct, named = self.conduct, f"The environment {self.conduct.name} {what}"
        if conduct.on_error == "stop":
            raise EnvironmentFailed(
                named, "correct it, or have it restarted by env.on_error=restart", trace
            )
        while self._at and self.steps - self._at[0] >= WITHIN:
            self._at.popleft()
        if len(self._at) == conduct.max_restarts:
            raise EnvironmentFailed(
                f"{named}, after {len(self._at)} restarts within {WITHIN} steps, which is all that "
                f"env.max_restarts={conduct.max_restarts} accepts",
                "correct it",
                trace,
            )
        self._at.append(self.steps)
        return f"{named}; it is restarted."


class Guarded(gymnasium.Wrapper):
    """An environment that fails in one way: EnvironmentFailed, or Restarted if it was made anew.

    A failure is any exception, SystemExit, and KeyboardInterrupt in a process that Ctrl-C does not
    reach.

    Args:
        make: makes the environment, the first one and its replacements.
        conduct: what it may do.

    Raises:
        BadInput: as `make`; later where the environment is not what it declares (Frames) and may
            not be restarted.
    """

    def __init__(self, make: Callable[[], gymnasium.Env], conduct: Conduct) -> None:
        super().__init__(make())
        self._make, self._restarts, self._limit = make, Restarts(conduct), conduct.max_steps
        self._spaces = self.env.observation_space, self.env.action_space
        self._episode, self._step = 0, 0
        self._seen: np.ndarray | None = None
        self._is_anew = False
        self._plain: set[bool] = set()  # whether first frames of episodes were of a single colour

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self._episode, self._step = self._episode + 1, 0
        try:
            observation, info = self.env.reset(seed=seed, options=options)
            self._check_shows(observation)
        except BaseException as error:
            self._failed(error, f"in the reset that begins its episode {self._episode}")
        self._seen = observation.copy()  # the environment's own array may change
        return observation, info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._step += 1
        self._restarts.steps += 1
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except BaseException as error:
            self._failed(error, f"at step {self._step} of its episode {self._episode}")
        self._seen = observation.copy()
        return observation, reward, terminated, truncated or self._step == self._limit, info

    def close(self) -> None:
        """Of an environment that fails in this, too, nothing more is wanted."""
        with suppress(Exception, SystemExit):
            self.env.close()

    def _check_shows(self, frame: np.ndarray) -> None:
        """A renderer may break when another is closed: it shows black, and raises nothing."""
        is_plain = bool((frame == frame[0, 0]).all())
        if is_plain and self._is_anew and self._plain == {False}:
            raise RuntimeError(
                "made anew it shows a single colour, which it did not before "
                "(env.parallel=true gives it a process of its own)"
            )
        self._plain.add(is_plain)

    def _failed(self, error: BaseException, where: str) -> NoReturn:
        told = self._accept(error, where)
        self.close()
        self.env = None  # all of it is gone, what it drew with too, before another draws
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        while True:
            try:
                env = self._make()
                break
            except BaseException as again:
                told = self._accept(again, "when it was made anew")
        if (env.observation_space, env.action_space) != self._spaces:
            env.close()
            raise EnvironmentFailed(
                f"{told.removesuffix('.')}, but made anew it has other spaces, "
                f"{env.observation_space} and {env.action_space}",
                "correct it",
            ) from error
        self.env, self._is_anew = env, True
        raise Restarted(told, self._seen) from error

    def _accept(self, error: BaseException, where: str) -> str:
        if not is_failure(error):
            raise error
        if not isinstance(error, BadInput):
            return self._restarts.accept(
                f"failed {where}: {describe(error)}", "".join(traceback.format_exception(error))
            )
        if self._restarts.conduct.on_error == "stop":  # it says all that there is to say
            raise error
        return self._restarts.accept(f"broke its word ({str(error).removesuffix('.')})")


def is_failure(error: BaseException) -> bool:
    """Whether an environment raised it, and not a person by Ctrl-C."""
    is_own = (
        isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    )
    return isinstance(error, Exception | SystemExit) or is_own


def describe(error: BaseException) -> str:
    """In a part of a sentence."""
    text = " ".join(str(error).split()).removesuffix(".")
    said = f": {text[:300]}" if text else ""
    return f"{type(error).__name__}{said}{remedy(error)}"
