"""In short; docs/reliability.md has what `python -m tests.fuzz` came to."""

import pytest

from tests.fuzz import main


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), [("configurations", 40), ("folders", 15)])
def test_each_is_done_or_refused(finished, kind: str, number: int):
    outcomes = main(kind, number, 1, finished)
    assert outcomes.total() >= number
    assert min(outcomes["trained"] + outcomes["done"], outcomes["refused"]) > number / 10
