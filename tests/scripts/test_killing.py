"""Killed anywhere, a run goes on as if nothing had been."""

import pytest

from tests.killing import CALLS, main


@pytest.mark.slow
def test_kills(tmp_path):
    """In docs/reliability.md stands what `python -m tests.killing kills=1000` came to."""
    assert set(main(5, seed=4, folder=tmp_path)) == set(CALLS)
