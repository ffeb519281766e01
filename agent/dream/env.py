"""A trained world model as a Gymnasium environment, one or many at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from agent.dream.batch import Dreams, dreams_of
from agent.media.pictures import enlarged, to_rgb
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
        self.observation_space, self.action_space = dreams.observation_space, dreams.action_space
        self._picture = np.zeros(self.observation_space.shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        (self._picture,) = self.dreams.begin([0], [self.np_random], options)
        return self._picture.copy(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        (self._picture,), rewards, ends = self.dreams.step([action])
        return self._picture.copy(), float(rewards[0]), bool(ends[0]), False, {}

    def render(self) -> np.ndarray | None:
        """The observation, enlarged, [h, w, 3] uint8; None without a render mode."""
        return None if self.render_mode is None else rendered(self._picture)


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
        self.limit = np.inf if max_episode_steps in (None, -1) else max_episode_steps
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        if self.autoreset_mode == AutoresetMode.DISABLED:
            raise BadInput("autoreset_mode=Disabled was given; give NextStep or SameStep.")
        self.metadata = METADATA | {"autoreset_mode": self.autoreset_mode}
        self.num_envs = dreams.number
        self.single_observation_space = dreams.observation_space
        self.single_action_space = dreams.action_space
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
        for i in np.flatnonzero(mask):
            if seeds[i] is not None or self._generators[i] is None:
                self._generators[i] = seeding.np_random(seeds[i])[0]
        self._begin(mask, options)
        self.ended[mask] = False
        return self._pictures.copy(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        if None in self._generators:
            raise gymnasium.error.ResetNeeded("Call reset before the first step.")
        self._pictures, rewards, terminated = self.dreams.step(actions)
        self.steps += 1
        truncated, infos = self.steps >= self.limit, {}
        begins = self.ended
        if self.autoreset_mode == AutoresetMode.NEXT_STEP:
            rewards = np.where(begins, 0, rewards)
            terminated, truncated = terminated & ~begins, truncated & ~begins
            self.ended = terminated | truncated
        elif (begins := terminated | truncated).any():
            infos = {"final_obs": self._pictures.copy(), "_final_obs": begins}
            infos |= {"final_info": {}, "_final_info": begins}
        if begins.any():
            self._begin(begins)
        return self._pictures.copy(), rewards.astype(np.float64), terminated, truncated, infos

    def _begin(self, mask: np.ndarray, options: dict[str, Any] | None = None) -> None:
        rows = np.flatnonzero(mask).tolist()
        generators = [self._generators[i] for i in rows]
        self._pictures[mask] = self.dreams.begin(rows, generators, options)
        self.steps[mask] = 0

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The observations, enlarged; None without a render mode."""
        return None if self.render_mode is None else tuple(map(rendered, self._pictures))


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
    dreams = dreams_of(run, num_envs, **options)
    return DreamVectorEnv(dreams, max_episode_steps, autoreset_mode, render_mode)


def rendered(picture: np.ndarray) -> np.ndarray:
    """[H, W, C] -> a picture of about `SHOWN` pixels a side, [h, w, 3]."""
    return enlarged(to_rgb(picture), max(1, SHOWN // picture.shape[0]))
