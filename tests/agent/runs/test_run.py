"""Runs started, resumed and refused, in this process. tests/scripts/ does it by the command."""

import contextlib
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from agent.config import TrainConfig
from agent.runs.folder import claim, wanted_folder
from agent.runs.load import load_agent
from agent.runs.resume import differences, resumed_config
from agent.runs.train import train
from agent.signals import AGAIN, Stop
from agent.storage import checkpoint
from agent.storage.metrics import read_metrics
from envs.errors import BadInput
from envs.games.catch import CatchEnv
from tests.equal import check_equal
from tests.tiny import TINY_CRAFTER, leave_out_films, tiny, tiny_of

pytestmark = pytest.mark.usefixtures("all_without_films")


def resume(folder: Path, *overrides: str) -> None:
    train(TrainConfig(resume=str(folder)), [f"resume={folder}", *overrides])


@pytest.fixture(scope="module")
def all_without_films():
    with pytest.MonkeyPatch.context() as patch:
        leave_out_films(patch)
        yield


@pytest.fixture(scope="module")
def four(tmp_path_factory, all_without_films) -> Path:
    """Four epochs at once."""
    folder = tmp_path_factory.mktemp("four") / "run"
    train(tiny(f"run={folder}", "epochs=4", "keep=9"), [])
    return folder


