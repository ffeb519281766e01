import signal

import pytest


def pytest_configure() -> None:
    """Have Ctrl-C work as at a terminal, for the tests and the processes they start.

    A shell has its background processes ignore it, and children inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the commands as slow, but for training, and run the longest first.

    At the end one worker would be left alone with one of them.
    """
    for item in items:
        if item.path.parent.name == "scripts" and item.path.name != "test_train.py":
            item.add_marker("slow")
    items.sort(
        key=lambda item: (
            item.get_closest_marker("timeout") is None,
            item.get_closest_marker("slow") is None,
        )
    )
