"""The directive {keys}: tables of a configuration's keys, from its dataclasses."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from agent.config import KINDS, TrainConfig
from agent.config.compose import CONFIGS, QUANTIZERS
from agent.runs.help import Key, keys_of_parts, keys_of_run


def table(keys: list[Key]) -> str:
    """Markdown of a table of keys."""
    rows = [f"| `{key.name}` | `{key.default or ' '}` | {key.text} |" for key in keys]
    return "\n".join(["| key | default | |", "|---|---|---|", *rows])


def run_keys() -> str:
    """Every key of a run, an agent's parts aside."""
    return "\n\n".join(
        f"## {f'`{group}`' if group else 'The run'}\n\n{table(keys)}"
        for group, keys in keys_of_run(TrainConfig).items()
    )


def part_keys() -> str:
    """Every key of each kind of each part of an agent."""
    texts, last = [], ""
    for part, kind, keys in keys_of_parts():
        if part != last:
            texts.append(f"## `agent.{part}`")
        last, doc = part, (KINDS[part][kind].__doc__ or "").splitlines()[0]
        texts.append(f"### {part} of kind `{kind}`\n\n{doc}\n\n{table(keys)}")
    return "\n\n".join(texts)


def files() -> str:
    """What each group of configuration files has, with the file's own first sentence."""
    rows = []
    for group in ("experiment", "agent", "env", "size"):
        for path in sorted((CONFIGS / group).glob("*.yaml")):
            lines = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
            text = " ".join(line for line in lines if not line.startswith("@package"))
            rows.append(f"| `{group}={path.stem}` | {text.replace('|', '&#124;')} |")
    rows.append(f"| `quantizer=` | {', '.join(f'`{name}`' for name in QUANTIZERS)} |")
    return "\n".join(["| choice | |", "|---|---|", *rows])


class Keys(SphinxDirective):
    """{keys}`run`, {keys}`parts` or {keys}`files`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The tables, as nodes."""
        text = {"run": run_keys, "parts": part_keys, "files": files}[self.arguments[0]]()
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """For Sphinx."""
    app.add_directive("keys", Keys)
    return {"parallel_read_safe": True}
