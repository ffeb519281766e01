"""An environment by its name, as an agent sees it."""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium

from envs.actions import ChooseActions
from envs.config import EnvConfig
from envs.errors import BadInput
from envs.failures import Conduct, Guarded, describe
from envs.images import is_picture
from envs.locate import check_can_render, find_image
from envs.observations import Frames
from envs.rendering import keep_contexts_apart
from envs.spaces import Spaces
from envs.wrappers import SeededEpisodes

# How ids begin -> the package that registers them.
OTHERS = {
    "ALE/": "ale_py",
    "MiniGrid-": "minigrid",
    "BabyAI-": "minigrid",
    "MinAtar/": "minatar.gym",
}
OF_A_CLASS = "python/"  # so begin the ids of environments that were made known in Python


def make_single(
    config: EnvConfig, seed: int, name: str | None = None, max_steps: int | None = None
) -> SeededEpisodes:
    """One environment, for videos and by hand. It ignores `config.parallel` and `config.timeout`.

    Its observations are frames `[size, size, channels]` uint8; its attribute `frames_text` says how
    they are made.

    Args:
        name: what the environment is called where it fails.
        max_steps: after which an episode is truncated.

    Raises:
        BadInput: the id is not registered, the constructor refuses the arguments, or the spaces are
            not accepted (`find_image`, `Frames`, `ChooseActions`).
    """
    return SeededEpisodes(
        Guarded(partial(_make_seen, config), conduct_of(config, name, max_steps)), seed
    )


def spaces_of(config: EnvConfig, seed: int) -> Spaces:
    """What an agent sees and does there.

    Raises:
        BadInput: an agent cannot play it.
    """
    env = make_single(config, seed)
    env.close()
    return Spaces.of(env)


def conduct_of(config: EnvConfig, name: str | None, max_steps: int | None) -> Conduct:
    return Conduct(
        name or config.name, config.on_error, config.timeout, config.max_restarts, max_steps
    )


