"""The command in this process; tests/scripts/ runs it in its own."""

import dataclasses
import shlex
import sys
from dataclasses import dataclass, field

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from agent import cli
from agent.config import TrainConfig
from agent.learner import NonFinite
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
    (tmp_path / "experiment").mkdir()
    (tmp_path / "small.yaml").write_text("defaults: [small_schema, _self_]\nhydra: {output_subdir: null, run: {dir: .}}\n")
    monkeypatch.setattr(cli, "CONFIGS", tmp_path)
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
    for given, sentence in {
        "inner.witdh=3": "inner.witdh is not a key of the configuration; did you mean inner.width or inner.rates?",
        "+inner.witdh=3": "inner.witdh is not a key of the configuration; did you mean inner.width or inner.rates?",
        "xyz=3": "xyz is not a key of the configuration; see configs/ for the keys that there are.",
        "inner.width=wide": "inner.width: value 'wide' of type 'str' could not be converted to Integer; "
        "give a value of that type.",
        "inner.rates=[fast]": "inner.rates[0]: value 'fast' of type 'str' could not be converted to Float; "
        "give a value of that type.",
        "inner.width=null": "inner.width=null was given; it cannot be null, give a value.",
        "name=a,b": "name=a,b holds several values; give one, a list as key=[a,b], or run each with --multirun.",
        "~name": "~name was given; a key cannot be taken away, set it to a value: name=value.",
        "--inner.width": "--inner.width is not an option; values are set without dashes: inner.width=value.",
    }.items():
        code, received = run(given)
        assert (code, received, capfd.readouterr()) == (2, [], ("", sentence + "\n"))


def test_a_key_that_several_kinds_have_is_suggested_once():
    keys = cli.all_keys(TrainConfig)
    assert len(keys) == len(set(keys)) and {"agent.tokenizer.frame_latent", "agent.policy.mlp"} < set(keys)


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
