"""Drawing without a screen, and in more than one environment of a process."""

import os
import sys
import traceback
import warnings
from contextlib import suppress
from typing import Any

DRAW = (
    "mujoco_rendering", "mujoco/render", "mujoco/gl", "mujoco/egl", "mujoco/osmesa",
    "dm_control/_render",
)  # fmt: skip

# Of a viewer that could not be made, when it is collected: the refusal has said so.
warnings.filterwarnings("ignore", ".*The GLFW library is not initialized")


def keep_contexts_apart() -> None:
    """Has each of Gymnasium's MuJoCo viewers draw, and free what it drew with, in its own context.

    By itself one draws in whatever context is current, that of the viewer made last. What it drew
    with is freed when it is collected, in whatever context is current then: a second environment
    shows black from there on.
    """
    module = sys.modules.get("gymnasium.envs.mujoco.mujoco_rendering")
    if module is None or module.OffScreenViewer.render.__module__ == __name__:
        return
    viewer = module.OffScreenViewer
    render_in_current, free_context = viewer.render, viewer.free

    def render(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.make_context_current()
        return render_in_current(self, *args, **kwargs)

    def free(self: Any) -> None:
        with suppress(Exception):  # one that was never whole, or is free already
            self.make_context_current()
            self.con.free()
        with suppress(Exception):
            free_context(self)

    viewer.render, viewer.free = render, free
    viewer.close = free  # Gymnasium's ends glfw besides, with all other windows


def remedy(error: BaseException) -> str:
    """What to do where MuJoCo or pygame cannot draw, in a sentence; "" for other errors."""
    if type(error).__module__ == "pygame" and "available" in str(error):
        return " (SDL_VIDEODRIVER=dummy draws without a screen)"
    cause: BaseException | None = error
    while cause is not None and not _is_of_drawing(cause):
        cause = cause.__cause__ or cause.__context__
    if cause is None or isinstance(cause, ValueError):  # the latter of a size, say
        return ""
    given = os.environ.get("MUJOCO_GL")
    if given != "egl":
        return f" (MUJOCO_GL is {given or 'unset'}; MUJOCO_GL=egl draws without a screen)"
    if isinstance(cause, ImportError | AttributeError):
        return " (MUJOCO_GL=egl needs the library libegl1, and PYOPENGL_PLATFORM unset)"
    return ""


def _is_of_drawing(error: BaseException) -> bool:
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return any(part in file.replace(os.sep, "/") for file in files for part in DRAW)
