"""Vector environments of either autoreset mode as one: NEXT_STEP."""

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from envs.errors import BadInput


def next_step(envs: VectorEnv) -> VectorEnv:
    """The environments with AutoresetMode.NEXT_STEP.

    An episode's end shows its own last frame, the step after it the next episode's first.

    Raises:
        BadInput: they do not reset themselves, or do not say when (`metadata["autoreset_mode"]`).
    """
    mode = envs.metadata.get("autoreset_mode")
    if mode == AutoresetMode.NEXT_STEP:
        return envs
    if mode == AutoresetMode.SAME_STEP:
        return NextStep(envs)
    raise BadInput(
        f"The vector environment has metadata['autoreset_mode']={mode}; AutoresetMode.NEXT_STEP "
        "and SAME_STEP are accepted: make it with one of them."
    )


class NextStep(VectorWrapper):
    """Turns a vector environment with SAME_STEP resets into one with NEXT_STEP resets.

    An episode's last frame comes from `final_obs`. All environments are stepped together, so one
    that has begun its next episode would move on in the step that should show that episode's first
    frame. It is reset once more after that step (`reset_mask`), whose action and outcome nobody
    sees. This costs a step and a reset per episode, and every second episode of the environment is
    not seen.
    """

    def __init__(self, env: VectorEnv):
        super().__init__(env)
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self._ended = np.zeros(env.num_envs, bool)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict]:
        self._ended = np.zeros(self.num_envs, bool)
        return self.env.reset(seed=seed, options=options)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        return self.env.get_attr(name)

    def set_attr(self, name: str, values: Any) -> None:
        self.env.set_attr(name, values)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        observations, rewards = np.array(observations), np.where(self._ended, 0.0, rewards)
        terminated, truncated = terminated & ~self._ended, truncated & ~self._ended
        ended = terminated | truncated
        begin = self._ended
        for i in np.flatnonzero(ended):
            observations[i] = infos["final_obs"][i]
        infos = _merged(_used(infos), _used(infos.get("final_info", {})), ended)
        if begin.any():
            first, first_infos = self.env.reset(options={"reset_mask": begin})
            observations[begin] = np.asarray(first)[begin]
            infos = _merged(infos, _used(first_infos), begin)
        self._ended = ended
        return observations, rewards, terminated, truncated, infos


def _used(infos: dict[str, Any]) -> dict[str, Any]:
    """What is used of infos; the rest may be of another type or shape at each step."""
    return {key: infos[key] for key in ("achievements", "_achievements") if key in infos}


def _merged(infos: dict[str, Any], others: dict[str, Any], which: np.ndarray) -> dict[str, Any]:
    """Gymnasium infos (values and masks `_key`), with some environments' from another step."""
    merged: dict[str, Any] = {}
    for key in {**infos, **others}:
        one, other = infos.get(key), others.get(key)
        if isinstance(one if other is None else other, dict):
            merged[key] = _merged(one or {}, other or {}, which)
            continue
        if one is None:
            one = np.zeros_like(other)
        if other is None:  # the others do not tell of it
            other = one if not key.startswith("_") else np.zeros_like(one)
        merged[key] = one.copy()
        merged[key][which] = other[which]
    return merged
