"""A Gymnasium vector environment as one of Stable-Baselines3's (pip install stable-baselines3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnv,
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)

from envs.errors import BadInput


class StableBaselines(VecEnv):
    """Environments that begin the next episode in the step that ends one (SAME_STEP)."""

    def __init__(self, envs: VectorEnv) -> None:
        """Raises BadInput if `envs` resets otherwise."""
        if envs.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise BadInput(
                'Stable-Baselines3 needs environments made with autoreset_mode="SameStep".'
            )
        self.envs = envs
        self.actions = np.zeros(0)
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> VecEnvObs:
        seeds = None if self._seeds[0] is None else list(self._seeds)
        observations, _ = self.envs.reset(seed=seeds)
        self._reset_seeds()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, terminated, truncated, infos = self.envs.step(self.actions)
        own: list[dict[str, Any]] = [
            {"TimeLimit.truncated": bool(cut)} for cut in truncated & ~terminated
        ]
        done = terminated | truncated
        for i in np.flatnonzero(done):
            own[i]["terminal_observation"] = infos["final_obs"][i]
        return observations, rewards.astype(np.float32), done, own

    def close(self) -> None:
        self.envs.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        return self.envs.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Of the vector environment: all of its environments are alike."""
        return [getattr(self.envs, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        raise NotImplementedError("One of the environments of a batch cannot be changed alone.")

    def env_method(
        self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        raise NotImplementedError("One of the environments of a batch cannot be called alone.")

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        return [False for _ in self._get_indices(indices)]
