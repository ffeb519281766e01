"""Nothing that lies in a run's folder runs, leads out of it, or takes the machine's memory: one sentence instead."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from agent import checkpoint, files
from agent.agent import Agent
from agent.config import TrainConfig
from agent.dreams import dreams_of
from agent.logger import make_logger, read_metrics
from agent.report.runs import find_runs
from agent.run import WRITTEN, train
from agent.saved import config_from_state, load_agent, load_run, spaces_from_state
from agent.trainer import Trainer
from envs.errors import BadInput
from envs.vector import closing
from tests.attacks import ATTACKS, attack, attack_rows, bounded, look, resign, vouch

CPU = torch.device("cpu")
QUICK = ("pickle", "yaml tag", "header bomb", "deep", "sparse", "pipe", "link out")
EACH = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ATTACKS]


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch) -> Path:
    """The newest checkpoint of a run, beside an empty working directory."""
    for name in ("here", "outside"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = shutil.copytree(trained, tmp_path / "run")
    for epoch in (1, 2):
        shutil.rmtree(checkpoint.folder_of(run, epoch))
    return run


@pytest.fixture
def outside(run: Path) -> Path:
    return run.parent / "outside"


def check_refused(run: Path, call: Callable[[], object], *named: str) -> None:
    """In one sentence; nothing ran, nothing changed, in the run or outside."""
    before = look(run.parent)
    with bounded(), pytest.raises(BadInput) as refused:
        call()
    sentence = str(refused.value)
    assert sentence.endswith((".", "?")) and "\n" not in sentence and len(sentence) < 1000, sentence
    assert all(name in sentence for name in named), sentence
    assert look(run.parent) == before


def resume(run: Path) -> None:
    """As far as it goes before anything is made."""
    saved, _ = load_run(str(run), ["epochs=5"])
    for chunk in saved.chunks:
        checkpoint.read_rows(saved.run, chunk)


@pytest.mark.parametrize("what", EACH)
@pytest.mark.parametrize("file", ["manifest.json", "state.json", "agent.safetensors"])
def test_a_file_of_a_checkpoint(run: Path, outside: Path, file: str, what: str):
    attack(checkpoint.folder_of(run, 3) / file, what, outside)
    named = {"interpolation": "${oc.env:HOME}", "many lists": "The checkpoint's configuration", "giant number": "state"}
    named = [named.get(what, file) if file == "state.json" else file]
    check_refused(run, lambda: load_agent(run, CPU), *named)
    check_refused(run, lambda: resume(run), *named)


@pytest.mark.slow
@pytest.mark.parametrize("what", EACH)
@pytest.mark.parametrize("file", ["policy_optimizer.safetensors", "replay.safetensors", "rows"])
def test_a_file_that_only_resuming_reads(run: Path, outside: Path, file: str, what: str):
    if file == "rows":
        path = attack_rows(run, what, outside)
    else:
        attack(path := checkpoint.folder_of(run, 3) / file, what, outside)
    check_refused(run, lambda: resume(run), path.name)
    load_agent(run, CPU)  # which reads none of them


@pytest.mark.parametrize("what", EACH)
@pytest.mark.parametrize("file", ["config.yaml", "metrics.csv", "evaluation"])
def test_what_a_report_reads(run: Path, outside: Path, file: str, what: str):
    """It leaves the file out, with a line that names it; a log is read as far as it goes."""
    path = next(run.glob("evaluation_*.json")) if file == "evaluation" else run / file
    attack(path, what, outside)
    before = look(run.parent)
    if file == "config.yaml":
        if what == "folder":  # then it names no run
            check_refused(run, lambda: find_runs(run), "holds no run")
        else:
            check_refused(run, lambda: find_runs(run), str(run), "config.yaml")
        return
    with bounded():
        (found,), left_out = find_runs(run)
    if file == "evaluation":
        assert found.evaluation is None
    lines = [] if file == "metrics.csv" and what in ("nothing", "one long line") else [path.name]  # a log without rows
    assert len(left_out) == len(lines) and all(name in line and "\n" not in line for name, line in zip(lines, left_out, strict=True))
    assert look(run.parent) == before


@pytest.mark.parametrize("what", ["sparse", "pipe", "link out", "loop", "device", "folder"])
def test_a_log_that_is_gone_on_with(run: Path, outside: Path, what: str):
    attack(run / "metrics.csv", what, outside)
    check_refused(run, lambda: read_metrics(run / "metrics.csv"), "metrics.csv")
    check_refused(run, lambda: make_logger(["csv"], run, {}, 3), "metrics.csv")


@pytest.mark.slow
@pytest.mark.parametrize("name", [".lock", "README.txt", "curves.png", "films", "tensorboard", "replay/.writing-53", "checkpoints/.writing-epoch_000004"])
@pytest.mark.parametrize("what", ["link", "pipe", "socket"])
def test_what_a_resumed_run_would_write_to(run: Path, outside: Path, name: str, what: str):
    """A link would have it written outside, a pipe would never be read."""
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if what == "link":
        path.symlink_to(outside / "target")
    elif what == "pipe":
        os.mkfifo(path)
    else:
        os.chdir(path.parent)  # a socket's name may have some hundred characters only
        socket.socket(socket.AF_UNIX).bind(path.name)
        os.chdir(run.parent / "here")
    check_refused(run, lambda: train(TrainConfig(resume=str(run)), [f"resume={run}", "epochs=5"]), path.name)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_resumed_run_would_write_to_is_of_another_kind(run: Path, name: str):
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.mkdir() if path.suffix else path.touch()
    check_refused(run, lambda: train(TrainConfig(resume=str(run)), [f"resume={run}", "epochs=5"]))


def test_a_written_file_takes_the_place_of_a_link(run: Path, outside: Path):
    (outside / "target").write_text("as it was")
    for name in ("new.json", ".writing-new.json"):
        (run / name).symlink_to(outside / "target")
    files.write(run / "new.json", b"{}")
    assert (run / "new.json").read_bytes() == b"{}" and not (run / "new.json").is_symlink()
    os.mkfifo(run / "pipe.json")
    with pytest.raises(OSError, match="not a regular file"):
        files.write(run / "pipe.json", b"{}")
    assert (outside / "target").read_text() == "as it was"


def change_state(run: Path, change: Callable[[dict], object]) -> None:
    folder = checkpoint.folder_of(run, 3)
    state = json.loads((folder / "state.json").read_text())
    change(state)
    (folder / "state.json").write_text(json.dumps(state))
    vouch(folder, folder / "state.json")


def settings_of(config: dict, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where its whole numbers stand."""
    return [
        path
        for name, value in config.items()
        for path in (settings_of(value, (*prefix, name)) if isinstance(value, dict) else [(*prefix, name)] if type(value) is int else [])
    ]


