"""A checkpoint that is not as it was written is named, and by choice the one before it is used."""

from __future__ import annotations

import os
import random
import re
import shutil
from pathlib import Path

import pytest
import torch

from agent.config import TrainConfig
from agent.runs.load import load_agent
from agent.runs.resume import load_run
from agent.runs.train import train
from agent.storage import checkpoint
from envs.errors import BadInput


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def folder(run: Path, epoch: int) -> Path:
    return checkpoint.folder_of(run, epoch)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def read_all(run: Path) -> None:
    """As resuming reads."""
    checkpoint.verify_rows(checkpoint.load(run))


@pytest.mark.parametrize("number", [100, pytest.param(10_000, marks=pytest.mark.long)])
def test_every_change_and_cut_is_named(run: Path, number: int):
    """A random byte of a random file changes, or a file is cut; one sentence names it."""
    for epoch in (1, 2):  # the sentence would look whether they are whole: that takes time
        shutil.rmtree(folder(run, epoch))
    saved, draw = checkpoint.load(run), random.Random(0)
    files = [*sorted(saved.folder.iterdir()), *(run / chunk.path for chunk in saved.chunks)]
    for i in range(number):
        path = draw.choice(files)
        data = path.read_bytes()
        offset = draw.randrange(len(data))
        changed = bytes([data[offset] ^ draw.randrange(1, 256)])
        path.write_bytes(data[:offset] + (changed + data[offset + 1 :] if i % 6 else b""))
        with pytest.raises(BadInput) as refused:
            read_all(run)
        sentence = str(refused.value)
        assert str(path) in sentence and sentence.endswith(".") and "\n" not in sentence
        path.write_bytes(data)
    read_all(run)


def test_the_sentence_says_which_checkpoint_to_give(run: Path):
    device = torch.device("cpu")
    flip(folder(run, 3) / "agent.safetensors")
    instead = re.escape(f"give the checkpoint before it, {folder(run, 2)}.")
    for path in (run, folder(run, 3)):
        with pytest.raises(BadInput, match=instead):
            load_agent(path, device)
    assert load_agent(folder(run, 2), device)[2].epoch == 2
    flip(folder(run, 2) / "state.json")
    with pytest.raises(BadInput, match=re.escape(f"before it, {folder(run, 1)}.")):
        checkpoint.load(run)
    flip(folder(run, 1) / "manifest.json")
    nothing = "epoch_000003/agent.safetensors .* no whole checkpoint before it"
    with pytest.raises(BadInput, match=nothing):
        checkpoint.load(run)


def test_one_that_needs_the_same_rows_is_not_proposed(run: Path):
    shared = run / checkpoint.load(run).chunks[1].path  # of the second and the third
    os.truncate(shared, 100)
    sentence = f"{shared.name} has 100 bytes.*before it, {re.escape(str(folder(run, 1)))}\\."
    with pytest.raises(BadInput, match=sentence):
        checkpoint.load(run)


def resume(run: Path, *overrides: str, epochs: int = 4) -> None:
    train(TrainConfig(resume=str(run)), [f"resume={run}", f"epochs={epochs}", *overrides])


@pytest.mark.slow
@pytest.mark.usefixtures("without_films")
@pytest.mark.parametrize("what", ["rows", "state.json"])
def test_stop_or_previous(run: Path, trained: Path, what: str, capsys):
    """With damaged=previous the run comes to the same, bit by bit, from the checkpoint before."""
    path = run / checkpoint.load(run).chunks[-1].path if what == "rows" else folder(run, 3) / what
    flip(path)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    instead = re.escape(f"before it, {folder(run, 2)} (damaged=previous does so).")
    with pytest.raises(BadInput, match=instead) as refused:
        resume(run)
    assert str(path) in str(refused.value)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before

    resume(run, "damaged=previous", epochs=3)
    said = capsys.readouterr().out
    assert f"{path} was changed after it was written" in said
    assert f"whole checkpoint is {folder(run, 2)}." in said
    assert f"Going on from {folder(run, 2)}" in said and f"up to {folder(run, 3)}, is" in said
    read_all(run)
    ours, theirs = checkpoint.load(run), checkpoint.load(trained)
    assert ours.state["config"]["damaged"] == "previous"
    for name, entry in theirs.tensors.items():
        assert all(torch.equal(ours.tensors[name][key], entry[key]) for key in entry), name
    assert [c.sha256 for c in ours.chunks] == [c.sha256 for c in theirs.chunks]


def test_the_choice_of_the_run_itself(run: Path):
    """It stands in the whole checkpoint's configuration; the command line's counts more."""
    flip(folder(run, 3) / "state.json")
    saved, config = load_run(str(run), ["epochs=4", "damaged=previous"])
    assert (saved.epoch, config.damaged) == (2, "previous")
    saved = checkpoint.load(folder(run, 2))
    saved.state["config"]["damaged"] = "previous"
    checkpoint.save(run, 2, saved.tensors, saved.state, saved.chunks, keep=3)
    flip(shutil.copytree(folder(run, 2), folder(run, 3)) / "random.safetensors")
    assert load_run(str(run), ["epochs=4"])[0].epoch == 2
    with pytest.raises(BadInput, match="random.safetensors .*damaged=previous does so"):
        load_run(str(run), ["epochs=4", "damaged=stop"])


@pytest.mark.parametrize("choice", ["stop", "previous"])
def test_all_are_damaged(run: Path, choice: str):
    for epoch in (1, 2, 3):
        flip(folder(run, epoch) / "agent.safetensors")
    path = re.escape(str(folder(run, 3) / "agent.safetensors"))
    with pytest.raises(BadInput, match=f"{path}.* no other checkpoint of the run is whole"):
        load_run(str(run), ["epochs=4", f"damaged={choice}"])
