"""The keys of a configuration, and the page that --help prints of them."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from agent.config import KINDS
from agent.config.compose import CONFIGS, QUANTIZERS

WIDTH, COLUMN = 110, 44  # of a line; where the explanations stand


class Key(NamedTuple):
    """One key of a configuration: its dotted name, default, and meaning."""

    name: str
    default: str
    text: str


def keys_of(config: Any, prefix: str = "", without: Sequence[str] = ()) -> list[Key]:
    """Every key of an instance of a configuration dataclass, but for those below `without`."""
    texts: dict[str, str] = {}  # by the docstrings of the dataclass and of those that it extends
    for owner in reversed(type(config).__mro__):
        doc = inspect.cleandoc(owner.__doc__ or "")
        found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", doc, re.MULTILINE)
        texts |= {name: " ".join(text.split()) for name, text in found}
    keys: list[Key] = []
    for field in dataclasses.fields(config):
        name, value = f"{prefix}{field.name}", getattr(config, field.name)
        if name in without:
            continue
        if dataclasses.is_dataclass(value):
            keys += keys_of(value, f"{name}.", without)
        else:
            typed = str([*value] if isinstance(value, list) else value).replace("'", "")
            default = {"None": "null", "True": "true", "False": "false"}.get(typed, typed)
            keys.append(Key(name, default.replace(", ", ","), texts.get(field.name, "")))
    return keys


def keys_of_run(schema: type) -> dict[str, list[Key]]:
    """Group -> its keys of a command's configuration; those of an agent's parts stand apart."""
    groups: dict[str, list[Key]] = {}
    for key in keys_of(schema(), "", [f"agent.{part}" for part in KINDS]):
        groups.setdefault(key.name.rpartition(".")[0], []).append(key)
    return groups


def keys_of_parts() -> Iterator[tuple[str, str, list[Key]]]:
    """(part of an agent, kind, its keys); a tokenizer's quantizer is a part of its own."""
    for part, kinds in KINDS.items():
        for kind, config in kinds.items():
            yield part, kind, keys_of(config(), f"agent.{part}.", ["agent.tokenizer.quantizer"])


def choices(defaults: Sequence[Any]) -> Iterator[str]:
    """group=file|file|… of what a command reads of configs/."""
    for group in [next(iter(entry)) for entry in defaults if isinstance(entry, dict)]:
        files = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
        yield f"{group}={'|'.join(files or QUANTIZERS)}"
        if group == "agent":
            yield from (
                f"agent/{p}={'|'.join(kinds)}" for p, kinds in KINDS.items() if "." not in p
            )


def help_text(name: str, schema: type, defaults: Sequence[Any]) -> str:
    """The page of a command."""
    lines = [
        f"python scripts/{name}.py [key=value …] [--multirun]",
        "With --cfg job at the end, the configuration is printed and nothing is done.",
    ]
    chosen = list(choices(defaults))
    if chosen:
        lines += ["", "Choose (files of configs/):"]
        for text in chosen:
            lines += textwrap.wrap(f"  {text}", WIDTH, subsequent_indent=" " * 6)
    sections = {group or "Settings": keys for group, keys in keys_of_run(schema).items()}
    if any(text.startswith("agent=") for text in chosen):
        sections |= {f"agent.{part}, kind {kind}": keys for part, kind, keys in keys_of_parts()}
    for section, keys in sections.items():
        lines += ["", f"{section}:"]
        for key in keys:
            text = f"{f'  {key.name}={key.default}':<{COLUMN}}  {key.text}"
            lines += textwrap.wrap(text, WIDTH, subsequent_indent=" " * (COLUMN + 2))
    return "\n".join(lines)
