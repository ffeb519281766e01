"""What user code imports: `from deltadream import train, evaluate, load, make_env`.

Importing it registers the environments deltadream/Crafter-v1, deltadream/Catch-v0,
deltadream/Atari-v0 and deltadream/Dream-v0 with Gymnasium, and does not import torch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import agent  # noqa: F401  (registers the environments)

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.dream.stable_baselines import StableBaselines
    from agent.evaluation.evaluate import Evaluation
    from agent.runs.api import configure, evaluate, load, make_env, register_env, train
    from agent.training.callbacks import Callback
    from envs.errors import BadInput

__version__ = version("deltadream")
__all__ = [
    "Agent",
    "BadInput",
    "Callback",
    "Evaluation",
    "StableBaselines",
    "configure",
    "evaluate",
    "load",
    "make_env",
    "register_env",
    "train",
]

_HOMES = {
    "Agent": "agent.agent",
    "BadInput": "envs.errors",
    "Callback": "agent.training.callbacks",
    "Evaluation": "agent.evaluation.evaluate",
    "StableBaselines": "agent.dream.stable_baselines",
}


def __getattr__(name: str) -> Any:
    """A public name, imported where it is first used: some take seconds."""
    if name not in __all__:
        raise AttributeError(f"module 'deltadream' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "agent.runs.api")), name)
