"""Many environments, stepped together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.config import EnvConfig
from envs.errors import BadInput
from envs.make import make_seen
from envs.workers import Remote, end_if_imported
from envs.wrappers import SeededEpisodes


def make_vector(config: EnvConfig, seeds: list[int], max_steps: int | None = None) -> VectorEnv:
    """One environment per seed, stepped together.

    After the last step of an episode the next step resets that environment: its action is ignored,
    its reward is 0 and its observation is the next episode's first (`AutoresetMode.NEXT_STEP`).
    In-process and parallel environments give the same observations.

    Infos are Gymnasium's, with a mask `_entry` beside each array `entry`. Of an environment's own
    only what is used is kept: Crafter's counts, `infos["achievements"][name]`, int64
    `[len(seeds)]`, and Atari's `game_continues`. Where one failed and was restarted,
    `infos["failures"]` holds sentences about it: its episode is truncated, with reward 0 and the
    observation before the step that failed; after a failed reset, another episode has begun.

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
    make: Callable[[], gymnasium.Env] = partial(make_seen, config, max_steps)
    if config.parallel:
        end_if_imported()
        env = make()
        env.close()
        # The id of a class passed to deltadream.train is registered there too.
        make_there = partial(_make_in_process, make, gymnasium.registry.get(config.id))
        spaces = env.observation_space, env.action_space
        make = partial(Remote, make_there, spaces, config.timeout)
    named = zip(seeds, names, strict=True)
    return Environments([SeededEpisodes(make, seed, config, name) for seed, name in named])


class Environments(VectorEnv):
    """Environments of SeededEpisodes as one; those in processes play at the same time."""

    def __init__(self, envs: Sequence[SeededEpisodes]) -> None:
        self.envs, self.num_envs = envs, len(envs)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space = envs[0].observation_space
        self.single_action_space = envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Each begins its next episode, or goes to `resume_from`. Seeds and options are ignored."""
        results: list[Any] = [None] * self.num_envs
        for progress in zip_longest(*(env.begin() for env in self.envs)):
            results = [new or old for new, old in zip(progress, results, strict=True)]
        observations, _, infos = zip(*results, strict=True)
        return np.stack(observations), self._merged(infos)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        for env, action in zip(self.envs, actions, strict=True):
            env.ask(action)
        results = [env.step(action) for env, action in zip(self.envs, actions, strict=True)]
        observations, rewards, terminated, truncated, infos = zip(*results, strict=True)
        return (
            np.stack(observations),
            np.array(rewards, np.float64),
            np.array(terminated, bool),
            np.array(truncated, bool),
            self._merged(infos),
        )

    def get_attr(self, name: str) -> tuple[Any, ...]:
        return tuple(env.get_wrapper_attr(name) for env in self.envs)

    def set_attr(self, name: str, values: Sequence[Any]) -> None:
        """values: one for each environment."""
        for env, value in zip(self.envs, values, strict=True):
            setattr(env, name, value)

    def close_extras(self, terminate: bool = False) -> None:
        """Processes are gone after CLOSE_SECONDS; at once with `terminate`."""
        if not terminate:
            for env in self.envs:
                env.ask_to_close()
        for env in self.envs:
            env.close()

    def _merged(self, infos: Sequence[dict[str, Any]]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for i, info in enumerate(infos):
            merged = self._add_info(merged, info, i)
        return merged


def _make_in_process(make: Callable[[], gymnasium.Env], spec: EnvSpec | None) -> gymnasium.Env:
    if spec is not None:
        gymnasium.registry.setdefault(spec.id, spec)
    return make()


@contextmanager
def closing(envs: VectorEnv) -> Iterator[VectorEnv]:
    """Close them in the end; after an error or Ctrl-C, maybe within a step, at once."""
    try:
        yield envs
    except BaseException:
        envs.close(terminate=True)
        raise
    envs.close()