@pytest.mark.slow
def test_declared_sizes(run: Path, trained: Path):
    """A number of the configuration that says how large a network is takes no memory before the files bear it out."""
    config = checkpoint.load(trained).state["config"]
    places, accepted = settings_of(config["agent"]), []
    kept = (checkpoint.folder_of(run, 3) / "state.json").read_bytes()
    for place in places:
        for size in (10**6, 2**31 - 1, 10**18):

            def change(state: dict, place=place, size=size) -> None:
                inner = state["config"]["agent"]
                for name in place[:-1]:
                    inner = inner[name]
                inner[place[-1]] = size

            change_state(run, change)
            try:
                check_refused(run, lambda: load_agent(run, CPU))
            except pytest.fail.Exception:
                accepted.append(place)
        (checkpoint.folder_of(run, 3) / "state.json").write_bytes(kept)
        vouch(checkpoint.folder_of(run, 3), checkpoint.folder_of(run, 3) / "state.json")
    assert len(places) > 20 and set(accepted) == {("tokenizer", "quantizer", "revival_updates")}  # which is no size


BROKEN_STATES: dict[str, Callable[[dict], object]] = {
    "no configuration": lambda state: state.pop("config"),
    "a configuration that is a list": lambda state: state.update(config=[1]),
    "a configuration that is text": lambda state: state.update(config="${oc.env:HOME}"),
    "a resolver": lambda state: state["config"].update(seed="${oc.decode:1}"),
    "an interpolation in a list": lambda state: state["config"].update(logger=["${oc.env:HOME}"]),
    "an interpolation as a key": lambda state: state["config"]["env"]["kwargs"].update({"${oc.env:HOME}": 1}),
    "a class to make": lambda state: state["config"]["agent"].update(_target_="os.system"),
    "an unknown key": lambda state: state["config"].update(more=1),
    "a wrong type": lambda state: state["config"].update(agent=[]),
    "an unknown kind": lambda state: state["config"]["agent"]["policy"].update(kind="os.system"),
    "ten thousand settings": lambda state: state["config"]["env"]["kwargs"].update({f"k{i}": i for i in range(10_000)}),
    "a million environments": lambda state: state["config"]["evaluation"].update(num_envs=10**6, episodes=10**6),
    "no spaces": lambda state: state.pop("spaces"),
    "no actions": lambda state: state["spaces"].update(actions=[]),
    "giant frames": lambda state: state["spaces"].update(size=2**40),
    "other frames": lambda state: state["spaces"].update(size=64),
    "many actions": lambda state: state["spaces"].update(actions=[2**16] * 3),
    "a module": lambda state: state["config"]["env"].update(id="antigravity:Env-v0"),
}  # fmt: skip


