"""The errors that are meant for a person."""


class BadInput(ValueError):
    """What was given cannot be used.

    The message is one sentence that says what was given, what is accepted and what to do. The
    commands print it alone and exit with code 2.
    """


class Stopped(RuntimeError):
    """A run had to stop, by no fault of what was given.

    The message is one sentence: why, what is left of the run, how to go on. The commands print it
    alone and exit with code 1.

    Attributes:
        trace: the traceback of somebody else's code, printed above the message.
    """

    trace = ""


class EnvironmentFailed(Stopped):
    """An environment raised an error, hung or died, and may not be restarted (`env.on_error`).

    The message is one sentence: `what` happened, and the `remedy`. The commands print it below the
    environment's own traceback (`trace`), if there is one, and exit with code 1.
    """

    def __init__(self, what: str, remedy: str, trace: str = "") -> None:
        super().__init__(what, remedy, trace)
        self.what, self.remedy, self.trace = what, remedy, trace

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}."
