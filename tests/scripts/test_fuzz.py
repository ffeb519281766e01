"""In short; docs/reliability.md has what `python -m tests.fuzz` came to."""

import pytest

from tests.fuzz import main


@pytest.mark.slow
def test_each_configuration_trains_or_is_refused():
    outcomes = main(15, seed=1)
    assert outcomes.total() >= 15 and min(outcomes["trained"], outcomes["refused"]) > 1
