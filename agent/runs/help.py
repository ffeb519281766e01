"""What --help prints: every key in a line, from the dataclasses' own docstrings."""

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


def attributes_of(schema: type) -> dict[str, str]:
    """Field -> what the docstrings of a dataclass and of those that it extends say of it."""
    texts: dict[str, str] = {}
    for owner in reversed(schema.__mro__):
        doc = inspect.cleandoc(owner.__doc__ or "") if dataclasses.is_dataclass(owner) else ""
        section = re.search(r"^Attributes:\n((?:[ \t]+.*\n?|\n)*)", doc, flags=re.MULTILINE)
        for name, text in re.findall(
            r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", flags=re.MULTILINE
        ):
            texts[name] = " ".join(text.split())
    return texts


def shown(value: Any) -> str:
    """A default as it would be typed."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def keys_of(config: Any, prefix: str = "") -> Iterator[Key]:
    """Every key of an instance of a configuration dataclass; an agent's parts stand apart."""
    texts = attributes_of(type(config))
    for field in dataclasses.fields(config):
        name, value = f"{prefix}{field.name}", getattr(config, field.name)
        if name in ("agent.tokenizer", "agent.dynamics", "agent.policy"):
            continue
        if dataclasses.is_dataclass(value):
            yield from keys_of(value, f"{name}.")
        else:
            yield Key(name, shown(value), texts.get(field.name, ""))


def groups(defaults: Sequence[Any]) -> Iterator[tuple[str, list[str]]]:
    """(group, its files) of those that a command reads."""
    for entry in defaults:
        if isinstance(entry, dict):
            (group,) = entry
            files = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
            yield group, files or list(QUANTIZERS)
            if group == "agent":
                yield from ((f"agent/{p}", list(k)) for p, k in KINDS.items() if "." not in p)


def help_text(name: str, schema: type, defaults: Sequence[Any]) -> str:
    """The page of a command."""
    lines = [
        f"python scripts/{name}.py [key=value …] [--multirun]",
        "With --cfg job at the end, the configuration is printed and nothing is done.",
        "",
    ]
    chosen = list(groups(defaults))
    if chosen:
        lines += ["Choose (files of configs/):"]
        for group, files in chosen:
            text = f"{group}={'|'.join(files)}"
            lines += textwrap.wrap(
                text, WIDTH, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False
            )
        lines.append("")
    sections: dict[str, list[Key]] = {}
    for key in keys_of(schema()):
        sections.setdefault(key.name.rpartition(".")[0], []).append(key)
    if any(group == "agent" for group, _ in chosen):
        for part, kinds in KINDS.items():
            for kind, config in kinds.items():
                keys = list(keys_of(config(), f"agent.{part}."))
                sections[f"agent.{part}, kind {kind}"] = [
                    key
                    for key in keys
                    if not key.name.startswith("agent.tokenizer.quantizer.")
                    or part == "tokenizer.quantizer"
                ]
    for section, keys in sections.items():
        lines.append(f"{section or 'Settings'}:")
        for key in keys:
            start = f"  {key.name}={key.default}"
            lines += textwrap.wrap(
                f"{start:<{COLUMN}}  {key.text}", WIDTH, subsequent_indent=" " * (COLUMN + 2)
            )
        lines.append("")
    return "\n".join(lines).rstrip()
