"""The one error that is meant for a person."""


class BadInput(ValueError):
    """What was given cannot be used.

    The message is one sentence that says what was given, what is accepted and what to do. The
    commands print it alone and exit with code 2.
    """
