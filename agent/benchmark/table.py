"""Tables that are printed line by line, as they are measured."""


def line(*cells: object) -> str:
    """A line of a table: columns of 17 letters, numbers with four digits."""
    return " ".join(f"{f'{x:.4g}' if isinstance(x, float) else x!s:>17}" for x in cells)