@pytest.fixture
def two(four: Path, tmp_path: Path) -> Path:
    """The run after two of its four epochs: what came later is gone."""
    folder = shutil.copytree(four, tmp_path / "two")
    for epoch in (3, 4):
        shutil.rmtree(folder / "checkpoints" / f"epoch_00000{epoch}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["iris", "dart"])
def test_one_and_one_epoch_of_the_others_are_two(tmp_path, agent):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(tiny_of(agent, f"run={whole}", "epochs=2", "keep=9"), [])
    train(tiny_of(agent, f"run={halves}", "epochs=1", "keep=9"), [])
    resume(halves, "epochs=2")
    check_equal(whole, halves)


@pytest.mark.parametrize("parallel", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_and_two_epochs_are_four(four, tmp_path, parallel):
    folder = tmp_path / "run"
    train(tiny(f"run={folder}", "epochs=2", "keep=9", f"env.parallel={parallel}"), [])
    resume(folder, "epochs=4")
    check_equal(four, folder)


class AskedAt(Stop):
    """As if a signal came when somebody looks for the n-th time."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = n

    def __call__(self) -> bool:
        self.left -= 1
        if self.left <= 0:
            self.asked = signal.SIGTERM
        return super().__call__()


@pytest.mark.slow
def test_stopped_again_and_again(tmp_path, monkeypatch):
    """Wherever a run is asked to stop, it goes on from there as if nothing had been."""
    more = [
        f"{part}.{key}=9"
        for part in ("tokenizer", "dynamics", "policy")
        for key in ("updates", "first_updates")
    ]
    arguments = ("epochs=2", "keep=9", "evaluate_every=2", *more)
    train(tiny(f"run={tmp_path / 'whole'}", *arguments), [])
    looks = iter(range(2, 200, 4))  # more each time: an evaluation that was cut short begins anew
    monkeypatch.setattr(
        "agent.runs.run.stoppable", lambda: contextlib.nullcontext(AskedAt(next(looks)))
    )
    folder, stages = tmp_path / "run", set()
    config, overrides = tiny(f"run={folder}", *arguments), []
    while config is not None:
        try:
            train(config, overrides)
            config = None
        except SystemExit as end:
            assert end.code == AGAIN
            saved = checkpoint.load(folder)
            stages.add(
                (
                    saved.paused,
                    saved.state["run_state"]["stage"],
                    saved.state["run_state"]["done"] > 0,
                )
            )
            if (
                saved.epoch == 1 and saved.state["run_state"]["stage"] != "evaluate"
            ):  # in the middle of the second: no end
                with pytest.raises(BadInput, match="has all its 1 epochs"):
                    resume(folder, "epochs=1")
            config, overrides = TrainConfig(resume=str(folder)), [f"resume={folder}"]
    within = {(True, stage, True) for stage in ("collect", "tokenizer", "dynamics", "policy")}
    assert stages >= within | {(True, "evaluate", False)}
    check_equal(tmp_path / "whole", folder)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "epoch_000001",
        "epoch_000002",
    ]


def test_a_crash_loses_nothing_but_time(four, two):
    """What metrics.csv and TensorBoard got after the last checkpoint does not appear twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = read_metrics(two / "metrics.csv")
    assert len(rows) == 4
    minutes = checkpoint.load(two).state["minutes"]
    resume(two)
    check_equal(four, two)
    events = EventAccumulator(str(two / "tensorboard")).Reload()
    steps = [event.step for event in events.Scalars("tokenizer/loss")]
    assert steps == [row["step"] for row in rows]
    first, second, third, _ = (row["minutes"] for row in read_metrics(two / "metrics.csv"))
    assert first == rows[0]["minutes"] and second < minutes < third < minutes + 10


@pytest.mark.slow
def test_from_an_older_checkpoint(four, tmp_path, capsys):
    """What the run did after it is given up, and said so; nothing of it remains."""
    folder = shutil.copytree(four, tmp_path / "run")
    assert [*folder.glob("evaluation_agent_epoch_000004*")]
    (folder / "films").mkdir(exist_ok=True)
    (folder / "films" / "epoch_000004_dream.mp4").touch()
    cache = folder / "wandb" / "run-1" / "logs" / "debug-core.log"  # as Weights & Biases makes one
    cache.parent.mkdir(parents=True)
    cache.symlink_to(tmp_path / "elsewhere")
    resume(folder / "checkpoints" / "epoch_000002", "epochs=3")
    assert not [*folder.glob("evaluation_*_epoch_000004*"), *folder.glob("films/epoch_000004*")]
    assert [*folder.glob("evaluation_agent_epoch_000003*")] and cache.is_symlink()
    said = capsys.readouterr().out
    assert "epoch_000002: what the run did after it, up to" in said and said.count("changed: ") == 1
    assert "changed: epochs was 4 and is 3 from now on\n" in said
    assert [row["epoch"] for row in read_metrics(folder / "metrics.csv")] == [1, 2, 3]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        f"epoch_00000{i}" for i in (1, 2, 3)
    ]
    needed = {
        chunk.path
        for epoch in (1, 2, 3)
        for chunk in checkpoint.load(folder / "checkpoints" / f"epoch_00000{epoch}").chunks
    }
    assert {f"replay/{path.name}" for path in (folder / "replay").iterdir()} == needed
    resume(folder, "epochs=4")
    check_equal(four, folder)


@pytest.mark.slow
def test_a_memory_map_and_a_full_ring(tmp_path):
    """The replay overwrites its oldest rows; half an episode remains of some."""
    ring = ("replay.capacity=90", "replay.storage=memmap", "keep=1")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(tiny(f"run={whole}", "epochs=4", *ring), [])
    train(tiny(f"run={halves}", "epochs=3", *ring), [])
    resume(halves, "epochs=4")
    # Files of rows end at other places where the run did; what is held is the same.
    ours, theirs = checkpoint.load(whole), checkpoint.load(halves)
    for part in ("agent", "replay", "collector", "random", "policy_optimizer"):
        for name, value in ours.tensors[part].items():
            assert torch.equal(value, theirs.tensors[part][name]), (part, name)


@pytest.mark.slow
def test_crafter(tmp_path):
    """Episodes of at most 60 steps, so that some have just ended when the checkpoint is taken."""
    overrides = ("collect.steps=47", "evaluation.episodes=1")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(tiny(f"run={whole}", "epochs=2", *overrides, base=TINY_CRAFTER), [])
    train(tiny(f"run={halves}", "epochs=1", *overrides, base=TINY_CRAFTER), [])
    resume(halves, "epochs=2")
    check_equal(whole, halves)


@pytest.mark.slow
def test_episodes_that_have_just_ended(tmp_path):
    """Catch ends after 9 steps: after 27 steps of 3 environments all have just ended."""
    overrides = ("collect.first_steps=27", "collect.steps=40")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(tiny(f"run={whole}", "epochs=2", *overrides), [])
    train(tiny(f"run={halves}", "epochs=1", *overrides), [])
    assert checkpoint.load(halves).tensors["collector"]["done"].all()
    resume(halves, "epochs=2")
    check_equal(whole, halves)


SAVED = tiny()


def test_some_keys_may_change():
    given = ["resume=x", "epochs=9", "evaluation.episodes=3", "logger=csv", "+keep=4"]
    expected = replace(SAVED, epochs=9, logger=["csv"], keep=4)
    expected.evaluation = replace(SAVED.evaluation, episodes=3)
    assert resumed_config(SAVED, given) == expected
    same = ["seed=0", "agent.policy.hidden=8", "experiment=catch", "env=gym"]
    assert resumed_config(SAVED, same) == SAVED
    assert list(differences(SAVED, tiny("epochs=9", "run=elsewhere"))) == [("epochs", 2, 9)]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        *((given, "leave it out") for given in ("agent=dart", "agent/policy=vit", "quantizer=fsq", "env=crafter", "experiment=crafter")),
        *((given, "may change epochs") for given in ("seed=1", "agent.policy.hidden=9", "env.id=x", "run=y")),
    ],
)  # fmt: skip
def test_others_may_not(given, sentence):
    with pytest.raises(BadInput, match=sentence) as refusal:
        resumed_config(SAVED, [given])
    assert given in str(refusal.value)


