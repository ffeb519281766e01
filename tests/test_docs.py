"""Every command and every Python block of README, CONTRIBUTING and docs/ works as it is written.

A command of scripts/ is composed and checked as the script itself would, and not run: most take
minutes to days. `make`, `pip install` and `python -m` must name what exists. Python blocks are run,
with networks of seconds in place of a preset's; TOO_LONG names those that take longer even so.
"""

import itertools
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from agent.config import TrainConfig
from agent.runs import cli
from agent.runs.api import configure
from envs.games.catch import CatchEnv
from tests.test_structure import PAPER
from tests.tiny import TINY, leave_out_films

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]
    if "_build" not in path.parts
}
# Words at a command's start that are a shell's, or a tool's that is not ours.
OTHERS = {"source", "tensorboard", "export", "[", "scontrol", "pre-commit"}
TOO_LONG = {
    "docs/dream.md": "PPO learns Catch in a dream: tests/scripts/test_dream.py runs the block"
}
# A word that stands for the reader's choice.
PLACEHOLDER = re.compile(r"^…$|=(…|S|\[S\])$")
FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks of a page in these languages."""
    return [body for language, body in FENCE.findall(text) if language in languages]


def commands_of(text: str) -> Iterator[str]:
    """The commands of a page, in blocks and in its sentences, a line each."""
    for block in blocks(text, "sh", "bash", ""):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"^for \w+ in .*; do |; done\b.*$", "", line)
            yield from filter(None, (part.strip() for part in re.split(r" && |^#!.*", line)))
    inline = re.findall(r"`([^`]+)`", FENCE.sub("", text))
    pattern = re.compile(r"(\w+=\S+ )*python scripts/|make [\w-]+$|python -m tests\.")
    yield from (" ".join(code.split()) for code in inline if pattern.match(" ".join(code.split())))


COMMANDS = sorted({(page, line) for page, text in PAGES.items() for line in commands_of(text)})


def words_of(command: str) -> list[str]:
    """A command's words without what stands before the program, and without "…" and the like."""
    command = re.sub("<[^>]*>", "…", command.replace("$s", "0"))
    words = shlex.split(command, comments=True)
    while words and (
        re.match(r"\w+=", words[0]) or words[0] in ("srun", "python") or "timeout" in words[0]
    ):
        skipped = words.pop(0)
        if skipped == "timeout":
            while not words[0].endswith("m"):  # timeout -s TERM 60m
                words.pop(0)
            words.pop(0)
    return [word.replace("…", "x") for word in words if not PLACEHOLDER.search(word)]


def parse(script: str, words: list[str]) -> SimpleNamespace:
    """What a script hands to `command`: name, schema, defaults, values, expand; and its words."""
    seen: dict[str, Any] = {"defaults": (), "values": None, "expand": list}

    def take(name: str, schema: type, main: Any, *rest: Any, **named: Any) -> None:
        given = dict(zip(("defaults", "values", "expand"), rest, strict=False))
        seen.update(name=name, schema=schema, words=sys.argv[1:], **given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *words])
        patch.setattr(cli, "command", take)
        runpy.run_path(str(ROOT / script), run_name="__main__")
    return SimpleNamespace(**seen)


def first_of_each(arguments: list[str]) -> list[str]:
    """A sweep's first run: of seed=0,1,2 the 0; a launcher's own settings aside."""
    chosen = []
    for argument in arguments:
        if argument in ("-m", "--multirun", "--help") or argument.startswith(("hydra", "+hydra")):
            continue
        (override,) = OverridesParser.create().parse_overrides([argument])
        if override.is_sweep_override():
            argument = f"{override.key_or_group}={next(iter(override.sweep_string_iterator()))}"
        chosen.append(argument)
    return chosen


def braces(arguments: list[str]) -> list[str]:
    """{a,b}.c=1 as a shell expands it."""
    found = []
    for argument in arguments:
        match = re.match(r"\{([\w,]+)\}(.*)", argument)
        found += [f"{name}{match[2]}" for name in match[1].split(",")] if match else [argument]
    return found


