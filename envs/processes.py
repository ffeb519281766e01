"""What Python processes of environments need: a main guard, and a certain end."""

import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from typing import Any

import psutil

from envs.errors import BadInput

UNGUARDED = (
    117  # exit code of a process that importing the main module would have begin everything again
)


def end_if_imported() -> None:
    """End a worker process that is importing an unguarded main module, which would run it again."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)


def check_guarded(process: Any) -> None:
    """Raises BadInput if importing the main module has ended an environment's process."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script and process.exitcode in (1, UNGUARDED):
        raise BadInput(
            f"{os.path.basename(script)} is imported by each process that env.parallel=true "
            "starts, and would do everything again there; put what it does into a function "
            'main(), and end it with the two lines `if __name__ == "__main__":` and `    main()`.'
        ) from None


def is_alive(process: Any) -> bool:
    """Whatever its parent knows of it."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE
    return False


def death(process: Any) -> str:
    process.join(1)
    code = process.exitcode
    if code is not None and code < 0:
        return f"died by the signal {signal.Signals(-code).name}"
    # 255 is what multiprocessing says where it cannot tell.
    return "died" if code in (None, 255) else f"ended its process with exit code {code}"


def end(process: Any) -> None:
    """A process and those that it started are no more."""
    if process.pid is None:
        return
    with suppress(psutil.NoSuchProcess):
        if is_alive(process):
            parent = psutil.Process(process.pid)
            for child in (*parent.children(recursive=True), parent):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
    process.join(1)
