"""Environments by name: one of them, or many stepped together."""

import difflib
import importlib
import multiprocessing
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from envs.actions import BINS, ChooseActions
from envs.errors import BadInput
from envs.failures import ON_ERROR, Conduct, Guarded, describe
from envs.images import is_picture
from envs.observations import Frames, check_can_render, find_image
from envs.workers import Workers
from envs.wrappers import SeededEpisodes

OTHERS = {"ALE/": "ale_py", "MiniGrid-": "minigrid", "BabyAI-": "minigrid", "MinAtar/": "minatar.gym"}  # whose ids begin so
SLOW_IMPORTS = ("torch", "torchrl")  # of a main module: seconds, which need not pass in each process


@dataclass
class EnvConfig:
    """Which game is played, and how.

    Attributes:
        id: the name under which it is registered with Gymnasium, "module:id" to import a module
            first. If importing does not register it, the module's `register_envs()` is called, where there is one.
        game: the constructor's `game`, for an id that stands for many (Atari).
        kwargs: further arguments of its constructor, and of gymnasium.make (`max_episode_steps`).
        evaluation_kwargs: those of them that are different where a policy is evaluated.
        pixels: what the agent sees: the image in the "observation", what the environment is seen to "render", or
            "auto": the observation's image if it has one, and otherwise what is rendered.
        image: the key of the image in an observation of several parts; it has to be given where there are several images.
        range: [least, most] value of the image, where its space declares more than it uses, or no bounds; null: as declared.
        layout: what the axes of the image are, in its order, a letter each: h and w for height and width, c for channels, s for
            a stack; null: hwc or chw, shwc, schw or hwcs, whichever its shape looks like (envs/images.py).
        size: of the frames' sides in pixels; null: the image's own if it is a square of 16, 32, 48, 64, 96 or 128, else
            the next larger of these (envs/images.py).
        bins: values for each dimension of a continuous action (Box).
        parallel: a process for each environment; otherwise all of them in this process.
        on_error: what becomes of an environment that raises an error, breaks its word, hangs or dies: "stop" the run, or
            "restart" it: its episode ends as truncated with the step before, and the run goes on (docs/reliability.md).
        timeout: seconds that a step or a reset of an environment with a process of its own may take; then it hangs. To train
            with another value than the default without such processes is refused: nothing would notice.
        max_restarts: of an environment within 1,000 of its steps; one more stops the run.
    """

    id: str = "deltadream/Crafter-v1"
    game: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    evaluation_kwargs: dict[str, Any] = field(default_factory=dict)
    pixels: str = "auto"
    image: str | None = None
    range: list[float] | None = None
    layout: str | None = None
    size: int | None = None
    bins: int = BINS
    parallel: bool = False
    on_error: str = "stop"
    timeout: float = 120.0
    max_restarts: int = 10

    def __post_init__(self) -> None:
        if not self.id:
            raise BadInput("env.id has no value; give one, as in env.id=CartPole-v1 or env.id=my_module:MyEnv-v0.")
        if self.on_error not in ON_ERROR:
            raise BadInput(f"env.on_error={self.on_error} was given; choose one of {', '.join(ON_ERROR)}.")

    @property
    def name(self) -> str:
        """For people: the game where there is one, the id otherwise."""
        return f"{self.game} ({self.id})" if self.game else self.id

    def for_evaluation(self, parallel: bool | None = None) -> "EnvConfig":
        """The environment in which a policy is evaluated; `parallel` None: as in training."""
        return replace(
            self,
            kwargs=self.kwargs | self.evaluation_kwargs,
            evaluation_kwargs={},
            parallel=self.parallel if parallel is None else parallel,
        )


def make_single(config: EnvConfig, seed: int, name: str | None = None, max_steps: int | None = None) -> SeededEpisodes:
    """One environment, for videos and by hand; `config.parallel` and `config.timeout` are not read.

    name: what it is called where it fails; max_steps: after which an episode is truncated.

    It shows frames `[size, size, channels]` uint8; its attribute `frames_text` says how they come to be.

    Raises:
        BadInput: the id is not registered, the constructor refuses the arguments, or the spaces
            are not accepted (`find_image`, `Frames`, `ChooseActions`).
    """
    return SeededEpisodes(Guarded(partial(_make_seen, config), _conduct(config, name, max_steps)), seed)


