"""Progress bars, on a terminal or into a file; and how long something takes, in words."""

from __future__ import annotations

import sys

from tqdm import tqdm

SECONDS = 10  # between two lines into a file
tqdm.monitor_interval = 0  # no thread of its own: environments are made by forking


class _Lines:
    """Writes each state of a bar as a line of its own to stderr."""

    last = ""

    def write(self, text: str) -> None:
        state = text.strip().partition("[")[0]  # without time and rate
        if state and state != self.last:  # a bar that closes shows itself once more
            print(text.strip(), file=sys.stderr, flush=True)
            self.last = state

    def flush(self) -> None:
        """Part of a file."""


def progress(
    description: str, total: int, unit: str, initial: int = 0, leave: bool = False
) -> tqdm:
    """A progress bar with rate and time left. In a file, one line in ten seconds at most."""
    file = {} if sys.stderr.isatty() else {"file": _Lines(), "position": 0, "ncols": 100}
    pace = {"mininterval": SECONDS, "delay": SECONDS} if file else {}
    about = {"unit": unit, "initial": initial, "leave": leave, "miniters": 1}
    return tqdm(desc=description, total=total, **about, **file, **pace)


def duration(seconds: float) -> str:
    """For people."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} seconds"
