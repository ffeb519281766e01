"""Episodes -> returns and scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agent.agent import Agent
from agent.config import EvaluationConfig
from agent.data.collect import Episode, Player, achievements_of
from agent.nets.actions import random_actions
from agent.nets.heads import Select, greedy, gumbel_max
from agent.segment import Segment
from agent.signals import Pause
from envs.aggregates import estimate, mean
from envs.config import EnvConfig
from envs.scores import crafter_score, crafter_success_rates
from envs.vector import closing, make_vector
from envs.wrappers import Position

RECORDED_STEPS = 3000  # of an episode for films and dreams: some Atari games go on for 27,000


def selection(temperature: float) -> Select:
    """How actions are chosen from logits; 0: the likeliest."""
    if temperature == 0:
        return greedy
    return lambda logits: gumbel_max(logits / temperature)


class Played(NamedTuple):
    """How to replay an episode: its environment's seed, and where it ended (SeededEpisodes)."""

    seed: int
    position: Position


@dataclass
class Evaluation:
    """The result of an evaluation.

    Attributes:
        returns: [episodes], in the order of environment and episode, as `lengths` and `played`.
        lengths: In steps.
        achievements: For Crafter, the counts of each episode by name.
        recording: The first environment's first episode, a segment [T + 1] with its last
            observation; at most its first RECORDED_STEPS steps.
        played: How to replay each.
        cut: The number of episodes that were stopped after `max_steps`.
        failures: What environments reported of their restarts; broken episodes are not counted.
    """

    returns: np.ndarray
    lengths: np.ndarray
    achievements: list[dict[str, int]] | None
    recording: Segment
    played: list[Played]
    cut: int
    failures: list[str]

    def remarks(self) -> list[str]:
        """What a reader of the figures has to know, in sentences."""
        remarks = [*self.failures]
        if self.failures:
            remarks.append(
                f"Environments were restarted {len(self.failures)} times; other episodes were "
                "played for those that broke off."
            )
        if self.cut:
            remarks.append(
                f"{self.cut} of {len(self.lengths)} episodes had not ended after "
                f"evaluation.max_steps={self.lengths.max()} steps, and count as they stood then."
            )
        return remarks

    def summary(self) -> dict[str, float]:
        """Statistics of returns and lengths; for Crafter also its score and 22 rates in percent.

        The mean return comes with a bootstrapped 95 % interval.
        """
        low = high = error = float("nan")  # one episode has no spread
        if len(self.returns) > 1:
            interval = estimate(mean, {"": self.returns})
            low, high = float(interval.low), float(interval.high)
            error = float(self.returns.std(ddof=1) / np.sqrt(len(self.returns)))
        summary = {
            "return_mean": float(self.returns.mean()),
            "return_95_low": low,
            "return_95_high": high,
            "return_median": float(np.median(self.returns)),
            "return_standard_error": error,
            "length_mean": float(self.lengths.mean()),
        }
        if self.achievements is not None:
            rates = crafter_success_rates(self.achievements)
            summary["crafter_score"] = crafter_score(rates)
            summary |= {f"success_rate/{name}": rate for name, rate in rates.items()}
        return summary


def evaluate(
    agent: Agent,
    env: EnvConfig,
    config: EvaluationConfig,
    progress: Callable[[int], Any] = lambda n: None,
    random: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Play `config.episodes` episodes, the same ones each time; `random`: by random actions.

    Each environment plays its share in full, so that short episodes are not favoured. The global
    random generators stay as they are.

    Raises:
        Pause: If `stop()` is true.
    """
    num_envs = min(config.num_envs, config.episodes)
    share = [len(range(i, config.episodes, num_envs)) for i in range(num_envs)]
    seeds = np.random.SeedSequence(config.seed, spawn_key=(1,)).generate_state(num_envs).tolist()
    select = selection(config.temperature)

    def choose(frames: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if random:
            return random_actions(agent.spaces.actions, (len(frames),), frames.device), state
        return agent.act(frames, state, select)

    played: list[list[tuple[Episode, Played]]] = [[] for _ in range(num_envs)]
    rows: list[list[Tensor]] = []  # of the recording
    cut = 0
    with (
        torch.random.fork_rng([agent.device] if agent.device.type == "cuda" else []),
        closing(make_vector(env.for_evaluation(config.parallel), seeds, config.max_steps)) as envs,
    ):
        torch.manual_seed(config.seed)
        player = Player(envs, agent)
        while sum(map(len, played)) < config.episodes:
            if stop():
                raise Pause
            recording = not played[0] and len(rows) < RECORDED_STEPS
            row, ended = player.step(choose)
            positions = envs.get_attr("position") if ended else ()
            if recording and (rows or row.is_step[0]):
                rows.append([torch.as_tensor(np.asarray(column[0])) for column in row])
            for episode in ended:
                i = episode.env
                if episode.is_broken and i == 0 and recording:
                    rows.clear()
                if episode.is_broken or len(played[i]) == share[i]:
                    continue
                played[i].append((episode, Played(seeds[i], positions[i])))
                cut += episode.length == config.max_steps and not row.terminated[i]
                progress(1)
                if recording and i == 0:  # the last observation: a frame, and otherwise nothing
                    rows.append([player.frames[0], *map(torch.zeros_like, rows[-1][1:])])
    episodes, ends = zip(*(both for own in played for both in own), strict=True)
    frames, actions, rewards, *flags = map(torch.stack, zip(*rows, strict=True))
    return Evaluation(
        returns=np.array([episode.total_reward for episode in episodes]),
        lengths=np.array([episode.length for episode in episodes]),
        achievements=achievements_of(list(episodes)),
        recording=Segment(frames, actions, rewards.float(), *flags, batch_size=[len(frames)]),
        played=list(ends),
        cut=cut,
        failures=player.failures,
    )