def _conduct(config: EnvConfig, name: str | None, max_steps: int | None) -> Conduct:
    return Conduct(name or config.name, config.on_error, config.timeout, config.max_restarts, max_steps)


def _make_seen(config: EnvConfig) -> ChooseActions:
    """What Gymnasium makes, as the agent has it."""
    env = _make(config)
    try:
        for space in ("observation_space", "action_space"):
            why = ""
            try:
                found = getattr(env.unwrapped, space, None)
            except (Exception, SystemExit) as error:
                found, why = None, f" ({describe(error)})"
            if not isinstance(found, gymnasium.Space):
                raise BadInput(f"The environment {config.name} has no {space}{why}; give it one, a gymnasium.Space.")
        path = find_image(env.observation_space, config.pixels, config.image, config.layout, config.range is not None)
        if path is None and env.render_mode != "rgb_array":
            check_can_render(env, config.pixels)
            _close(env)
            env = _make(replace(config, kwargs=config.kwargs | {"render_mode": "rgb_array"}))
        return ChooseActions(Frames(env, path, config.size, config.range, config.name, config.layout), config.bins)
    except BadInput:
        _close(env)
        raise


def _close(env: gymnasium.Env) -> None:
    """Of one that fails in this, too, nothing more is wanted."""
    with suppress(Exception, SystemExit):
        env.close()


def _make(config: EnvConfig) -> gymnasium.Env:
    """What Gymnasium makes of the id. Raises BadInput if it makes nothing."""
    game = {} if config.game is None else {"game": config.game}
    try:
        _register(config.id)
        with warnings.catch_warnings(record=True) as warned:
            # Gymnasium's checker costs time at each step and is for tests.
            env = gymnasium.make(config.id, disable_env_checker=True, **game, **config.kwargs)
        for warning in warned:  # where it is refused, one sentence is enough; and of many alike, one warning
            if str(warning.message) not in _warned:
                _warned.add(str(warning.message))
                warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)
        return env
    except BadInput:
        raise
    except gymnasium.error.UnregisteredEnv as error:
        module, _, name = config.id.rpartition(":")
        own = _registered_by(module)  # a module that registers others' environments, or none at all, has none of its own
        near = _nearest(name, own or gymnasium.registry, 0.8 if module and not own else 0.5)
        near = [f"{module}:{found}" if module else found for found in near]
        near = [f"{package}:{name}" for prefix, package in OTHERS.items() if name.startswith(prefix) and module != package] or near
        hint = f": did you mean {' or '.join(near)}?" if near else "; gymnasium.pprint_registry() lists those that are."
        if not module:
            hint += " If another package has it, name that too, as in env.id=minigrid:MiniGrid-Empty-5x5-v0."
        raise BadInput(f"No environment is registered as {config.id!r}{hint}") from error
    except (Exception, SystemExit) as error:
        raise BadInput(
            f"The environment {config.name} cannot be made with the arguments {config.kwargs}: {describe(error)}; change env.id or env.kwargs, or install what it needs."
        ) from error


def _registered_by(module: str) -> list[str]:
    """The ids whose environments lie in the module or its package; none for no module."""
    package = module.partition(".")[0]
    places = {
        id: spec.entry_point if isinstance(spec.entry_point, str) else getattr(spec.entry_point, "__module__", "")
        for id, spec in gymnasium.registry.items()
    }
    return [id for id, place in places.items() if package and package == place.partition(":")[0].partition(".")[0]]


def _nearest(name: str, ids: Iterable[str], cutoff: float) -> list[str]:
    """Those of the ids that are spelled most alike, whatever letters are capital."""
    spelled = {id.lower(): id for id in ids}
    return [spelled[found] for found in difflib.get_close_matches(name.lower(), spelled, cutoff=cutoff)]


