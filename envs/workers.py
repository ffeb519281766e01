"""Environments in processes of their own, none of which is waited for for ever."""

import multiprocessing
import os
import select
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.utils import CloudpickleWrapper, clear_mpi_env_vars, write_to_shared_memory

from envs.errors import EnvironmentFailed
from envs.failures import Conduct, Restarts, describe
from envs.output import safe_output
from envs.processes import check_guarded, death, end, is_alive

START_SECONDS = (
    300.0  # for a process's imports and its environment's constructor, where env.timeout is less
)
CLOSE_SECONDS = 3.0  # for all environments together to close themselves
TERM_SECONDS = 30  # that a process goes on after Slurm's SIGTERM to all: its parent may save


class Workers(AsyncVectorEnv):
    """Gymnasium's environments in processes, of SeededEpisodes, that notices if one hangs or dies.

    That counts as a failure of the environment (envs/failures.py): the running episode ends with
    the step before. If the conduct allows it, a new process goes on with the next episode. The
    others notice nothing.
    """

    def __init__(
        self,
        makers: Sequence[Callable[[], gymnasium.Env]],
        conducts: Sequence[Conduct],
        context: str | None,
    ) -> None:
        self._conducts = conducts
        self.seen: np.ndarray | None = None  # what was returned last
        try:
            super().__init__(
                makers,
                shared_memory=True,
                autoreset_mode=AutoresetMode.NEXT_STEP,
                context=context,
                worker=work,
            )
        except BaseException:
            self.close(terminate=True)
            raise

    def reset_wait(self, timeout: float | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.seen, info = super().reset_wait(timeout)
        return self.seen, info

    def step_wait(
        self, timeout: float | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        self.seen, *rest = super().step_wait(timeout)
        return self.seen, *rest

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """All processes are gone after CLOSE_SECONDS; at once with `terminate`."""
        processes, pipes = getattr(self, "processes", []), getattr(self, "parent_pipes", [])
        if not terminate:
            until = monotonic() + (CLOSE_SECONDS if timeout is None else timeout)
            for pipe in pipes:
                with suppress(OSError):
                    pipe.send(("close", None))
            for process in processes:
                process.join(max(0.0, until - monotonic()))
        for process in processes:
            end(process)
        for pipe in pipes:
            pipe.close()
        self.error_queue = None  # which nobody uses here: its semaphores have names in /dev/shm

    def start(self, index: int) -> Connection:
        """A new process for an environment. It sends observations by pipe, not shared memory."""
        context = multiprocessing.get_context(self.context)
        parent_pipe, child_pipe = context.Pipe()
        maker = CloudpickleWrapper(self.env_fns[index])
        arguments = (index, maker, child_pipe, parent_pipe, None, None, self.autoreset_mode)
        self.processes[index] = context.Process(target=work, args=arguments, daemon=True)
        with clear_mpi_env_vars():
            self.processes[index].start()
        child_pipe.close()
        return parent_pipe

    def _check_spaces(self) -> None:
        """The first that Gymnasium asks the processes."""
        self.parent_pipes = [
            Watched(self, i, pipe, self._conducts[i]) for i, pipe in enumerate(self.parent_pipes)
        ]
        super()._check_spaces()


class Lost(Exception):
    """A process gives no answer; the message says why."""


class Watched:
    """The parent's end of a worker's pipe, as Gymnasium uses it. It always answers or raises.

    Raises:
        EnvironmentFailed: the environment failed, hangs or is dead, and may not be restarted.
        BadInput: it is not what it declares, and may not be restarted.
    """

    def __init__(self, envs: Workers, index: int, pipe: Connection, conduct: Conduct) -> None:
        self._envs, self._index, self._pipe = envs, index, pipe
        self._conduct, self._restarts = conduct, Restarts(conduct)
        self._asked: tuple[str, Any] = ("", None)
        self._since, self._patience = 0.0, max(START_SECONDS, conduct.timeout)
        self._watch()
        self._episode, self._step, self._ended, self._is_due = (
            -1,
            0,
            False,
            False,
        )  # the next step is a reset, or after a reset
        self._untold: list[str] = []  # of its processes

    @property
    def closed(self) -> bool:
        return self._pipe.closed

    def close(self) -> None:
        self._pipe.close()

    def poll(self, timeout: float | None = 0.0) -> bool:
        return self._is_broken or self._pipe.poll(timeout)

    def send(self, message: tuple[str, Any]) -> None:
        self._asked, self._since = message, monotonic()
        if message[0] == "step" and self._is_broken:
            return
        with suppress(OSError):  # it is dead, which `recv` tells of
            self._pipe.send(message)

    def recv(self) -> tuple[Any, bool]:
        command, data = self._asked
        while not (command == "step" and self._is_broken):
            try:
                return self._noted(command, data, self._answer()), True
            except Lost as lost:
                if command == "_check_spaces":
                    check_guarded(self._envs.processes[self._index])
                self._replace(f"{lost} {self._where(command)}")
                self.send(self._asked)
        return self._broken(), True

    def _noted(self, command: str, data: Any, answer: Any) -> Any:
        """An answer, after what it says of where the environment stands."""
        if command == "_setattr" and data[0] == "resume_from" and data[1] is not None:
            began, episode, actions = data[1]
            self._episode, self._is_due = episode - 1, began > episode
            self._patience = self._conduct.timeout * (
                1 + len(actions)
            )  # the next reset plays them all
        elif command == "reset":
            answer = answer[0], self._begun(answer[1])
            self._ended, self._is_due = self._is_due, False
        elif command == "step" and self._ended:
            answer = *answer[:4], self._begun(answer[4])
        elif command == "step":
            self._step, self._restarts.steps = self._step + 1, self._restarts.steps + 1
            self._ended = answer[2] or answer[3]
        if command in ("reset", "step") and answer[0] is not None:
            self._envs.observations[self._index] = answer[0]
        return answer

    @property
    def _is_broken(self) -> bool:
        """Whether the next step has to end an episode whose environment is lost."""
        return bool(self._untold) and not self._ended

    def _begun(self, info: dict[str, Any]) -> dict[str, Any]:
        """After a reset. An episode that could not begin has a number too."""
        failures = [*self._untold, *info.get("failures", ())]
        self._episode += 1 + len(info.get("failures", ()))
        self._step, self._ended, self._untold = 0, False, []
        self._patience = self._conduct.timeout
        return info | {"failures": failures} if failures else info

    def _broken(self) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The step of a lost environment: the end of an episode, with the frame before."""
        failures, self._untold, self._ended = self._untold, [], True
        self._envs.observations[self._index] = self._envs.seen[self._index]
        return None, 0.0, False, True, {"failures": failures}

    def _watch(self) -> None:
        """Poll for an answer and the process's end; multiprocessing's `wait` is much slower."""
        self._events = select.poll()
        self._events.register(self._pipe.fileno(), select.POLLIN)
        self._events.register(self._envs.processes[self._index].sentinel, select.POLLIN)

    def _answer(self) -> Any:
        """Raises Lost, and what went wrong there."""
        process = self._envs.processes[self._index]
        while True:
            ready = self._events.poll(max(0.0, 1000 * (self._since + self._patience - monotonic())))
            if not ready:
                raise Lost(
                    f"gave no answer for {self._patience:g} s "
                    f"(env.timeout={self._conduct.timeout:g})"
                )
            if any(file == self._pipe.fileno() for file, _ in ready):
                try:
                    answer, is_well = self._pipe.recv()
                except (EOFError, OSError):
                    raise Lost(death(process)) from None
                if not is_well:
                    raise answer
                return answer
            if not is_alive(process):
                raise Lost(death(process))
            self._events.unregister(
                process.sentinel
            )  # only the server of processes is gone, which a signal to all can end

    def _replace(self, what: str) -> None:
        """Start a new process, whose next step begins the next episode; or EnvironmentFailed."""
        while True:
            told = self._restarts.accept(what)
            end(self._envs.processes[self._index])
            self._pipe.close()
            self._pipe = self._envs.start(self._index)
            self._watch()
            self._untold.append(told)
            self._patience = max(START_SECONDS, self._conduct.timeout)
            begun = max(self._episode, 0)
            try:
                for message in (
                    ("_setattr", ("resume_from", (begun + 1, begun, []))),
                    ("reset", {}),
                ):
                    self._since = monotonic()
                    with suppress(OSError):
                        self._pipe.send(message)
                    self._answer()
                break
            except Lost as lost:
                what = f"{lost} when it was made anew"
        self._patience, self._since = self._conduct.timeout, monotonic()

    def _where(self, command: str) -> str:
        if command == "step" and not self._ended:
            return f"at step {self._step + 1} of its episode {self._episode + 1}"
        if command in ("reset", "step"):
            return f"in the reset that begins its episode {self._episode + 2}"
        return (
            f"after step {self._step} of its episode {self._episode + 1}"
            if self._episode >= 0
            else "at its start"
        )


@safe_output()
def work(
    index: int,
    maker: Callable[[], gymnasium.Env],
    pipe: Connection,
    parent_pipe: Connection,
    shared_memory: Any,
    error_queue: Any,
    autoreset_mode: AutoresetMode,
    *_: Any,
) -> None:
    """A process that holds an environment and does what its parent asks, as Gymnasium's own does.

    Signals that are sent to a whole job are the parent's to follow; if the parent dies, this ends.
    """
    parent_pipe.close()
    np.random.seed()  # forked, it would draw what the others draw, if the environment draws from it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(TERM_SECONDS))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        env = maker()
    except BaseException as error:
        pipe.send((_sendable(error), False))
        return
    autoreset = False
    try:
        while True:
            command, data = pipe.recv()
            try:
                if command == "close":
                    return
                if command == "reset" or (command == "step" and autoreset):
                    observation, info = env.reset(**data) if command == "reset" else env.reset()
                    answer, autoreset = [observation, 0.0, False, False, info], False
                elif command == "step":
                    answer = list(env.step(data))
                    autoreset = answer[2] or answer[3]
                elif command == "_call":
                    name, arguments, named = data
                    answer = env.get_wrapper_attr(name)
                    answer = answer(*arguments, **named) if callable(answer) else answer
                elif command == "_setattr":
                    answer = env.set_wrapper_attr(*data)
                elif command == "_check_spaces":
                    _, observations, actions = data
                    answer = observations == env.observation_space, actions == env.action_space
                else:
                    raise ValueError(f"{command} is not known here.")
                if command in ("reset", "step"):
                    if shared_memory is not None:
                        write_to_shared_memory(
                            env.observation_space, index, answer[0], shared_memory
                        )
                        answer[0] = None
                    answer = (answer[0], answer[4]) if command == "reset" else tuple(answer)
            except BaseException as error:
                pipe.send((_sendable(error), False))
                continue
            pipe.send((answer, True))
    except (EOFError, OSError):
        return  # the parent is gone
    finally:
        env.close()


def _sendable(error: BaseException) -> BaseException:
    """One that can be raised again in another process."""
    known = type(error).__module__ in ("envs.errors", "builtins") and isinstance(error, Exception)
    return (
        error
        if known
        else EnvironmentFailed(f"An environment's process failed: {describe(error)}", "correct it")
    )


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
