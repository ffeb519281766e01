"""The command in this process; tests/scripts/ runs it in its own."""

import shlex
import sys
from dataclasses import dataclass, field

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from agent.runs import cli
from agent.training.learner import NonFinite
from envs.errors import BadInput


@dataclass
class Inner:
    width: int = 8
    rates: list[float] = field(default_factory=lambda: [0.5])


@dataclass
class Schema:
    experiment: str = "none"
    name: str = "nobody"
    inner: Inner = field(default_factory=Inner)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command of that schema -> (its exit code or None, what its main got)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def run(*arguments: str, fails: BaseException | None = None):
        received = []

        def main(config, overrides):
            received.append((config, overrides))
            if fails is not None:
                raise fails

        monkeypatch.setattr(sys, "argv", ["small.py", *arguments])
        try:
            cli.command("small", Schema, main)
        except SystemExit as end:
            return end.code, received
        return None, received

    return run


def test_main_gets_the_dataclass(run, capfd):
    code, [(config, overrides)] = run("inner.width=3", "name=somebody")
    assert code is None
    assert config == Schema(name="somebody", inner=Inner(width=3))
    assert isinstance(config, Schema) and isinstance(config.inner, Inner)
    assert overrides == ["inner.width=3", "name=somebody"]
    assert capfd.readouterr() == ("", "")


def test_exit_codes(run, capfd):
    assert run(fails=BadInput("No,\n  because."))[0] == 2
    assert capfd.readouterr() == ("", "No, because.\n")
    assert run(fails=NonFinite("dynamics/reward is nan."))[0] == 1
    assert capfd.readouterr() == ("", "dynamics/reward is nan.\n")
    assert run(fails=KeyboardInterrupt())[0] == 130
    assert capfd.readouterr() == ("", "")


def test_a_defect_keeps_its_traceback(run):
    with pytest.raises(ZeroDivisionError) as error:
        run(fails=ZeroDivisionError("ours"))
    assert error.traceback[-1].name == "main"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("inner.witdh=3", "inner.witdh is not a key of the configuration; did you mean inner.width or inner.rates?"),
        ("xyz=3", "xyz is not a key of the configuration; --help shows the keys."),
        ("inner.rates=[fast]", "inner.rates[0]: Value 'fast' of type 'str' could not be converted to Float; --help shows what is accepted."),
        ("name=a,b", "Ambiguous value for argument 'name=a,b'; give one, a list as key=[a,b], or run each with --multirun."),
        ("name=my run (2)", "name=my run (2) cannot be read; write a list as key=[a,b], and a text with such characters as 'name=\"my run (2)\"'."),
        ("--inner.width", "--inner.width is not key=value; --help shows the keys, and a value with spaces or parentheses is quoted, as in 'run=\"my run\"'."),
    ],
)  # fmt: skip
def test_refusals_name_the_key(run, capfd, given, sentence):
    assert (*run(given), capfd.readouterr()) == (2, [], ("", sentence + "\n"))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
@example("my run é")
@example("007")
@example('a\\\\"b\\')
def test_what_is_proposed_can_be_typed(value):
    (word,) = shlex.split(cli.argument("run", value))
    (override,) = OverridesParser.create().parse_overrides([word])
    assert override.key_or_group == "run" and override.value() == value