def check_is_meant(module: ModuleType, id: str) -> None:
    """Raises BadInput if the working directory has a module of this name, and another one was imported: ours, or Python's."""
    package = module.__name__.partition(".")[0]
    here = [place for place in (Path.cwd() / f"{package}.py", Path.cwd() / package / "__init__.py") if place.exists()]
    found = getattr(sys.modules[package], "__file__", None)
    if here and (found is None or not Path(found).resolve().is_relative_to(Path.cwd().resolve())):
        raise BadInput(f"env.id={id} would take {package} from {found or 'Python itself'}, and not from {here[0]}; give that another name.")


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
        raise BadInput(f"env.id={id} names a file; give its module, as in env.id={Path(module_name).stem}:{name}, and start the command where it lies.")
    try:
        module = importlib.import_module(module_name)
        check_is_meant(module, id)
        if name not in gymnasium.registry and module_name not in _asked and hasattr(module, "register_envs"):
            _asked.add(module_name)  # a second time, Gymnasium would warn of each
            module.register_envs()
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        raise BadInput(
            f"The module {module_name} of env.id={id} cannot be imported: {describe(error)}; correct it, "
            "install what it needs, or start the command where it lies."
        ) from error


def make_rendered(config: EnvConfig, seed: int) -> SeededEpisodes:
    """As `make_single`, with `render_mode` "rgb_array" if the environment has it and can show something by it."""
    env = make_single(config, seed)
    if "rgb_array" not in env.metadata.get("render_modes", []) or env.render_mode == "rgb_array":
        return env
    rendered = make_single(replace(config, kwargs=config.kwargs | {"render_mode": "rgb_array"}), seed)
    with suppress(Exception, SystemExit):  # whatever a stranger's render() raises
        rendered.env.reset(seed=0)  # not one of the episodes
        picture = rendered.render()
        if is_picture(picture):
            env.close()
            return rendered
    rendered.close()
    return env


def make_vector(config: EnvConfig, seeds: list[int], max_steps: int | None = None) -> VectorEnv:
    """One environment for each seed, stepped together. max_steps: after which an episode is truncated.

    After the last step of an episode the next step resets that environment: its action is ignored,
    its reward is 0 and its observation is the next episode's first (`AutoresetMode.NEXT_STEP`).

    In-process and parallel environments give the same observations.

    Infos are Gymnasium's: each entry is an array with a value for each environment, beside a mask
    `_entry` that says which environments gave one, at an episode's last step too. Crafter's counts
    so become `infos["achievements"][name]`, int64 `[len(seeds)]`. Where an environment failed and was restarted, its
    `infos["failures"]` are sentences that tell of it: its episode has ended as truncated, with the observation before the step
    that failed and reward 0; or, if it failed in a reset, another episode has begun.

    Raises:
        BadInput: as `make_single`; or there is no seed. Later, an environment breaks its word and is not to be restarted.
        EnvironmentFailed: later, one fails and is not to be restarted.
    """
    if not seeds:
        raise BadInput("No seed was given to make_vector: give one for each environment.")
    n = len(seeds)
    names = [f"{config.name} ({i} of {n})" if n > 1 else config.name for i in range(1, n + 1)]
    if config.parallel:
        # An id that only this process knows (agent.train of a class) is told to the others.
        spec = gymnasium.registry.get(config.id)
        makers = [partial(_make_in_worker, config, seed, name, max_steps, spec) for seed, name in zip(seeds, names, strict=True)]
        return Workers(makers, [_conduct(config, name, max_steps) for name in names], _start_method())
    makers = [partial(make_single, config, seed, name, max_steps) for seed, name in zip(seeds, names, strict=True)]
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)


def _start_method() -> str | None:
    """Python's "forkserver", where there is one: what a script takes seconds to import is imported once for all processes.

    torchrl makes "spawn" the usual method, by which each imports it anew, with the main module. (Ours is spared them: agent/cli.py.)"""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return None
    has_script = hasattr(sys.modules["__main__"], "__file__")
    multiprocessing.set_forkserver_preload(["__main__", *(name for name in SLOW_IMPORTS if has_script and name in sys.modules)])
    return "forkserver"


def _make_in_worker(
    config: EnvConfig, seed: int, name: str, max_steps: int | None, spec: EnvSpec | None
) -> SeededEpisodes:
    """`make_single` where the environment may not be registered."""
    if spec is not None:
        gymnasium.registry.setdefault(spec.id, spec)
    return make_single(config, seed, name, max_steps)


@contextmanager
def closing(envs: VectorEnv) -> Iterator[VectorEnv]:
    """Closes them in the end; after an error or Ctrl-C, which may come in the middle of a step, at once."""
    try:
        yield envs
    except BaseException:
        envs.close(terminate=True)
        raise
    envs.close()
