"""In short; docs/reliability.md has what `python -m tests.fuzz` came to."""

import pytest

from tests.fuzz import fuzz, fuzz_commands


@pytest.mark.slow
def test_a_hundred_configurations():
    outcomes = fuzz(100, seed=1)
    assert outcomes["trained"] > 20 and outcomes["refused"] > 20


@pytest.mark.slow
def test_command_lines():
    outcomes = fuzz_commands(25, seed=1)
    assert outcomes["refused"] > 10
