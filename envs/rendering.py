"""Several of Gymnasium's MuJoCo environments in one process."""

import sys
import warnings
from contextlib import suppress
from typing import Any

# Of a viewer that could not be made, when it is collected: the refusal has said so.
warnings.filterwarnings("ignore", ".*The GLFW library is not initialized")


def keep_contexts_apart() -> None:
    """Has each of Gymnasium's MuJoCo viewers draw, and free what it drew with, in its own context.

    By itself one draws in the context of the viewer made last, and what is freed there turns the
    other black.
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
