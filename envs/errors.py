"""The errors that are meant for a person, and others' errors in a sentence."""

import os
import traceback

# Files in the traceback of an error of drawing with MuJoCo.
RENDERERS = (
    "mujoco_rendering", "mujoco/render", "mujoco/gl", "mujoco/egl", "mujoco/osmesa",
    "dm_control/_render",
)  # fmt: skip


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

    Its message is `what` happened and the `remedy`; `trace` is the environment's own traceback.
    """

    def __init__(self, what: str, remedy: str, trace: str = "") -> None:
        super().__init__(what, remedy, trace)
        self.what, self.remedy, self.trace = what, remedy, trace

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}."


def describe(error: BaseException) -> str:
    """An error of somebody else's code, in a part of a sentence."""
    text = " ".join(str(error).split()).removesuffix(".")
    return f"{type(error).__name__}{f': {text[:300]}' if text else ''}{_remedy(error)}"


def _remedy(error: BaseException) -> str:
    if type(error).__module__ == "pygame" and "available" in str(error):
        return " (SDL_VIDEODRIVER=dummy draws without a screen)"
    trace = "".join(traceback.format_exception(error)).replace(os.sep, "/")
    if isinstance(error, ValueError) or not any(file in trace for file in RENDERERS):
        return ""
    if os.environ.get("MUJOCO_GL") == "egl":
        return " (MUJOCO_GL=egl needs the library libegl1, and PYOPENGL_PLATFORM unset)"
    return " (MUJOCO_GL=egl draws without a screen)"
