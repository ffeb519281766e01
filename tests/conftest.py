import signal


def pytest_configure() -> None:
    """Ctrl-C is what it is at a terminal, for the tests and for what they start: a shell has what it starts in the
    background ignore it, and that passes from process to process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