@pytest.mark.parametrize("change", BROKEN_STATES.values(), ids=BROKEN_STATES)
def test_states_that_lie(run: Path, change: Callable[[dict], object]):
    change_state(run, change)
    check_refused(run, lambda: load_agent(run, CPU))
    check_refused(run, lambda: resume(run))


# What a checkpoint that is vouched for may have wrong: (its tensors, its state) -> None, changed in place.
BROKEN_CONTENTS: dict[str, Callable[[dict, dict], object]] = {
    "no policy optimizer": lambda t, s: t.pop("policy_optimizer"),
    "a moment of another shape": lambda t, s: t["policy_optimizer"].update({k: torch.zeros(1) for k in t["policy_optimizer"]}),
    "whole-numbered moments": lambda t, s: t["policy_optimizer"].update({k: v.long() for k, v in t["policy_optimizer"].items()}),
    "no episodes": lambda t, s: t["replay"].clear(),
    "a column of another length": lambda t, s: t["replay"].update(start=torch.zeros(1, dtype=torch.int64)),
    "a column of another type": lambda t, s: t["replay"].update(start=t["replay"]["start"].float()),
    "an environment that there is not": lambda t, s: t["replay"]["env"].fill_(10**9),
    "episodes before the beginning": lambda t, s: t["replay"]["start"].fill_(-5),
    "episodes that end before they begin": lambda t, s: t["replay"]["stop"].zero_(),
    "two running episodes of one environment": lambda t, s: t["replay"]["closed"].zero_(),
    "negative counts": lambda t, s: t["replay"]["drawn/policy"].fill_(-1),
    "a column of nobody's": lambda t, s: t["replay"].update(more=t["replay"]["env"]),
    "no rows": lambda t, s: s["replay"].pop("ring"),
    "another ring": lambda t, s: s["replay"].update(ring=[2**40, 3]),
    "steps that are text": lambda t, s: s["replay"].update(vector_steps="many"),
    "a random state of another kind": lambda t, s: s["replay"].update(rng={"bit_generator": "MT19937"}),
    "a giant random state": lambda t, s: s["replay"]["rng"]["state"].update(state=10**100),
    "no positions": lambda t, s: s["collector"].clear(),
    "too few positions": lambda t, s: s["collector"]["positions"].pop(),
    "positions that are text": lambda t, s: s["collector"].update(positions=["abc"] * 3),
    "an action that there is not": lambda t, s: s["collector"]["positions"][0][2].append([99]),
    "frames of another shape": lambda t, s: t["collector"].update(frames=torch.zeros(3, 3, 8, 8, dtype=torch.uint8)),
    "players of other types": lambda t, s: t["collector"].update(done=t["collector"]["done"].float()),
    "no random state": lambda t, s: t.pop("random"),
    "no best": lambda t, s: s.pop("best"),
    "a state that is a list": lambda t, s: s.update(random=[1]),
}  # fmt: skip


@pytest.fixture(scope="module")
def trainer(trained: Path, tmp_path_factory) -> Iterator[Trainer]:
    saved = checkpoint.load(trained)
    config = config_from_state(saved.state)
    trainer = Trainer(config, tmp_path_factory.mktemp("trainer"), Agent(config.agent, spaces_from_state(saved.state)))
    with closing(trainer.envs):
        yield trainer


@pytest.mark.parametrize("change", BROKEN_CONTENTS.values(), ids=BROKEN_CONTENTS)
def test_contents_that_lie(trained: Path, trainer: Trainer, change: Callable[[dict, dict], object]):
    """What no checksum tells: files that are as they were written, by somebody else."""
    saved = checkpoint.load(trained)
    trainer.load(saved)
    change(saved.tensors, saved.state)
    with bounded(), pytest.raises(BadInput) as refused:
        trainer.load(saved)
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)


@pytest.mark.parametrize("change", [
    lambda rows: rows.pop("frames"), lambda rows: rows["actions"].fill_(99), lambda rows: rows.update(rewards=rows["rewards"].long()),
    lambda rows: rows.update(frames=rows["frames"][..., :8]),
], ids=["no frames", "other actions", "other rewards", "other frames"])  # fmt: skip
def test_rows_that_lie(run: Path, trainer: Trainer, change: Callable[[dict], object]):
    saved = checkpoint.load(run)
    last = saved.chunks[-1]
    rows = checkpoint.read_rows(run, last)
    change(rows)
    record = checkpoint.append_rows(run, last.first, last.last, rows)
    resign(saved.folder, lambda content: content["chunks"][-1].update(dataclasses.asdict(record)))
    with bounded(), pytest.raises(BadInput, match="version"):
        trainer.load(checkpoint.load(run))
    with bounded(), pytest.raises(BadInput, match="version"):
        dreams_of(run, 2)
