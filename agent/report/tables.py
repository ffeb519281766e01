"""How a report's numbers, lists and tables are written."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from envs.aggregates import Estimate

NONE = "–"


def markdown(rows: object) -> str:
    """A Markdown table, aligned on a screen too: the first column to the left, others right."""
    table = pd.DataFrame(rows, dtype=object).fillna(NONE).astype(str).map(one_line)
    alignment = ["left", *["right"] * (table.shape[1] - 1)]
    return table.rename(columns=one_line).to_markdown(
        index=False, disable_numparse=True, colalign=alignment
    )


def bullets(lines: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {one_line(line)}" for line in lines)


def one_line(text: str) -> str:
    """Text from a file that keeps to its line and its column."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def spread(scores: Sequence[float] | pd.Series) -> str:
    """Mean ± standard deviation of a sample; of a single one there is none."""
    if not len(scores):
        return NONE
    mean = float(np.mean(scores))
    decimals = 0 if abs(mean) >= 1000 else 1 if abs(mean) >= 10 else 2
    deviation = f" ± {np.std(scores, ddof=1):.{decimals}f}" if len(scores) > 1 else ""
    return f"{mean:.{decimals}f}{deviation}"


def interval(number: Estimate | float, decimals: int = 2) -> str:
    """A number, with its interval if it has one."""
    if not isinstance(number, Estimate):
        return f"{number:.{decimals}f}"
    return f"{number.value:.{decimals}f} [{number.low:.{decimals}f}, {number.high:.{decimals}f}]"


def counted(values: pd.Series) -> str:
    """The one value, or each with its number of runs."""
    counts = values.astype(str).value_counts(sort=False)
    if len(counts) == 1:
        return counts.index[0]
    return " / ".join(f"{value} ({n} run{'s' * (n > 1)})" for value, n in counts.items())


def between(values: pd.Series) -> str:
    """The one value, or the least and the greatest."""
    least, greatest = int(values.min()), int(values.max())
    return f"{least}" if least == greatest else f"{least} to {greatest}"