def check_script(script: str, words: list[str]) -> None:
    """The script accepts these words."""
    given = parse(script, braces(words))
    cli.register(given.name, given.defaults, given.values)
    words = first_of_each(given.expand(given.words))
    config = cli.configuration(given.name, given.schema, cli.completed(words, given.schema))
    if isinstance(config, TrainConfig) and not config.resume:
        config.check()


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_command(page: str, command: str) -> None:
    program, *words = words_of(command) or ["#"]
    if program == "scripts/x":
        return
    if program.startswith("scripts/"):
        check_script(program, words)
    elif program == "make":
        for target in (word for word in words if "=" not in word):
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "pip":
        extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        named = re.findall(r"\.\[([\w,]+)\]", command)
        assert set(itertools.chain.from_iterable(n.split(",") for n in named)) <= set(extras)
    elif program == "-m":
        module = words[0]
        assert module == "pytest" or (ROOT / f"{module.replace('.', '/')}.py").exists()
        for word in words[1:]:
            assert not word.startswith("tests/") or (ROOT / word).exists(), word
    elif program.startswith("tests/"):
        assert (ROOT / program).exists()
    else:
        assert program in OTHERS or program == "#", f"{page}: what is {program}?"


def test_commands_are_found() -> None:
    """The parser sees both blocks and sentences, and a wrong key is an error."""
    assert len(COMMANDS) > 60
    assert {"README.md", "docs/start.md", "docs/performance.md"} <= {page for page, _ in COMMANDS}
    with pytest.raises(cli.BadInput, match="agent.tokenizer.rare"):
        check_script("scripts/train.py", ["agent/tokenizer=delta_light", "agent.tokenizer.rare=30"])


PYTHON = [
    (page, number) for page, text in PAGES.items() for number in range(len(blocks(text, "python")))
]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "number"), PYTHON)
def test_python(page: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block as it stands, with networks of seconds; what it says last wins over them."""
    if page in TOO_LONG:
        pytest.skip(TOO_LONG[page])
    tiny = [word for word in TINY if not word.startswith(("experiment", "env.id"))]

    def small(*given: str) -> TrainConfig:
        return configure(*given[:3], *tiny, *given[3:])

    leave_out_films(monkeypatch)
    monkeypatch.chdir(tmp_path)
    if "configure(" not in blocks(PAGES[page], "python")[number]:
        monkeypatch.setattr("agent.runs.api.configure", small)
    block = blocks(PAGES[page], "python")[number]
    exec(compile(block, f"{page}:{number}", "exec"), {"MyEnv": CatchEnv, "__name__": "__main__"})


NOTEBOOK = PAGES.get("docs/your_environment.md", "")


@pytest.mark.slow
def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tutorial's cells in order, as its reader runs them; `make docs` runs them whole."""
    cells = blocks(NOTEBOOK, "{code-cell}")
    assert len(cells) >= 4
    tiny = ["epochs=1", "collect.epochs=1", "collect.first_steps=60", "evaluation.episodes=2"]
    tiny += [f"{part}.first_updates=2" for part in ("tokenizer", "dynamics", "policy")]
    monkeypatch.setattr("agent.runs.api.configure", lambda *given: configure(*given, *tiny))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        source = re.sub(r"^:[^\n]*\n", "", cell, flags=re.MULTILINE)
        exec(compile(source, "cell", "exec"), names)
    assert list(tmp_path.rglob("*_dream.gif"))
    gymnasium.registry.pop("python/Moles-v0", None)


def test_links() -> None:
    """Links to files and pages lead somewhere, anchors aside."""
    broken = []
    for page, text in PAGES.items():
        text = FENCE.sub("", text)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in target and not ((ROOT / page).parent / target).exists():
                broken.append((page, target))
    assert not broken


def test_the_readme_is_short_and_whole() -> None:
    """For a stranger in a hurry: the two commands, a picture, five files, few rows of results."""
    readme = PAGES["README.md"]
    assert len(readme.splitlines()) <= 150
    assert "make train" in readme and "make test" in readme
    assert re.search(r"!\[.*\]\(docs/\S+\.gif\)", readme)  # test_links: it is there
    assert all(f"]({file})" in readme for file in PAPER)
    table = readme.split("## Results")[1].split("\n## ")[0]
    assert len(re.findall(r"^\| ", table, re.MULTILINE)) - 1 <= 5
