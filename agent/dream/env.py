"""A trained world model as a Gymnasium environment, one or many at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from agent.dream.batch import Dreams, dreams_of
from agent.dream.starts import given_starts
from agent.media.pictures import to_rgb
from envs.errors import BadInput

SHOWN = 256  # pixels, of a rendered picture's side, about

METADATA = {"render_modes": ["rgb_array"], "render_fps": 10}


class DreamEnv(gymnasium.Env):
    """Episodes that start with real frames and go on in a world model's imagination.

    Observations and actions are those of the run's agent, rewards and `terminated` the world's.
    When its context is full, the past before the newest frame is forgotten.

    - `reset(seed=s)`: from then on all follows from `s` and the actions. The i-th of many
      environments, reset with s, dreams what this one dreams, reset with s + i.
    - `reset(options={"frames": [T, H, W, C], "actions": [T − 1, F]})`: an episode that starts with
      the last of these frames, having seen all of them.
    """

    metadata = METADATA

    def __init__(self, dreams: Dreams, render_mode: str | None = None) -> None:
        """dreams: of one episode at a time."""
        self.dreams, self.render_mode = dreams, render_mode
        self.observation_space, self.action_space = spaces(dreams)
        self._picture = np.zeros(self.observation_space.shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        (self._picture,) = begin(self.dreams, [0], [self.np_random], options)
        return self._picture.copy(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        pictures, rewards, ends = self.dreams.step(checked(self.dreams, [action]))
        self._picture = pictures[0]
        return self._picture.copy(), float(rewards[0]), bool(ends[0]), False, {}

    def render(self) -> np.ndarray | None:
        """The observation, enlarged, [h, w, 3] uint8; None without a render mode."""
        return None if self.render_mode is None else enlarged(self._picture)


class DreamVectorEnv(VectorEnv):
    """Many `DreamEnv`s that are stepped as one batch on the device.

    Their episodes end and begin at different steps: by `autoreset_mode` at the step after the last
    (NEXT_STEP, whose action is ignored) or at once (SAME_STEP, where `infos["final_obs"]` holds
    what the last step showed). After `max_episode_steps` one is truncated; None or −1: never.
    """

    def __init__(
        self,
        dreams: Dreams,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        self.dreams, self.render_mode = dreams, render_mode
        self.autoreset_mode, self.limit = autoreset(autoreset_mode), time_limit(max_episode_steps)
        self.metadata = METADATA | {"autoreset_mode": self.autoreset_mode}
        self.num_envs = dreams.number
        self.single_observation_space, self.single_action_space = spaces(dreams)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.steps = np.zeros(self.num_envs, np.int64)  # of the running episodes
        self.ended = np.zeros(self.num_envs, bool)
        self._generators: list[np.random.Generator | None] = [None] * self.num_envs
        self._pictures = np.zeros(self.observation_space.shape, np.uint8)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin all episodes anew, or those of Gymnasium's option "reset_mask", [N] bool.

        The other options are those of `DreamEnv.reset`, the same for all.
        """
        options = dict(options or {})
        mask = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, bool)))
        if seed is None or isinstance(seed, int | np.integer):
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        chosen = np.flatnonzero(mask).tolist()
        for i in chosen:
            if seeds[i] is not None or self._generators[i] is None:
                self._generators[i] = seeding.np_random(seeds[i])[0]
        generators = [self._generators[i] for i in chosen]
        self._pictures[mask] = begin(self.dreams, chosen, generators, options)
        self.steps[mask], self.ended[mask] = 0, False
        return self._pictures.copy(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        if None in self._generators:
            raise gymnasium.error.ResetNeeded("Call reset before the first step.")
        self._pictures, rewards, terminated = self.dreams.step(checked(self.dreams, actions))
        self.steps += 1
        truncated, infos = self.steps >= self.limit, {}
        again = self.ended
        if self.autoreset_mode == AutoresetMode.NEXT_STEP:
            rewards = np.where(again, 0, rewards)
            terminated, truncated = terminated & ~again, truncated & ~again
            self.ended = terminated | truncated
        else:
            again = terminated | truncated
            final = np.full(self.num_envs, None, object)
            for i in np.flatnonzero(again):
                final[i] = self._pictures[i].copy()
            if again.any():
                infos = {"final_obs": final, "_final_obs": again}
                infos |= {"final_info": {}, "_final_info": again}
        if again.any():
            rows = np.flatnonzero(again).tolist()
            self._pictures[rows] = begin(self.dreams, rows, [self._generators[i] for i in rows])
            self.steps[rows] = 0
        return self._pictures.copy(), rewards.astype(np.float64), terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The observations, enlarged; None without a render mode."""
        return None if self.render_mode is None else tuple(map(enlarged, self._pictures))


def make_dream(run: str | Path, render_mode: str | None = None, **options: Any) -> DreamEnv:
    """One environment; `run` and `options` as `agent.dream.batch.dreams_of`."""
    return DreamEnv(dreams_of(run, 1, **options), render_mode)


def make_dreams(
    num_envs: int,
    run: str | Path,
    max_episode_steps: int | None = None,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    **options: Any,
) -> DreamVectorEnv:
    """Many of them; as `DreamVectorEnv` and `make_dream`."""
    if num_envs < 1:
        raise BadInput(f"num_envs={num_envs} was given; give 1 or more.")
    time_limit(max_episode_steps), autoreset(autoreset_mode)  # before the run is read
    dreams = dreams_of(run, num_envs, **options)
    return DreamVectorEnv(dreams, max_episode_steps, autoreset_mode, render_mode)


def spaces(dreams: Dreams) -> tuple[Box, Discrete | MultiDiscrete]:
    """Of observations and actions, as the run's agent has them."""
    own = dreams.agent.spaces
    actions = Discrete(own.actions[0]) if len(own.actions) == 1 else MultiDiscrete(own.actions)
    return Box(0, 255, (own.size, own.size, own.channels), np.uint8), actions


def begin(
    dreams: Dreams,
    rows: list[int],
    generators: list[np.random.Generator],
    options: dict[str, Any] | None = None,
) -> np.ndarray:
    """New episodes in M rows, each drawn from its own generator.

    Returns:
        Their first pictures, [M, H, W, C] uint8.
    """
    starts = dreams.starts
    if options:  # one start, for all
        given = {name: np.asarray(x)[None] for name, x in options.items() if x is not None}
        starts = given_starts(given, dreams.agent.spaces)
    drawn = [(int(g.integers(len(starts))), int(g.integers(2**63 - 1))) for g in generators]
    segment = starts.segment([start for start, _ in drawn])
    return dreams.begin(rows, segment, [key for _, key in drawn])


def checked(dreams: Dreams, actions: Any) -> np.ndarray:
    """The actions as [N, F] int64; others than the space's would stop a device.

    Raises:
        BadInput: they are others.
    """
    choices = dreams.agent.spaces.actions
    given, expected = np.asarray(actions), (dreams.number, len(choices))
    own = given[:, None] if given.ndim == 1 else given
    whole = np.issubdtype(own.dtype, np.integer)
    if not whole or own.shape != expected or not np.all((0 <= own) & (own < np.array(choices))):
        raise BadInput(
            f"The actions {given.tolist()} were given; give {dreams.number} of whole numbers, each "
            f"from 0 to {', '.join(str(n - 1) for n in choices)}."
        )
    return own.astype(np.int64)


def autoreset(mode: AutoresetMode | str) -> AutoresetMode:
    """The mode. Raises BadInput for one that is not to be had here."""
    mine = (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)
    if mode not in (*mine, *(known.value for known in mine)):
        accepted = ", ".join(known.value for known in mine)
        raise BadInput(f"autoreset_mode={mode} was given; give one of {accepted}.")
    return AutoresetMode(mode)


def time_limit(steps: int | None) -> float:
    """Of an episode; infinite for None or −1."""
    if steps in (None, -1):
        return np.inf
    if steps < 1:
        raise BadInput(f"max_episode_steps={steps} was given; give 1 or more, or -1 for no limit.")
    return steps


def enlarged(picture: np.ndarray) -> np.ndarray:
    """[H, W, C] -> a picture of about `SHOWN` pixels a side, [h, w, 3]."""
    scale = max(1, SHOWN // picture.shape[0])
    return to_rgb(picture).repeat(scale, axis=0).repeat(scale, axis=1)
