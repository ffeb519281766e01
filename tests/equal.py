"""Whether two runs came to the same."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch

from agent.storage import checkpoint

UNEQUAL = (
    "seconds/",
    "rates/",
    "memory_gb",
    "checkpoint_gb",
    "minutes",
)  # what the machine decides


def check_equal(one: Path, other: Path) -> None:
    """Two runs' newest checkpoints, replay rows, curves and evaluations, to the last bit."""
    ours, theirs = checkpoint.load(one), checkpoint.load(other)
    assert ours.epoch == theirs.epoch
    assert ours.tensors.keys() == theirs.tensors.keys()
    for part, tensors in ours.tensors.items():
        assert tensors.keys() == theirs.tensors[part].keys()
        for name, value in tensors.items():
            assert torch.equal(value, theirs.tensors[part][name]), (part, name)
    states = [saved.state | {"config": None, "minutes": None} for saved in (ours, theirs)]
    for name, state in states[0].items():
        assert state == states[1][name], name
    rows = [
        {
            name: torch.cat([saved.rows(chunk)[name] for chunk in saved.chunks])
            for name in ("frames", "actions", "rewards")
        }
        for saved in (ours, theirs)
    ]
    for name, column in rows[0].items():
        assert torch.equal(column, rows[1][name]), name
    assert curves(one) == curves(other) and len(curves(one)) == ours.epoch
    assert evaluations(one, ours.epoch) == evaluations(other, ours.epoch)


def curves(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without what the machine decides."""
    with (run / "metrics.csv").open() as file:
        return [
            {name: text for name, text in row.items() if not name.startswith(UNEQUAL)}
            for row in csv.DictReader(file)
        ]


def evaluations(run: Path, epoch: int) -> dict[str, Any]:
    """Name of a file of that epoch -> what it tells, but for where the checkpoint lies."""
    paths = run.glob(f"evaluation_*_epoch_{epoch:06d}_*.json")
    return {path.name: json.loads(path.read_text()) | {"checkpoint": None} for path in paths}


def look(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and folder below, and whether it changed."""
    seen = {}
    for path in sorted(folder.rglob("*")):
        about, is_file = path.lstat(), path.is_file()
        changed = about.st_mtime_ns if is_file else 0  # what is in a folder is seen anyway
        data = path.read_bytes() if is_file else b""
        seen[str(path.relative_to(folder))] = (about.st_mode, changed, data)
    return seen
