"""Many environments, stepped together."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from envs.config import EnvConfig
from envs.errors import BadInput
from envs.make import conduct_of, make_single
from envs.processes import end_if_imported
from envs.workers import Workers
from envs.wrappers import SeededEpisodes

# Of a main module: seconds, which need not pass in each process.
SLOW_IMPORTS = ("torch", "torchrl")


def make_vector(config: EnvConfig, seeds: list[int], max_steps: int | None = None) -> VectorEnv:
    """One environment per seed, stepped together.

    After the last step of an episode the next step resets that environment: its action is ignored,
    its reward is 0 and its observation is the next episode's first (`AutoresetMode.NEXT_STEP`).

    In-process and parallel environments give the same observations.

    Infos are Gymnasium's: each entry is an array with a value for each environment, beside a mask
    `_entry` of the environments that gave one, also at an episode's last step. Of an environment's
    own infos only what is used is kept: Crafter's counts, `infos["achievements"][name]`, int64
    `[len(seeds)]`, and Atari's `game_continues`.

    Where an environment failed and was restarted, `infos["failures"]` holds sentences about it. Its
    episode is truncated, with reward 0 and the observation before the step that failed; after a
    failed reset, another episode has begun.

    Args:
        max_steps: after which an episode is truncated.

    Raises:
        BadInput: as `make_single`, or there is no seed; later, an environment is not what it
            declares and may not be restarted.
        EnvironmentFailed: later, one fails and may not be restarted.
    """
    if not seeds:
        raise BadInput("No seed was given to make_vector: give one for each environment.")
    n = len(seeds)
    names = [f"{config.name} ({i} of {n})" if n > 1 else config.name for i in range(1, n + 1)]
    if config.parallel:
        end_if_imported()
        # An id that only this process knows (agent.train of a class) is told to the others.
        spec = gymnasium.registry.get(config.id)
        makers = [
            partial(_make_in_worker, config, seed, name, max_steps, spec)
            for seed, name in zip(seeds, names, strict=True)
        ]
        return Workers(
            makers, [conduct_of(config, name, max_steps) for name in names], _start_method()
        )
    makers = [
        partial(make_single, config, seed, name, max_steps)
        for seed, name in zip(seeds, names, strict=True)
    ]
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)


def _start_method() -> str | None:
    """Python's "forkserver", where there is one: slow imports run once for all processes.

    torchrl makes "spawn" the usual method, by which each imports them anew.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return None
    has_script = hasattr(sys.modules["__main__"], "__file__")
    names = [name for name in SLOW_IMPORTS if has_script and name in sys.modules]
    multiprocessing.set_forkserver_preload(names)
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
    """Close them in the end; after an error or Ctrl-C, maybe within a step, at once."""
    try:
        yield envs
    except BaseException:
        envs.close(terminate=True)
        raise
    envs.close()
