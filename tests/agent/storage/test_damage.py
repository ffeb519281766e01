"""A checkpoint that is not as it was written is named, and by choice the one before it is used."""

from __future__ import annotations

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
from tests.agent.storage.test_checkpoint import rows, value_of, write


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def folder(run: Path, epoch: int) -> Path:
    return checkpoint.folder_of(run, epoch)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.slow
def test_every_flipped_byte_and_every_cut_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, 1, 1.0, [rows(tmp_path, 0, 4)])
    paths = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(paths) == 5
    bits = random.Random(0)
    for path in paths:
        data = path.read_bytes()
        damaged = [b"", data[:8], data[:-1], data + b"\0"]
        for position, byte in enumerate(data):
            flipped = bytes([byte ^ 1 << bits.randrange(8)])
            damaged.append(data[:position] + flipped + data[position + 1 :])
        for other in damaged:
            path.write_bytes(other)
            with pytest.raises(BadInput, match=path.name):
                value_of(tmp_path)
        path.unlink()
        for damage in (lambda: None, path.mkdir):  # missing, then a folder of that name
            damage()
            with pytest.raises(BadInput, match=path.name):
                value_of(tmp_path)
        path.rmdir()
        path.write_bytes(data)
    assert value_of(tmp_path) == 1.0


@pytest.mark.parametrize("number", [100, pytest.param(10_000, marks=pytest.mark.long)])
def test_every_change_and_cut_is_named(run: Path, number: int):
    """A random byte of a random file changes, or a file is cut; one sentence names it."""
    saved, draw = checkpoint.load(run), random.Random(0)
    paths = [*sorted(saved.folder.iterdir()), *(run / chunk.path for chunk in saved.chunks)]
    for i in range(number):
        path = draw.choice(paths)
        data = path.read_bytes()
        offset = draw.randrange(len(data))
        changed = bytes([data[offset] ^ draw.randrange(1, 256)])
        path.write_bytes(data[:offset] + (changed + data[offset + 1 :] if i % 6 else b""))
        with pytest.raises(BadInput) as refused:
            checkpoint.load(run).verify()
        sentence = str(refused.value)
        assert str(path) in sentence and sentence.endswith(".") and "\n" not in sentence
        path.write_bytes(data)
    checkpoint.load(run).verify()


def test_damaged_networks_are_not_played(run: Path):
    flip(folder(run, 3) / "agent.safetensors")
    with pytest.raises(BadInput, match="agent.safetensors was changed .* an earlier checkpoint"):
        load_agent(run, torch.device("cpu"))
    assert load_agent(folder(run, 2), torch.device("cpu"))[2].epoch == 2


@pytest.mark.slow
@pytest.mark.usefixtures("without_films")
@pytest.mark.parametrize("what", ["rows", "state.json"])
def test_stop_or_previous(run: Path, trained: Path, what: str, capsys):
    """With damaged=previous the run comes to the same, bit by bit, from the checkpoint before."""

    def resume(*overrides: str) -> None:
        train(TrainConfig(resume=str(run)), [f"resume={run}", *overrides])

    path = run / checkpoint.load(run).chunks[-1].path if what == "rows" else folder(run, 3) / what
    flip(path)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    whole = re.escape(f"{folder(run, 2)} is whole (damaged=previous goes on from it).")
    with pytest.raises(BadInput, match=whole) as refused:
        resume("epochs=4")
    assert str(path) in str(refused.value)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before

    resume("epochs=3", "damaged=previous")
    said = capsys.readouterr().out
    assert f"{path} was changed after it was written" in said
    assert f"whole checkpoint is {folder(run, 2)}." in said
    assert f"Going on from {folder(run, 2)}" in said and f"up to {folder(run, 3)}, is" in said
    ours, theirs = checkpoint.load(run), checkpoint.load(trained)
    ours.verify()
    assert ours.state["config"]["damaged"] == "previous"
    for name, entry in theirs.tensors.items():
        assert all(torch.equal(ours.tensors[name][key], entry[key]) for key in entry), name
    assert [c.sha256 for c in ours.chunks] == [c.sha256 for c in theirs.chunks]


def test_the_choice_of_the_run_itself(run: Path):
    """It stands in the whole checkpoint's configuration; the command line's counts more."""
    saved = checkpoint.load(folder(run, 2))
    saved.state["config"]["damaged"] = "previous"
    checkpoint.save(run, 2, saved.tensors, saved.state, saved.chunks, keep=3)
    flip(shutil.copytree(folder(run, 2), folder(run, 3)) / "random.safetensors")
    assert load_run(str(run), ["epochs=4"])[0].epoch == 2
    with pytest.raises(BadInput, match="random.safetensors .*damaged=previous goes on"):
        load_run(str(run), ["epochs=4", "damaged=stop"])
    for epoch in (1, 2):
        flip(folder(run, epoch) / "agent.safetensors")
    with pytest.raises(BadInput, match=r"random.safetensors .*: none before it is whole\."):
        load_run(str(run), ["epochs=4"])
