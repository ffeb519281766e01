"""Killed anywhere, a run goes on as if nothing had been."""

import pytest

from tests.killing import STAGES, main


def test_twenty_kills(tmp_path):
    """In docs/reliability.md stands what `python -m tests.killing kills=1000` came to."""
    assert set(main(20, seed=1, folder=tmp_path)) == set(STAGES)
