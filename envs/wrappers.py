"""Wrappers and checks that any environment can be given."""

from typing import Any

import gymnasium
import numpy as np

from envs.errors import BadInput


def episode_seed(seed: int, episode: int) -> int:
    """The seed of one episode, in 0 .. 2**32 - 1, of an environment whose own seed is `seed`."""
    return int(np.random.SeedSequence(seed, spawn_key=(episode,)).generate_state(1)[0])


class SeededEpisodes(gymnasium.Wrapper):
    """Episodes decided by (seed, number of the episode, actions), and by nothing before them.

    Each `reset()` starts the next episode: number 0, 1, 2, ... A `reset(seed=s)` makes `s` the seed
    and starts its episode 0.

    Attributes:
        seed: the seed from which every episode's own seed is derived.
        episode: the number of the running episode; -1 before the first reset.
        resume_from: None, or `(episode, actions)`: the next `reset()` starts that episode, plays
            these actions and returns what is seen after the last of them. This is how a resumed
            run gets its environments back without storing their insides. Wrappers outside of this
            one do not see the replayed steps. Through a vector environment it is set by
            `set_attr("resume_from", [one value per environment])`. `reset(seed=s)` drops it. If the
            last of the actions ends the episode, the next `step` is a reset, as it would have been
            in a vector environment that resets at the step after the last (NEXT_STEP).
        replayed: of these actions, how many were played: fewer than given if the episode ended
            before, because its environment is not decided by its seed.

    Args:
        env: the environment, without a wrapper of its own that remembers past episodes.
        seed: a whole number, 0 or more.

    Raises:
        BadInput: the seed is negative.
    """

    def __init__(self, env: gymnasium.Env, seed: int):
        super().__init__(env)
        if seed < 0:
            raise BadInput(f"An environment was given the seed {seed}: give 0 or more.")
        self.seed = seed
        self.episode = -1
        self.resume_from: tuple[int, list[int]] | None = None
        self.replayed = 0
        self._resumed_at_end = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start the next episode, or the one of `resume_from`."""
        if seed is not None:
            self.seed, self.episode, self.resume_from = seed, -1, None
        episode, actions = self.resume_from or (self.episode + 1, [])
        self.resume_from, self._resumed_at_end = None, False
        self.episode = int(episode)
        observation, info = self.env.reset(
            seed=episode_seed(self.seed, self.episode), options=options
        )
        self.replayed = 0
        for action in actions:
            observation, _, terminated, truncated, info = self.env.step(action)
            self.replayed += 1
            self._resumed_at_end = terminated or truncated
            if self._resumed_at_end:
                break
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step of the environment; a reset, whatever the action, after a replay to an episode's end."""
        if self._resumed_at_end:
            observation, info = self.reset()
            return observation, 0.0, False, False, info
        return self.env.step(action)


def check_spaces(env: gymnasium.Env) -> None:
    """Refuse an environment that the agents here cannot play.

    Raises:
        BadInput: the observations are not RGB pictures `[H, W, 3]` uint8 in 0..255, or the actions
            are not `Discrete` from 0.
    """
    picture, actions = env.observation_space, env.action_space
    if not (
        isinstance(picture, gymnasium.spaces.Box)
        and picture.dtype == np.uint8
        and len(picture.shape) == 3
        and picture.shape[2] == 3
        and (picture.low == 0).all()
        and (picture.high == 255).all()
    ):
        raise BadInput(
            f"The environment's observation space is {picture}, but RGB pictures are accepted, "
            "Box(0, 255, (H, W, 3), uint8): wrap it so that it returns such pictures."
        )
    if not (isinstance(actions, gymnasium.spaces.Discrete) and actions.start == 0):
        raise BadInput(
            f"The environment's action space is {actions}, but Discrete(n) from 0 is accepted: "
            "wrap it so that its actions are 0, 1, ..., n - 1."
        )
