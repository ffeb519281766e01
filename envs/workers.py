"""An environment in a process of its own, which is never waited for for ever."""

import multiprocessing
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any

import gymnasium
import numpy as np
import psutil
from gymnasium.spaces import Space
from gymnasium.vector.utils import CloudpickleWrapper

from envs.errors import BadInput, describe
from envs.output import safe_output

START_SECONDS = 300.0  # that a process may take to import and make its environment, at least
CLOSE_SECONDS = 3.0  # for all environments together to close themselves
TERM_SECONDS = 30  # that a process goes on after Slurm's SIGTERM to all: its parent may save
UNGUARDED = 117  # exit code of a process whose import of the main module began everything again


class Failure(Exception):
    """An environment in a process failed. trace: its own traceback, if it raised an error."""

    def __init__(self, why: str, trace: str = "") -> None:
        super().__init__(why, trace)
        self.why, self.trace = why, trace


class Remote(gymnasium.Env):
    """An environment in a process, which ends with this one.

    `ask` begins a reset or a step, and `reset` or `step` waits for it; without it they do both.
    They raise Failure where the environment raised an error, gives no answer or is dead.

    Args:
        make: makes the environment there.
        spaces: its observation and action space.
        timeout: seconds that a reset or step may take.
    """

    def __init__(
        self, make: Callable[[], gymnasium.Env], spaces: tuple[Space, Space], timeout: float
    ) -> None:
        self.observation_space, self.action_space = spaces
        self._timeout, self._started = timeout, False
        self._asked, self._deadline = "", 0.0
        context: Any = multiprocessing.get_context(_start_method())
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=work, args=(CloudpickleWrapper(make), theirs), daemon=True
        )
        self.process.start()
        theirs.close()
        self._events = select.poll()  # multiprocessing's own `poll` makes one at each call
        self._events.register(self._pipe.fileno(), select.POLLIN)

    def ask(self, command: str, data: Any = None) -> None:
        """Begin a "reset" (data: the seed), a "step" (the action) or a "close"."""
        patience = self._timeout if self._started else max(START_SECONDS, self._timeout)
        self._patience = CLOSE_SECONDS if command == "close" else patience
        self._asked, self._deadline = command, monotonic() + self._patience
        with suppress(OSError):  # it is dead: who waits for the answer gets the error
            self._pipe.send((command, data))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Options are not passed on."""
        return self._answer("reset", seed)

    def step(self, action: Any) -> Any:
        return self._answer("step", action)

    def close(self) -> None:
        """End the process: at once, or in its own time where it was asked to close."""
        if self._asked == "close":
            self.process.join(max(0.0, self._deadline - monotonic()))
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.process.pid)
            for each in (*process.children(recursive=True), process):
                with suppress(psutil.NoSuchProcess):
                    each.kill()
        self.process.join(1)
        self._pipe.close()

    def _answer(self, command: str, data: Any) -> Any:
        if not self._asked:
            self.ask(command, data)
        self._asked = ""
        if not self._events.poll(max(0.0, 1000 * (self._deadline - monotonic()))):
            raise Failure(f"no answer for {self._patience:g} s (env.timeout={self._timeout:g})")
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None
        self._started = True
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _death(self) -> Exception:
        self.process.join(1)
        code = self.process.exitcode
        script = getattr(sys.modules["__main__"], "__file__", None)
        if script and code in (1, UNGUARDED) and not self._started:
            return BadInput(
                f"{os.path.basename(script)} is imported by each process that env.parallel=true "
                "starts, and would do everything again there; put what it does into a function "
                'main(), and end it with the two lines `if __name__ == "__main__":` and `    '
                "main()`."
            )
        if code is not None and code < 0:
            return Failure(f"its process died by the signal {signal.Signals(-code).name}")
        # 255 is what multiprocessing says where it cannot tell.
        return Failure(f"its process died{'' if code in (None, 255) else f', exit code {code}'}")


@safe_output()
def work(make: Callable[[], gymnasium.Env], pipe: Connection) -> None:
    """A process that holds an environment and does what its parent asks.

    Signals that are sent to a whole job are the parent's to follow; if the parent dies, this ends.
    """
    np.random.seed()  # forked, it would draw what the others draw, if the environment draws from it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(TERM_SECONDS))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    env: gymnasium.Env | None = None
    with suppress(EOFError, OSError):  # the parent is gone
        while True:
            command, data = pipe.recv()
            if command == "close":
                break
            answer: Any
            try:
                env = make() if env is None else env
                answer = env.reset(seed=data) if command == "reset" else env.step(data)
            except BadInput as error:
                answer = error
            except BaseException as error:
                answer = Failure(describe(error), "".join(traceback.format_exception(error)))
            pipe.send(answer)
    if env is not None:
        with suppress(Exception):
            env.close()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()  # type: ignore[union-attr]
    os._exit(1)


def _start_method() -> str:
    """Python's "forkserver": what takes long to import is imported once, for all processes."""
    is_script = hasattr(sys.modules["__main__"], "__file__")  # of a user, which each will import
    slow = ["torch"] if is_script and "torch" in sys.modules else []
    multiprocessing.set_forkserver_preload(["envs.make", *slow])
    return "forkserver"


def end_if_imported() -> None:
    """End a worker process that is importing an unguarded main module, which would run it again."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)
