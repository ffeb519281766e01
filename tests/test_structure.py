"""Which way the imports run: a package imports only from those listed before it, and no files in a circle.

`python tests/test_structure.py` prints the lines of every room and the arrows between them.
"""

import ast
import sys
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent

# From the ground up.
ROOMS = [
    "envs",
    "agent.config",
    "agent.segment",
    "agent.execution",
    "agent.signals",
    "agent.nets",
    "agent.quantizers",
    "agent.storage",
    "agent.tokenizers",
    "agent.world_models",
    "agent.policies",
    "agent.imagination",
    "agent.actor_critic",
    "agent.advantages",
    "agent.agent",
    "agent.data",
    "agent.evaluation",
    "agent.media",
    "agent.training",
    "agent.runs",
    "agent.dream",
    "agent.report",
    "agent.benchmark",
    "agent",
    "scripts",
]
PAPER = [
    "agent/tokenizers/delta.py",
    "agent/world_models/delta.py",
    "agent/imagination.py",
    "agent/actor_critic.py",
    "agent/training/trainer.py",
]


def modules() -> dict[str, Path]:
    """Dotted name -> file of everything that is ours, tests aside."""
    files = [file for top in ("agent", "envs", "scripts") for file in (ROOT / top).rglob("*.py")]
    names = {}
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


def is_for_types(node: ast.AST) -> bool:
    """Whether this is `if TYPE_CHECKING:`, whose imports never run."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(file: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports when it runs, those within functions too."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(file.read_text())]
    while waiting:
        node = waiting.pop()
        if is_for_types(node):
            continue
        waiting += ast.iter_child_nodes(node)
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in inner]
        found |= {name for name in names if name in known}
    return found


def room_of(module: str) -> str:
    """The innermost room that a module is in."""
    return max((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), key=len)


def arrows() -> dict[str, set[str]]:
    """Module -> those that it imports."""
    known = modules()
    return {name: imports(file, known) - {name} for name, file in known.items()}


def test_no_arrow_upward() -> None:
    upward = [
        f"{module} -> {other}"
        for module, others in arrows().items()
        for other in others
        if ROOMS.index(room_of(module)) < ROOMS.index(room_of(other))
    ]
    assert not upward


def test_no_circle() -> None:
    try:
        TopologicalSorter(arrows()).prepare()
    except CycleError as error:
        raise AssertionError(f"imports run in a circle: {error.args[1]}") from error


def test_sizes() -> None:
    lines = {file: len(file.read_text().splitlines()) for file in modules().values()}
    assert not {file: n for file, n in lines.items() if n > 350}
    assert not {f: n for f, n in lines.items() if f.parent.name == "scripts" and n >= 60}
    assert len(list((ROOT / "agent").glob("*.py"))) <= 8
    assert sum(lines[ROOT / file] for file in PAPER) < 1000
    assert len(list((ROOT / "configs").rglob("*.yaml"))) <= 35


if __name__ == "__main__":
    size: Counter[str] = Counter()
    between: dict[str, set[str]] = defaultdict(set)
    for module, others in arrows().items():
        size[room_of(module)] += len(modules()[module].read_text().splitlines())
        between[room_of(module)] |= {room_of(other) for other in others} - {room_of(module)}
    for room in ROOMS:
        print(f"{size[room]:6,}  {room:20}  <- {', '.join(sorted(between[room], key=ROOMS.index))}")
    print(f"{size.total():6,}  lines, {sum(map(len, between.values()))} arrows", file=sys.stdout)
