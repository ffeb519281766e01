"""Whether a failed environment stops the run, which says so, or is made anew."""

import traceback

from envs.config import EnvConfig
from envs.errors import BadInput, EnvironmentFailed, describe
from envs.workers import Failure

WITHIN = 1000  # steps of an environment, within which env.max_restarts are accepted


class Restarts:
    """Counts the restarts of an environment. name: of it, for people."""

    def __init__(self, config: EnvConfig, name: str) -> None:
        self._config, self._name = config, name
        self._at: list[int] = []  # the numbers of steps taken before

    def accept(self, error: BaseException, where: str, steps: int) -> str:
        """One more, by an error in its `steps`-th step -> a sentence about it.

        Raises:
            EnvironmentFailed: it is not to be restarted, or was too often.
            BadInput: the same, of an environment that is not what it declares.
        """
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
            remedy = "correct it, or have it restarted by env.on_error=restart"
            raise EnvironmentFailed(what, remedy, trace) from error
        self._at = [at for at in self._at if steps - at < WITHIN]
        if len(self._at) == most:
            what += f", after {most} restarts within {WITHIN} steps (env.max_restarts={most})"
            raise EnvironmentFailed(what, "correct it", trace) from error
        self._at.append(steps)
        return f"{what}; it is restarted."
