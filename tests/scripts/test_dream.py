"""The page's block that trains inside the dream, as it stands there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tests.scripts.commands import ROOT


@pytest.mark.long
def test_what_learns_in_the_dream_plays_in_reality(catch: Path, tmp_path, monkeypatch):
    """catch: what the page's command before the block leaves"""
    pytest.importorskip("stable_baselines3")
    page = (ROOT / "docs/dream.md").read_text()
    assert "python scripts/train.py experiment=catch run=runs/catch_dream" in page
    (block,) = (
        block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "PPO" in block
    )
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "catch_dream").symlink_to(catch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "block.py").write_text(block)
    assert runpy.run_path(str(tmp_path / "block.py"))["mean"] >= 0.7
