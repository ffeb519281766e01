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

    trace: what stands above it, of somebody else's code
    """

    trace = ""


class EnvironmentFailed(Stopped):
    """An environment raised an error of its own, hung or died, and is not to be restarted (`env.on_error`).

    Its text is one sentence, `what` happened and what is the `remedy`. The commands print it below the environment's own
    traceback, `trace`, where there is one, and exit with code 1.
    """

    def __init__(self, what: str, remedy: str, trace: str = "") -> None:
        super().__init__(what, remedy, trace)
        self.what, self.remedy, self.trace = what, remedy, trace

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}."