def _make_seen(config: EnvConfig) -> ChooseActions:
    """What Gymnasium makes, as the agent has it; of many warnings alike, one is shown."""
    with warnings.catch_warnings(record=True) as warned:
        env = _make_quietly(config)
    for warning in warned:
        if str(warning.message) not in _warned:
            _warned.add(str(warning.message))
            warnings.showwarning(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return env


def _make_quietly(config: EnvConfig) -> ChooseActions:
    env = _make(config)
    try:
        for space in ("observation_space", "action_space"):
            why = ""
            try:
                found = getattr(env.unwrapped, space, None)
            except (Exception, SystemExit) as error:
                found, why = None, f" ({describe(error)})"
            if not isinstance(found, gymnasium.Space):
                raise BadInput(
                    f"The environment {config.name} has no {space}{why}; give it one, a "
                    "gymnasium.Space."
                )
        path = find_image(
            env.observation_space,
            config.pixels,
            config.image,
            config.layout,
            config.range is not None,
        )
        if path is None and env.render_mode != "rgb_array":
            check_can_render(env, config.pixels)
            _close(env)
            env = _make(replace(config, kwargs=config.kwargs | {"render_mode": "rgb_array"}))
        return ChooseActions(Frames(env, path, config), config.bins)
    except BadInput:
        _close(env)
        raise


def _close(env: gymnasium.Env) -> None:
    """Of one that fails in this, too, nothing more is wanted."""
    with suppress(Exception, SystemExit):
        env.close()


def _make(config: EnvConfig) -> gymnasium.Env:
    """What Gymnasium makes of the id. Raises BadInput if it makes nothing."""
    game: dict[str, Any] = {} if config.game is None else {"game": config.game}
    kwargs = _with_tuples(config.kwargs)
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
    own = _registered_by(module)  # none, of a module that registers others' environments
    near = _nearest(name, own or gymnasium.registry, 0.8 if module and not own else 0.5)
    near = [f"{module}:{found}" if module else found for found in near]
    near = [
        f"{package}:{name}"
        for prefix, package in OTHERS.items()
        if name.startswith(prefix) and module != package
    ] or near
    if not module and (game := game_of(name)):
        near = [f"Atari's {game} (env.id=deltadream/Atari-v0 env.game={game})"]
    hint = "; gymnasium.pprint_registry() lists those that are."
    if near:
        hint = f": did you mean {' or '.join(near)}?"
    if not module:
        hint += (
            " If another package has it, name that too, as in "
            "env.id=minigrid:MiniGrid-Empty-5x5-v0."
        )
    return f"No environment is registered as {id!r}{hint}"


def _with_tuples(value: Any) -> Any:
    """An argument of a constructor, in which what reads as a tuple is one."""
    if isinstance(value, dict):
        return {key: _with_tuples(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_tuples(inner) for inner in value]
    if isinstance(value, str) and value.startswith("(") and value.endswith(")"):
        with suppress(ValueError, SyntaxError):
            read = ast.literal_eval(value)
            return read if isinstance(read, tuple) else value
    return value


def _registered_by(module: str) -> list[str]:
    """The ids whose environments lie in the module or its package; none for no module."""
    package = module.partition(".")[0]
    places = {
        id: spec.entry_point
        if isinstance(spec.entry_point, str)
        else getattr(spec.entry_point, "__module__", "")
        for id, spec in gymnasium.registry.items()
    }
    return [
        id
        for id, place in places.items()
        if package and package == place.partition(":")[0].partition(".")[0]
    ]


def _nearest(name: str, ids: Iterable[str], cutoff: float) -> list[str]:
    """Those of the ids that are spelled most alike, whatever letters are capital."""
    spelled = {id.lower(): id for id in ids}
    return [
        spelled[found] for found in difflib.get_close_matches(name.lower(), spelled, cutoff=cutoff)
    ]


def check_is_meant(module: ModuleType, id: str) -> None:
    """Check that an import did not find another module than the working directory's.

    Raises:
        BadInput: the working directory has a module of this name, and ours or Python's was
            imported.
    """
    package = module.__name__.partition(".")[0]
    here = [
        place
        for place in (Path.cwd() / f"{package}.py", Path.cwd() / package / "__init__.py")
        if place.exists()
    ]
    found = getattr(sys.modules[package], "__file__", None)
    if here and (found is None or not Path(found).resolve().is_relative_to(Path.cwd().resolve())):
        raise BadInput(
            f"env.id={id} would take {package} from {found or 'Python itself'}, and not from "
            f"{here[0]}; give that another name."
        )


_asked: set[str] = set()
"""The modules whose `register_envs` was called."""

_warned: set[str] = set()
"""What was warned of."""


def _register(id: str) -> None:
    """Imports the module of "module:id", and has it register its environments if it did not do so.

    Raises:
        BadInput: the module cannot be imported; its own error is shown.
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
        check_is_meant(module, id)
        if (
            name not in gymnasium.registry
            and module_name not in _asked
            and hasattr(module, "register_envs")
        ):
            _asked.add(module_name)  # a second time, Gymnasium would warn of each
            module.register_envs()
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        raise BadInput(
            f"The module {module_name} of env.id={id} cannot be imported: {describe(error)}; "
            "correct it, install what it needs, or start the command where it lies."
        ) from error


def make_rendered(config: EnvConfig, seed: int) -> SeededEpisodes:
    """As `make_single`, with `render_mode` "rgb_array" if the environment can show pictures."""
    env = make_single(config, seed)
    if (
        "rgb_array" not in (env.metadata.get("render_modes") or [])
        or env.render_mode == "rgb_array"
    ):
        return env
    rendered = None
    with suppress(Exception, SystemExit):  # whatever a stranger's constructor or render() raises
        rendered = make_single(
            replace(config, kwargs=config.kwargs | {"render_mode": "rgb_array"}), seed
        )
        rendered.env.reset(seed=0)  # not one of the episodes
        picture = rendered.render()
        if is_picture(picture):
            env.close()
            return rendered
    if rendered is not None:
        rendered.close()
    return env
