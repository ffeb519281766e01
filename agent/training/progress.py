"""Progress bars, on a terminal or into a file; and how long something takes, in words."""

from __future__ import annotations

import sys

from tqdm import tqdm

SECONDS = 10  # between two lines into a file
tqdm.monitor_interval = 0  # no thread of its own: environments are made by forking


class _Lines:
    """Writes to stderr, a line for each state of a bar instead of one line that is overwritten."""

    last = ""

    def write(self, text: str) -> None:
        text = text.strip()
        state = text.partition("[")[0]  # without time and rate
        if state and state != self.last:  # a bar that closes shows itself once more
            sys.stderr.write(text + "\n")
        self.last = state or self.last

    def flush(self) -> None:
        sys.stderr.flush()


def progress(
    description: str, total: int, unit: str, initial: int = 0, leave: bool = False
) -> tqdm:
    """A progress bar with rate and time left. In a file, one line in ten seconds at most."""
    shown = {
        "desc": description,
        "total": total,
        "unit": unit,
        "initial": initial,
        "leave": leave,
        "miniters": 1,
    }
    if sys.stderr.isatty():
        return tqdm(**shown)
    return tqdm(**shown, file=_Lines(), mininterval=SECONDS, delay=SECONDS, position=0, ncols=100)


def duration(seconds: float) -> str:
    """For people."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} seconds"


def readable(value: float) -> str:
    """Three decimals, or four digits of what is too large or too small for them."""
    return f"{value:.3f}" if value == 0 or 1e-2 <= abs(value) < 1e7 else f"{value:.4g}"
