"""The errors that are meant for a person."""


class BadInput(ValueError):
    """What was given cannot be used.

    The message is one sentence that says what was given, what is accepted and what to do. The
    commands print it alone and exit with code 2.
    """


class Stopped(RuntimeError):
    """A run had to stop, by no fault of what was given.

    The message is one sentence: why, what is left of the run, how to go on. The commands print it alone and exit with
    code 1.
    """
