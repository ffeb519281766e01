"""Nothing in a run's folder runs code; what is not ours is refused in one sentence."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from agent.runs.resume import load_run
from agent.storage import checkpoint
from envs.errors import BadInput


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_pickle_never_runs(tmp_path: Path, monkeypatch) -> None:
    """Not even one whose digest is known."""
    monkeypatch.chdir(tmp_path)
    torch.save({"w": torch.zeros(3), "bomb": Bomb()}, tmp_path / "bomb.pt")
    for data in (pickle.dumps(Bomb()), (tmp_path / "bomb.pt").read_bytes()):
        path = tmp_path / "agent.safetensors"
        path.write_bytes(data)
        with pytest.raises(Exception, match=r"."):
            checkpoint.read_tensors(path, hashlib.sha256(data).hexdigest())
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda config: config.update(more=1), "Key 'more' not in"),
        (lambda config: config.update(epochs="many"), "Value .many. of type"),
        (lambda config: config["env"].update(id="antigravity:Env-v0"), "if you trust it"),
    ],
)
def test_a_state_of_another_version(trained: Path, tmp_path: Path, change: Callable, what: str):
    saved = checkpoint.load(trained)
    change(saved.state["config"])
    checkpoint.save(tmp_path, 1, saved.tensors, saved.state, keep=1)
    with pytest.raises(BadInput, match=what) as refused:
        load_run(str(tmp_path), ["epochs=9"])
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)
