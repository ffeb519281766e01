"""metrics.csv: a row for each epoch, a column for each metric."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path

from agent.storage import files
from envs.errors import BadInput

WHOLE = ["epoch", "step"]  # numbers, and the first columns


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows in order: {"epoch": int, "step": int, metric: float, ...}; no file is no rows.

    A metric without a value is left out of its row.

    Raises:
        BadInput: the file is no log of ours.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            if (table.fieldnames or WHOLE)[:2] != WHOLE:
                raise ValueError("its first columns are not epoch and step")
            return [
                {k: int(v) if k in WHOLE else float(v) for k, v in row.items() if v or k in WHOLE}
                for row in table
            ]
    except (ValueError, TypeError) as error:
        raise BadInput(f"{path} is not a log of ours ({error}); move it away.") from error


def write_metrics(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write the file anew, with a column for each metric in order of appearance."""
    names = dict.fromkeys([*WHOLE, *(name for row in rows for name in row)])
    text = StringIO()
    table = csv.DictWriter(text, list(names), lineterminator="\n")
    table.writeheader()
    for row in rows:  # nine digits are exact for float32
        table.writerow({k: v if isinstance(v, int) else f"{v:.9g}" for k, v in row.items()})
    files.write(path, text.getvalue().encode())
