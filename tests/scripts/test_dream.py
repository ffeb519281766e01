"""The pages' block that trains inside the dream, as it stands there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tests.scripts.commands import ROOT

COMMAND = "python scripts/train.py experiment=catch run=runs/catch_dream"


def block(page: str) -> str:
    """The Python of a page that trains inside the dream."""
    return next(
        b
        for b in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        if "Dream-v0" in b
    )


def test_the_page_says_what_comes_before():
    assert COMMAND in (ROOT / "docs/dream.md").read_text()


def test_what_learns_in_the_dream_plays_in_reality(catch: Path, tmp_path, monkeypatch):
    """catch: what the command leaves"""
    pytest.importorskip("stable_baselines3")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "catch_dream").symlink_to(catch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "block.py").write_text(block("docs/dream.md"))
    assert runpy.run_path(str(tmp_path / "block.py"))["mean"] >= 0.7
