import signal

import pytest


def pytest_configure() -> None:
    """Ctrl-C is what it is at a terminal, for the tests and for what they start: a shell has what it starts in the
    background ignore it, and that passes from process to process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The commands as processes are slow, but for training. The longest first: at the end a worker would be left alone with one of them."""
    for item in items:
        if item.path.parent.name == "scripts" and item.path.name != "test_train.py":
            item.add_marker("slow")
    items.sort(key=lambda item: (item.get_closest_marker("timeout") is None, item.get_closest_marker("slow") is None))
