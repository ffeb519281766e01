"""The range of a setting, beside its field, and the check of all of them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

from envs.errors import BadInput


class Range(NamedTuple):
    """Accepted numbers, `least` and `most` included; `words` says so in a message."""

    least: float
    most: float
    words: str


COUNT = Range(1, 2**31 - 1, "1 or more, below 2^31")
NATURAL = Range(0, 2**31 - 1, "0 or more, below 2^31")
SEED = Range(0, 2**63 - 1, "0 or more, below 2^63")
WEIGHT = Range(0, math.inf, "0 or more, and finite")
POSITIVE = Range(math.ulp(0.0), math.inf, "more than 0, and finite")
SHARE = Range(0, 1, "a number from 0 to 1")
ENVIRONMENTS = Range(1, 2**16, "1 or more, at most 65536")


def setting(default: Any, accepted: Range | tuple[str, ...]) -> Any:
    """A dataclass field with the range of its numbers, or the words to choose from."""
    metadata = {"range": accepted}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check_choice(key: str, value: object, accepted: tuple[str, ...]) -> None:
    """Raises BadInput if a value is not among those that are accepted."""
    if value not in accepted:
        raise BadInput(f"{key}={value} is not known; choose one of {', '.join(accepted)}.")


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries -> dotted key -> value. An environment's arguments stay one value."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        inner = isinstance(value, dict) and not name.endswith("kwargs")
        flat |= flatten(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return flat


def check_values(config: Any, prefix: str = "") -> None:
    """Check the fields of a configuration dataclass, and of those inside it, against their ranges.

    Args:
        prefix: the key under which it stands, with a dot at its end.

    Raises:
        BadInput: a number is out of its range, or a list or a text is empty.
    """
    for field in dataclasses.fields(config):
        key, value = prefix + field.name, getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            check_values(value, f"{key}.")
            continue
        accepted = field.metadata.get("range")
        if value == "" or (accepted and value == []):
            raise BadInput(f"{key}={value} was given without a value; give one, or leave it out.")
        if accepted is None or value is None:
            continue
        if not isinstance(accepted, Range):
            check_choice(key, value, accepted)
            continue
        numbers = value if isinstance(value, list) else [value]
        if not all(accepted.least <= n <= accepted.most and math.isfinite(n) for n in numbers):
            raise BadInput(f"{key}={value} was given; give {accepted.words}.")
