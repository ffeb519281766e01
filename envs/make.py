"""An environment by its name, as an agent sees it."""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.wrappers import TimeLimit

from envs.actions import ChooseActions
from envs.config import EnvConfig
from envs.errors import BadInput, describe
from envs.locate import check_can_render, find_image
from envs.observations import Frames
from envs.rendering import keep_contexts_apart
from envs.spaces import Spaces
from envs.wrappers import SeededEpisodes

# How ids begin -> the package that registers them.
OTHERS = {"ALE/": "ale_py", "MiniGrid-": "minigrid", "MinAtar/": "minatar.gym"}
OF_A_CLASS = "python/"  # so begin the ids of environments that were made known in Python


def make_single(config: EnvConfig, seed: int) -> SeededEpisodes:
    """One environment, for videos and by hand. It ignores `config.parallel` and `config.timeout`.

    Its observations are frames `[size, size, channels]` uint8; its attribute `frames_text` says how
    they are made.

    Raises:
        BadInput: the id is not registered, the constructor refuses the arguments, or the spaces are
            not accepted (`find_image`, `Frames`, `ChooseActions`).
    """
    return SeededEpisodes(partial(make_seen, config), seed, config)


def make_rendered(config: EnvConfig, seed: int) -> SeededEpisodes:
    """As `make_single`, with `render_mode` "rgb_array" if the environment can show pictures."""
    env = make_single(config, seed)
    modes = env.metadata.get("render_modes") or []
    if env.render_mode != "rgb_array" and "rgb_array" in modes:
        kwargs = config.kwargs | {"render_mode": "rgb_array"}
        with suppress(BadInput):  # a constructor that takes no render_mode, whatever it says
            rendered = make_single(replace(config, kwargs=kwargs), seed)
            env.close()
            return rendered
    return env


def spaces_of(config: EnvConfig, seed: int) -> Spaces:
    """What an agent sees and does there. Raises BadInput as `make_single`."""
    env = make_single(config, seed)
    env.close()
    return Spaces.of(env)


def make_seen(config: EnvConfig, max_steps: int | None = None) -> gymnasium.Env:
    """What Gymnasium makes of the id, as the agent has it. Raises BadInput as `make_single`."""
    env = _make(config, config.kwargs)
    for name in ("observation_space", "action_space"):
        if not isinstance(getattr(env.unwrapped, name, None), gymnasium.Space):
            raise BadInput(
                f"The environment {config.name} has no {name}; give it one, a gymnasium.Space."
            )
    has_range = config.range is not None
    path = find_image(env.observation_space, config.pixels, config.image, config.layout, has_range)
    if path is None and env.render_mode != "rgb_array":
        check_can_render(env, config.pixels)
        env.close()
        env = _make(config, config.kwargs | {"render_mode": "rgb_array"})
    chosen = ChooseActions(Frames(env, path, config), config.bins)
    return chosen if max_steps is None else TimeLimit(chosen, max_steps)


def _make(config: EnvConfig, kwargs: dict[str, Any]) -> gymnasium.Env:
    game: dict[str, Any] = {} if config.game is None else {"game": config.game}
    kwargs = _with_tuples(kwargs)
    try:
        _register(config.id)
        # Gymnasium's checker costs time at each step and is for tests.
        env = gymnasium.make(config.id, disable_env_checker=True, **game, **kwargs)
        keep_contexts_apart()
        return env
    except BadInput:
        raise
    except gymnasium.error.UnregisteredEnv as error:
        raise BadInput(_not_registered(config.id)) from error
    except (Exception, SystemExit) as error:
        raise BadInput(
            f"The environment {config.name} cannot be made with the arguments {kwargs}: "
            f"{describe(error)}; change env.id or env.kwargs, or install what it needs."
        ) from error


def _with_tuples(value: Any) -> Any:
    """An argument of a constructor, in which what reads as a tuple is one."""
    if isinstance(value, dict):
        return {key: _with_tuples(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_tuples(inner) for inner in value]
    if isinstance(value, str) and value.startswith("(") and value.endswith(")"):
        with suppress(ValueError, SyntaxError, TypeError):
            read = ast.literal_eval(value)
            return read if isinstance(read, tuple) else value
    return value


def _register(id: str) -> None:
    """Import the module of "module:id", and have it register its environments if it did not.

    Raises:
        BadInput: the module cannot be imported, or is another than the working directory's.
    """
    module_name, _, name = id.rpartition(":")
    if not module_name:
        return
    if module_name.endswith(".py") or "/" in module_name:
        raise BadInput(
            f"env.id={id} names a file; give its module, as in "
            f"env.id={Path(module_name).stem}:{name}, and start the command where it lies."
        )
    try:
        module = importlib.import_module(module_name)
        if name not in gymnasium.registry and hasattr(module, "register_envs"):
            module.register_envs()
    except (Exception, SystemExit) as error:
        raise BadInput(
            f"The module {module_name} of env.id={id} cannot be imported: {describe(error)}; "
            "correct it, install what it needs, or start the command where it lies."
        ) from error
    package = module_name.partition(".")[0]
    found = getattr(sys.modules[package], "__file__", None) or "Python itself"
    here = [Path.cwd() / f"{package}.py", Path.cwd() / package / "__init__.py"]
    if any(file.exists() for file in here) and not Path(found).resolve().is_relative_to(
        Path.cwd().resolve()
    ):
        raise BadInput(
            f"env.id={id} would take {package} from {found}, and not from {Path.cwd()}; give that "
            "another name."
        )


def _not_registered(id: str) -> str:
    """Why there is no such environment, and what may have been meant."""
    from envs.games.atari import game_of  # it has ALE register its games

    module, _, name = id.rpartition(":")
    if name.startswith(OF_A_CLASS):
        return (
            f"The environment {name} is a class or a function that was given to deltadream.train "
            "in Python, and this process does not know it; call deltadream.register_env(<it>) "
            "first, in Python, or play a run in env.id=<module>:<id>."
        )
    packages = [f"{own}:{name}" for prefix, own in OTHERS.items() if name.startswith(prefix)]
    game = None if module else game_of(name)
    spelled = {known.lower(): known for known in gymnasium.registry}
    near = difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=0.7)
    if packages and id not in packages:
        meant = packages[0]
    elif game:
        meant = f"Atari's {game} (env.id=deltadream/Atari-v0 env.game={game})"
    elif near:
        meant = f"{module}{module and ':'}{spelled[near[0]]}"
    else:
        return (
            f"No environment is registered as {id!r}; gymnasium.pprint_registry() lists those that "
            "are, and env.id=minigrid:MiniGrid-Empty-5x5-v0, say, is one of another package."
        )
    return f"No environment is registered as {id!r}: did you mean {meant}?"
