"""How a report's numbers and tables are written."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from envs.aggregates import Estimate

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown that is aligned on a screen too: the first column to the left, the others to the right."""
    lines = [[cell(text) for text in line] for line in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]

    def write(line: Sequence[str]) -> str:
        others = [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        return " | ".join(["| " + line[0].ljust(widths[0]), *others]) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([write(lines[0]), write(rule), *map(write, lines[1:])])


def cell(text: str) -> str:
    """Text that keeps to its line and its column, whatever a file had in it."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def mean_and_deviation(scores: Sequence[float]) -> str:
    """Mean ± standard deviation of a sample; of a single one there is none."""
    mean = float(np.mean(scores))
    decimals = 0 if abs(mean) >= 1000 else 1 if abs(mean) >= 10 else 2
    deviation = f" ± {np.std(scores, ddof=1):.{decimals}f}" if len(scores) > 1 else ""
    return f"{mean:.{decimals}f}{deviation}"


def interval(number: Estimate | float, decimals: int) -> str:
    """A number, with its interval if it has one."""
    if not isinstance(number, Estimate):
        return f"{number:.{decimals}f}"
    return f"{number.value:.{decimals}f} [{number.low:.{decimals}f}, {number.high:.{decimals}f}]"


def counted(values: Iterable[str]) -> str:
    """The one value, or each with its number of runs."""
    groups = grouped(values, lambda value: value)
    if len(groups) == 1:
        return cell(next(iter(groups)))
    return " / ".join(f"{cell(value)} ({len(same)} run{'s'[: len(same) > 1]})" for value, same in groups.items())


def several(values: Iterable[int]) -> str:
    """The one value, or the least and the greatest."""
    least, *_, greatest = sorted(values) * 2
    return f"{least}" if least == greatest else f"{least} to {greatest}"


def listed(names: Sequence[object], most: int = 6) -> str:
    """Not too many of them."""
    text = ", ".join(f"`{name}`" for name in names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Key -> items, both in order of appearance."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
