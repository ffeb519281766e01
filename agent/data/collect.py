"""Policy × vector environment -> replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor
from tqdm import tqdm

from agent.agent import Agent
from agent.data.replay import Replay
from agent.nets.actions import random_actions
from envs.scores import CRAFTER_ACHIEVEMENTS


@dataclass(frozen=True)
class Episode:
    """A finished episode.

    Attributes:
        env: its environment's number in the vector.
        achievements: Crafter's counts by name; None of other environments.
        is_broken: the environment failed, and ended it before its end.
    """

    env: int
    total_reward: float
    length: int
    achievements: dict[str, int] | None = None
    is_broken: bool = False


class Row(NamedTuple):
    """One step of N environments.

    Where `is_step` is False the environment showed its last frame and was reset.

    Attributes:
        frames: [N, C, H, W] uint8, before the step.
        actions: [N, F] int64. All other fields are [N].
    """

    frames: Tensor
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    is_step: np.ndarray


def to_frames(observations: np.ndarray) -> Tensor:
    """[N, H, W, C] uint8 -> [N, C, H, W] uint8, a copy: an environment may use its array again."""
    return torch.from_numpy(observations.transpose(0, 3, 1, 2).copy())


class Player:
    """An agent that plays in a vector environment with AutoresetMode.NEXT_STEP.

    Each environment gives one row per step, and one for the last observation of an episode.

    Attributes:
        broken: [N] bool, where the last step failed: it does not count, and ended the episode.
        failures: What the environments reported of their restarts (envs/failures.py).
        number: [N], of the running episodes; the first ones are 0.
    """

    def __init__(self, envs: VectorEnv, agent: Agent) -> None:
        self.envs, self.agent = envs, agent
        observations, info = envs.reset()
        self.failures = failures_in(info)
        self.broken = np.zeros(envs.num_envs, bool)
        self.frames = to_frames(observations)
        self.state = agent.policy.initial_state(envs.num_envs)
        self.done = np.zeros(envs.num_envs, bool)
        self.total_reward = np.zeros(envs.num_envs)
        self.lengths = np.zeros(envs.num_envs, np.int64)  # of the running episodes
        self.number = np.zeros(envs.num_envs, np.int64)

    def step(
        self, choose: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    ) -> tuple[Row, list[Episode]]:
        """One step of every environment. `choose`: frames, state -> actions, next state."""
        actions, self.state = choose(self.frames.to(self.agent.device), self.state)
        actions = actions.cpu().numpy()
        observations, rewards, terminated, truncated, info = self.envs.step(actions)
        row = Row(self.frames, actions, rewards, terminated, truncated, ~self.done)
        self.frames = to_frames(observations)

        failures = failures_in(info)
        self.failures += failures
        self.broken = info["_failures"] & ~self.done if failures else np.zeros_like(self.done)
        self.total_reward = np.where(self.done, 0.0, self.total_reward + rewards)
        self.lengths = np.where(self.done, 0, self.lengths + ~self.broken)
        self.number += self.done
        # The frame that an environment shows now is the first one of its next episode.
        begins = torch.from_numpy(self.done).to(self.state.device)[:, None]
        self.state = torch.where(begins, 0.0, self.state)
        self.done = terminated | truncated
        return row, [self._episode(env, info) for env in np.flatnonzero(self.done).tolist()]

    def _episode(self, env: int, info: dict[str, Any]) -> Episode:
        counts = info.get("achievements")
        has_counts = counts is not None and info["_achievements"][env]
        return Episode(
            env,
            float(self.total_reward[env]),
            int(self.lengths[env]),
            {name: int(counts[name][env]) for name in CRAFTER_ACHIEVEMENTS} if has_counts else None,
            bool(self.broken[env]),
        )


def failures_in(info: dict[str, Any]) -> list[str]:
    """What the environments report of their restarts, if any failed."""
    return [failure for own in info.get("failures", ()) for failure in own or ()]


def achievements_of(episodes: list[Episode]) -> list[dict[str, int]] | None:
    """The counts of each episode; None if one has none."""
    counts = [episode.achievements for episode in episodes if episode.achievements is not None]
    return counts if counts and len(counts) == len(episodes) else None


class Collector:
    """Plays into the replay.

    Attributes:
        restarts: of environments that failed, so far.
        abandoned: whether a step failed in some environments only. Then all begin new episodes.
    """

    def __init__(self, envs: VectorEnv, agent: Agent, replay: Replay, epsilon: float) -> None:
        self.player, self.agent = Player(envs, agent), agent
        self.replay, self.epsilon = replay, epsilon
        self.restarts = 0
        self.abandoned = False

    def collect(
        self,
        steps: int,
        random: bool,
        progress: Callable[[int], Any] = lambda n: None,
        stop: Callable[[], bool] = lambda: False,
        episodes: list[Episode] | None = None,
    ) -> list[Episode]:
        """Take at least `steps` environment steps, fewer if `stop()` is true.

        No environment waits for another. What environments report of restarts is printed at once.

        Args:
            steps: of all environments together.
            random: whether actions are random, or the policy's with ε-exploration.
            progress: called with the number of steps that were taken.
            stop: asked before each step.
            episodes: a list to append to as episodes end, so that none is lost if an environment
                fails.

        Returns:
            `episodes` (or a new list) with the episodes that ended.
        """
        choose = self._random if random else self._explore
        episodes = [] if episodes is None else episodes
        collected = 0
        while collected < steps and not stop():
            row, ended = self.player.step(choose)
            self.replay.add(*row)
            if self.player.broken.any():
                self.replay.drop_newest(self.player.broken)
            taken = int(row.is_step.sum() - self.player.broken.sum())
            collected += taken
            progress(taken)
            for failure in self.player.failures:
                tqdm.write(failure)
            self.restarts += len(self.player.failures)
            self.player.failures = []
            episodes += ended
        return episodes

    def _random(self, frames: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        # The policy has seen nothing when it takes over, as at an episode's start.
        return random_actions(self.agent.spaces.actions, (len(frames),), frames.device), state

    def _explore(self, frames: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        actions, state = self.agent.act(frames, state)
        at_random, _ = self._random(frames, state)
        explore = torch.rand(len(frames), 1, device=frames.device) < self.epsilon
        return torch.where(explore, at_random, actions), state

    def abandon(self) -> None:
        """Call it if a step failed in some environments only. All begin new episodes afterwards."""
        self.replay.cut_running()
        self.abandoned = True

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, JSON-able rest), enough to bring the environments back to where they stand."""
        player = self.player
        if self.abandoned:
            positions = [[number + 1, number, []] for number in player.number.tolist()]
        else:
            positions = [list(position) for position in player.envs.get_attr("position")]
        tensors = {
            "frames": player.frames,
            "state": player.state,
            "done": torch.from_numpy(player.done),
            "total_reward": torch.from_numpy(player.total_reward),
            "lengths": torch.from_numpy(player.lengths),
        }
        return tensors, {"positions": positions}

    def load_state_dict(self, tensors: dict[str, Tensor], rest: dict[str, Any]) -> bool:
        """Restore the environments by replaying the running games' actions (SeededEpisodes).

        Returns:
            False if the frames differ from the saved ones (the seed does not decide the
            environment, or it was lost and has not said so yet). Then the running episodes are cut
            in the replay and new ones begin.
        """
        player, done = self.player, tensors["done"]
        positions = [tuple(position) for position in rest["positions"]]
        player.envs.set_attr("resume_from", positions)
        observations, info = player.envs.reset()
        player.failures = failures_in(info)
        player.frames = to_frames(observations)
        # An environment cannot show again how a broken episode ended, if the next has not started.
        broken = torch.tensor([first > episode for first, episode, _ in positions])
        player.frames[broken] = tensors["frames"][broken]
        is_restored = (
            torch.equal(player.frames, tensors["frames"])
            and list(player.envs.get_attr("position")) == positions
            and not bool((broken & ~done).any())
        )
        if is_restored:
            player.state = tensors["state"].to(self.agent.device)
            player.done = done.numpy().copy()
            player.total_reward = tensors["total_reward"].numpy().copy()
            player.lengths = tensors["lengths"].numpy().copy()
        else:
            self.replay.cut_running()
            player = self.player = Player(player.envs, self.agent)
        player.number = np.array([episode for _, episode, _ in player.envs.get_attr("position")])
        return is_restored
