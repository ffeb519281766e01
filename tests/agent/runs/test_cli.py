"""The command in this process; tests/scripts/ runs it in its own."""

import dataclasses
import re
import shlex
import sys
from dataclasses import dataclass, field

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from agent.config import TrainConfig
from agent.runs import cli
from agent.runs.api import configure
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


def test_refusals_name_the_key(run, capfd):
    for override, sentence in {
        "inner.witdh=3": "inner.witdh is not a key of the configuration; did you mean "
        "inner.width or inner.rates?",
        "+inner.witdh=3": "inner.witdh is not a key of the configuration; did you mean "
        "inner.width or inner.rates?",
        "xyz=3": "xyz is not a key of the configuration; --help shows the keys.",
        "inner.width=wide": "inner.width: value 'wide' of type 'str' could not be converted to "
        "Integer; "
        "give a value of that type.",
        "inner.rates=[fast]": "inner.rates[0]: value 'fast' of type 'str' could not be converted "
        "to Float; "
        "give a value of that type.",
        "inner.width=null": "inner.width=null was given; it cannot be null, give a value.",
        "name=a,b": "name=a,b holds several values; give one, a list as key=[a,b], or run each "
        "with --multirun.",
        "~name": "~name was given; a key cannot be taken away, set it to a value: name=value.",
        "name=my run (2)": "name=my run (2) cannot be read; write key=value, a list as "
        "key=[a,b], and a text with such characters as "
        "'name=\"my run (2)\"'.",
        "name=it's é": "name=it's é cannot be read; write key=value, a list as key=[a,b], and a "
        "text with such characters as "
        "'name=\"it'\"'\"'s é\"'.",
        "inner.rates=[1,": "inner.rates=[1, cannot be read; write key=value, a list as "
        "key=[a,b], and a text with such characters as "
        "'key=\"a, b\"'.",
        "--inner.width": "--inner.width is not an option; values are set without dashes: "
        "inner.width=value.",
    }.items():
        code, received = run(override)
        assert (code, received, capfd.readouterr()) == (2, [], ("", sentence + "\n"))


def test_an_unquoted_path_with_spaces(run, capfd):
    """A shell parts it."""
    for words, quoted in {
        (
            "name=/data/my",
            "runs/a",
        ): "runs/a is not key=value; if name=/data/my goes on with it, quote the whole: "
        "'name=/data/my runs/a'.",
        (
            "inner.width=3",
            "name=old",
            "(2)/b",
            "c",
            "experiment=x",
        ): "(2)/b is not key=value; if name=old goes on with it, "
        "quote the whole: 'name=\"old (2)/b c\"'.",
    }.items():
        assert (*run(*words), capfd.readouterr()) == (2, [], ("", quoted + "\n"))


def test_what_belongs_to_the_environment():
    for override, meant in {
        "env.max_episode_steps=100": "did you mean env.kwargs.max_episode_steps?",
        "max_episode_steps=100": "did you mean env.kwargs.max_episode_steps",
        "env.frame_skip=4": "did you mean env.kwargs.frame_skip?",
        "env.timeuot=4": "did you mean env.timeout",
    }.items():
        with pytest.raises(BadInput, match=re.escape(meant)):
            configure(override)


def test_tuples_reach_the_configuration_as_they_were_written():
    """Whatever else has parentheses is Hydra's."""
    given = {
        "a": "(128,64)",
        "b": "'(128,64)'",
        "c": "[(1, ('a', \"é\")),3]",
        "d": "{size: ()}",
        "e": "int(3.7)",
    }
    kwargs = configure(*(f"env.kwargs.{name}={value}" for name, value in given.items())).env.kwargs
    assert kwargs == {
        "a": "(128,64)",
        "b": "(128,64)",
        "c": ["(1, ('a', \"é\"))", 3],
        "d": {"size": "()"},
        "e": 3,
    }


def test_a_key_that_several_kinds_have_is_suggested_once():
    keys = cli.all_keys(TrainConfig)
    assert len(keys) == len(set(keys)) and {
        "agent.tokenizer.frame_latent",
        "agent.policy.mlp",
    } < set(keys)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
@example("my run é")
@example("007")
@example('a\\\\"b\\')
def test_what_is_proposed_can_be_typed(value):
    (word,) = shlex.split(cli.argument("run", value))
    (override,) = OverridesParser.create().parse_overrides([word])
    assert override.key_or_group == "run" and override.value() == value


def test_all_keys():
    assert cli.all_keys(Schema) == ["experiment", "name", "inner", "inner.width", "inner.rates"]


def test_typed_refuses_keys_that_hydra_lets_through():
    config = OmegaConf.create(dataclasses.asdict(Schema()) | {"more": 1})
    with pytest.raises(Exception, match="more"):
        cli.typed(config, Schema)