def test_a_folder_for_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted, other = wanted_folder(tiny()), wanted_folder(tiny())  # of the same second
    assert wanted.parent == other.parent == Path("runs/catch") and wanted != other
    config = tiny(f"run={tmp_path / 'new'}")
    with pytest.raises(BadInput), claim(wanted_folder(config)):
        raise BadInput("refused")
    assert list(tmp_path.iterdir()) == []
    with claim(wanted_folder(config)):  # killed before its first checkpoint
        (tmp_path / "new" / "metrics.csv").touch()
    assert wanted_folder(config) == tmp_path / "new"
    (tmp_path / "new" / ".lock").unlink()  # somebody else's
    with pytest.raises(BadInput, match="exists already"):
        wanted_folder(config)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be written to"), claim(tmp_path / "file" / "below"):
        pass


def test_load_agent(four):
    agent, config, saved = load_agent(four, torch.device("cpu"))
    precision = config.precision  # what "auto" came to
    assert precision in ("bf16", "fp32")
    assert config == tiny(
        f"run={four}", "epochs=4", "keep=9", f"precision={precision}", "learner.mode=eager"
    )
    assert not agent.training and saved.epoch == 4
    older, _, saved = load_agent(four / "checkpoints" / "epoch_000001", torch.device("cpu"))
    assert saved.epoch == 1
    assert not torch.equal(older.policy.actor.weight, agent.policy.actor.weight)


@pytest.mark.parametrize(("key", "value"), [("nops", 1), ("size", 64)])
def test_the_environment_of_evaluation_is_tried_at_the_door(tmp_path, key, value):
    pong = ("env.id=deltadream/Atari-v0", "env.game=Pong", "env.kwargs.size=32")
    config = tiny(*pong, f"run={tmp_path / 'run'}")
    config.env.evaluation_kwargs = {key: value}
    with pytest.raises(BadInput, match="nops" if key == "nops" else "evaluation_kwargs"):
        train(config, [])
    assert list(tmp_path.iterdir()) == []


def test_an_edited_config_does_not_count(two, capsys):
    """It is said once, beside what the command line changes."""
    file = two / "config.yaml"
    text = file.read_text()
    file.write_text(text.replace("hidden: 8", "hidden: 16"))
    resume(two, "epochs=3")
    out = capsys.readouterr().out
    assert f"{file} was edited (agent.policy.hidden=16), and is not read: the checkpoint" in out
    assert "changed: epochs was 4 and is 3 from now on\n" in out
    assert checkpoint.load(two).state["config"]["agent"]["policy"]["hidden"] == 8
    assert yaml.safe_load(file.read_text()) == yaml.safe_load(text) | {"epochs": 3}


def test_rewards_that_are_cut_are_told_of_once(tmp_path, capsys, monkeypatch):
    step = CatchEnv.step

    def generous(self, action):
        seen, _, *rest = step(self, action)
        return seen, 1e9, *rest

    monkeypatch.setattr(CatchEnv, "step", generous)
    train(tiny(f"run={tmp_path / 'run'}", "epochs=3", "evaluate_every=9"), [])
    assert capsys.readouterr().err.count("size 1e+09 all count as 4.9e+08") == 1
