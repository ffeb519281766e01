"""The commands, in this process or in ones of their own.

Importing torch takes seconds: one process does that, and forks for each command.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import resource
import runpy
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent.parent
SECONDS = 1700

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["agent.runs.run", "agent.evaluation.evaluate", "envs.games.crafter"])


class Result(NamedTuple):
    code: int
    out: str
    err: str


def here(script: str, *arguments: str, cwd: Path) -> Result:
    """The command in this process, as if it had been typed in `cwd`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        for context in (
            contextlib.chdir(cwd),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            stack.enter_context(context)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(sys, "argv", [f"scripts/{script}.py", *arguments])
        patch.setattr(sys, "path", [*sys.path])
        try:
            runpy.run_path(str(ROOT / "scripts" / f"{script}.py"), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
            if isinstance(code, str):
                code = 1
                err.write(f"{end.code}\n")
    for name, module in list(sys.modules.items()):  # of that folder: another may have its own
        if str(getattr(module, "__file__", "")).startswith(str(cwd)):
            del sys.modules[name]
    return Result(code, out.getvalue(), err.getvalue())


def check_refused(result: Result, *named: str) -> None:
    """One sentence that names this, and exit code 2."""
    assert result.code == 2, result
    assert result.err.count("\n") == 1 and result.err.endswith((".\n", "?\n")), result.err
    assert "Traceback" not in result.err and result.out == ""
    for part in named:
        assert part in result.err, (part, result.err)


def start_command(
    script: str,
    arguments: tuple[str, ...],
    cwd: Path,
    output: Path,
    environment: Mapping[str, str] = MappingProxyType({}),
    memory: int | None = None,
) -> multiprocessing.Process:
    """Start scripts/<script>.py in a process and a session of its own.

    Args:
        output: The folder that gets what it prints, as `out` and `err`.
        memory: Bytes of address space that it may take besides what it has at the start.
    """
    process = forks.Process(
        target=_child, args=(script, arguments, str(cwd), str(output), dict(environment), memory)
    )
    process.start()
    return process


def run_command(
    script: str,
    arguments: tuple[str, ...],
    cwd: Path,
    environment: Mapping[str, str] = MappingProxyType({}),
    memory: int | None = None,
    seconds: int = SECONDS,
) -> Result:
    """environment: variables to set, empty ones as if they were not there"""
    with tempfile.TemporaryDirectory() as output:
        process = start_command(script, arguments, cwd, Path(output), environment, memory)
        process.join(seconds)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"{script} {arguments} ran for more than {seconds} s.")
        return Result(
            process.exitcode, *((Path(output) / name).read_text() for name in ("out", "err"))
        )


def train(*arguments: str, cwd: Path) -> Result:
    return run_command("train", arguments, cwd)


def evaluate(*arguments: str, cwd: Path) -> Result:
    return run_command("evaluate", arguments, cwd)


def play(*arguments: str, cwd: Path, screen: str = "") -> Result:
    """`screen` is SDL's driver, "dummy" for a window that nobody sees; "": there is none."""
    environment = {
        "SDL_VIDEODRIVER": screen,
        "SDL_VIDEO_DRIVER": "",
        "DISPLAY": "",
        "WAYLAND_DISPLAY": "",
    }
    return run_command("play", arguments, cwd, environment)


def _child(
    script: str,
    arguments: tuple[str, ...],
    cwd: str,
    folder: str,
    environment: dict[str, str],
    memory: int | None,
) -> None:
    if memory is not None:
        own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (own + memory, own + memory))
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT), number)
    os.setsid()
    multiprocessing.set_start_method(
        None, force=True
    )  # Python's own, as if the command had been typed
    os.chdir(cwd)
    os.environ.update(environment)
    sys.argv = [f"scripts/{script}.py", *arguments]
    runpy.run_path(str(ROOT / "scripts" / f"{script}.py"), run_name="__main__")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and folder below, as it is."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }
