"""Standard output and error that stop no run: letters they lack, a reader that is gone."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO


class SafeStream:
    """A text stream that shows "?" for what its encoding lacks, and drops what cannot be written.

    Attributes:
        stream: The stream itself; None, Python's where a process began without one, drops all.
        error: The first that a write raised.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (kept open)
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        try:
            self.stream.write(text)
        except UnicodeEncodeError:
            self.write(text.encode(self.stream.encoding, "replace").decode(self.stream.encoding))
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self._give_up(error)

    def is_read(self) -> bool:
        """Whether it is anything but a pipe whose other end is closed."""
        poll = select.poll()
        with suppress(AttributeError, io.UnsupportedOperation):  # a stream without a descriptor
            poll.register(self.stream.fileno(), 0)
        broken = any(event & select.POLLERR for _, event in poll.poll(0))
        return not (broken or isinstance(self.error, BrokenPipeError))

    def _give_up(self, error: OSError) -> None:
        """What is still buffered goes nowhere too: Python would fail to write it at its end."""
        self.error = self.error or error
        with suppress(AttributeError, io.UnsupportedOperation), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def safe_output() -> Iterator[None]:
    """Within, standard output and standard error are such streams."""
    streams = (sys.stdout, sys.stderr)
    out, err = (s if isinstance(s, SafeStream) else SafeStream(s) for s in streams)
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        finally:
            out.flush()
            err.flush()


def output_is_read() -> bool:
    """Whether there is still somebody to print for, as far as can be told."""
    streams = (sys.stdout, sys.stderr)
    return all(stream.is_read() for stream in streams if isinstance(stream, SafeStream))
