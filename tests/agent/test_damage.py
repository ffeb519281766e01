"""A checkpoint that is not as it was written is named, and by choice the one before it is used."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from pathlib import Path

import pytest
import torch

from agent import checkpoint
from agent.config import TrainConfig
from agent.run import train
from agent.saved import load_agent, load_run
from envs.errors import BadInput

CPU = torch.device("cpu")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def folder(run: Path, epoch: int) -> Path:
    return checkpoint.folder_of(run, epoch)


def flip(path: Path, offset: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if offset is None else offset] ^= 1
    path.write_bytes(data)


def files_of(saved: checkpoint.Checkpoint) -> list[Path]:
    """Every file that a checkpoint needs, the replay's rows too."""
    return [*sorted(saved.folder.iterdir()), *(saved.run / chunk.path for chunk in saved.chunks)]


def read_all(run: Path) -> None:
    """As resuming reads."""
    saved = checkpoint.load(run)
    for chunk in saved.chunks:
        checkpoint.read_rows(saved.run, chunk)


def check_named(run: Path, path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        read_all(run)
    sentence = str(refused.value)
    assert str(path) in sentence and sentence.endswith(".") and "\n" not in sentence


def damage(run: Path, changes: int, cuts: int, seed: int) -> dict[str, int]:
    """Change a random byte of a random file to another value, then cut random files at random lengths, one at a time;
    each is named. -> how often which file was damaged."""
    for epoch in (1, 2):  # the sentence proposes them, and looks whether they are whole: that takes time
        shutil.rmtree(folder(run, epoch))
    draw, counts = random.Random(seed), {}
    files = files_of(checkpoint.load(run))
    contents = {path: path.read_bytes() for path in files}
    for i in range(changes + cuts):
        path = draw.choice(files)
        data = contents[path]
        offset = draw.randrange(len(data))
        if i < changes:
            with open(path, "r+b", buffering=0) as file:
                os.pwrite(file.fileno(), bytes([data[offset] ^ draw.randrange(1, 256)]), offset)
            check_named(run, path)
            with open(path, "r+b", buffering=0) as file:
                os.pwrite(file.fileno(), data[offset : offset + 1], offset)
        else:
            os.truncate(path, offset)
            check_named(run, path)
            path.write_bytes(data)
        counts[path.name] = counts.get(path.name, 0) + 1
    read_all(run)  # all is back
    return counts


def test_every_damage_is_named(run: Path):
    assert len(damage(run, changes=150, cuts=50, seed=0)) > 8


@pytest.mark.parametrize(
    ("changes", "cuts"), [pytest.param(1_000, 200, marks=pytest.mark.slow), pytest.param(10_000, 2_000, marks=pytest.mark.long)]
)
def test_thousands_of_changes_and_cuts(run: Path, changes: int, cuts: int):
    counts = damage(run, changes, cuts, seed=1)
    print("\n".join(f"{name:>60} {count:6,}" for name, count in sorted(counts.items())))
    assert sum(counts.values()) == changes + cuts and min(counts.values()) > (changes + cuts) / 24
    assert counts.keys() >= {"manifest.json", "state.json", "agent.safetensors", "policy_optimizer.safetensors"}


def test_the_sentence_says_which_checkpoint_to_give(run: Path):
    flip(folder(run, 3) / "agent.safetensors")
    for open_ in (lambda: checkpoint.load(run), lambda: load_agent(run, CPU), lambda: load_agent(folder(run, 3), CPU)):
        with pytest.raises(BadInput, match=re.escape(f"give the checkpoint before it, {folder(run, 2)}.")):
            open_()
    assert load_agent(folder(run, 2), CPU)[2].epoch == 2
    flip(folder(run, 2) / "state.json")
    with pytest.raises(BadInput, match=re.escape(f"before it, {folder(run, 1)}.")):
        checkpoint.load(run)
    flip(folder(run, 1) / "manifest.json")
    with pytest.raises(BadInput, match="epoch_000003/agent.safetensors .* no whole checkpoint before it"):
        checkpoint.load(run)


def test_one_that_needs_the_same_rows_is_not_proposed(run: Path):
    shared = run / checkpoint.load(run).chunks[1].path  # of the second and the third
    os.truncate(shared, 100)
    with pytest.raises(BadInput, match=re.escape(f"{shared.name} has 100 bytes") + ".*" + re.escape(f"before it, {folder(run, 1)}.")):
        checkpoint.load(run)


def resume(run: Path, *overrides: str, epochs: int = 4) -> None:
    train(TrainConfig(resume=str(run)), [f"resume={run}", f"epochs={epochs}", *overrides])


@pytest.mark.usefixtures("without_films")
@pytest.mark.parametrize("what", ["rows", *(pytest.param(what, marks=pytest.mark.slow) for what in ("agent.safetensors", "state.json", "manifest.json"))])
def test_stop_or_previous(run: Path, what: str, capsys):
    path = run / checkpoint.load(run).chunks[-1].path if what == "rows" else folder(run, 3) / what
    flip(path)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    with pytest.raises(BadInput, match=re.escape(f"before it, {folder(run, 2)} (damaged=previous does so).")) as refused:
        resume(run)
    assert str(path) in str(refused.value)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before

    resume(run, "damaged=previous")
    said = capsys.readouterr().out
    assert f"{path} was changed after it was written" in said and f"whole checkpoint is {folder(run, 2)}." in said
    assert f"Going on from {folder(run, 2)}: what the run did after it, up to {folder(run, 3)}, is given up." in said
    read_all(run)
    assert checkpoint.load(run).epoch == 4 and checkpoint.load(run).state["config"]["damaged"] == "previous"


@pytest.mark.usefixtures("without_films")
def test_what_follows_the_previous_one_is_what_followed_it_before(run: Path, trained: Path):
    """From the checkpoint before the damaged one on, the run comes to the same, bit by bit."""
    flip(folder(run, 3) / "collector.safetensors")
    resume(run, "damaged=previous", epochs=3)
    ours, theirs = checkpoint.load(run), checkpoint.load(trained)
    for name, entry in theirs.tensors.items():
        assert all(torch.equal(ours.tensors[name][key], tensor) for key, tensor in entry.items()), name
    assert [c.sha256 for c in ours.chunks] == [c.sha256 for c in theirs.chunks]


def test_the_choice_of_the_run_itself(run: Path):
    """It stands in the whole checkpoint's configuration; the command line's counts more."""
    flip(folder(run, 3) / "state.json")
    saved, config = load_run(str(run), ["epochs=4", "damaged=previous"])
    assert (saved.epoch, config.damaged) == (2, "previous")
    state = checkpoint.load(folder(run, 2)).state
    state["config"]["damaged"] = "previous"
    saved = checkpoint.load(folder(run, 2))
    checkpoint.save(run, 2, saved.tensors, state, saved.chunks, keep=3)
    flip(shutil.copytree(folder(run, 2), folder(run, 3)) / "random.safetensors")
    assert load_run(str(run), ["epochs=4"])[0].epoch == 2
    with pytest.raises(BadInput, match="random.safetensors .*damaged=previous does so"):
        load_run(str(run), ["epochs=4", "damaged=stop"])


@pytest.mark.parametrize("choice", ["stop", "previous"])
def test_all_are_damaged(run: Path, choice: str):
    for epoch in (1, 2, 3):
        flip(folder(run, epoch) / "agent.safetensors")
    with pytest.raises(BadInput, match=re.escape(str(folder(run, 3) / "agent.safetensors")) + ".* no other checkpoint of the run is whole"):
        load_run(str(run), ["epochs=4", f"damaged={choice}"])


def test_a_choice_that_there_is_not():
    with pytest.raises(BadInput, match="damaged=ignore is not known; choose one of stop, previous"):
        TrainConfig(damaged="ignore")


def test_no_device_is_stored(run: Path):
    """A checkpoint says nowhere on which device its tensors were: it opens on any."""
    saved = checkpoint.load(run)
    for path in files_of(saved):
        data = path.read_bytes()
        if path.suffix == ".safetensors":
            data = data[8 : 8 + int.from_bytes(data[:8], "little")]
            assert all(set(entry) == {"dtype", "shape", "data_offsets"} for entry in json.loads(data).values())
        assert b"cuda" not in data
    assert {t.device for entry in saved.tensors.values() for t in entry.values()} == {CPU}




@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_saved_on_cuda_opened_on_a_cpu(tmp_path: Path):
    tensors = {"net": {"w": torch.arange(6.0, device="cuda").view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16, device="cuda")}}
    checkpoint.save(tmp_path, 1, tensors, {}, keep=1)
    back = checkpoint.load(tmp_path).tensors["net"]
    assert all(back[name].device == CPU and torch.equal(back[name], t.cpu()) for name, t in tensors["net"].items())
