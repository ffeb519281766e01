"""Playing in reality, in its dream, or in both under the same actions; and how that is drawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from textwrap import shorten

import gymnasium
import numpy as np
import torch
from torch import Tensor

from agent.agent import Agent
from agent.data.collect import to_frames
from agent.evaluation.evaluate import selection
from agent.media.pictures import Panel, scene, shown, to_rgb
from agent.media.previews import to_pictures
from agent.segment import unlabelled_segment

SHOWN = 384  # pixels, about the height of a frame when it is drawn

Choose = Callable[[Tensor, bool], np.ndarray]
"""A player: (frame [1, C, H, W] uint8, whether an episode begins) -> action [F] int64."""


class Stage:
    """Where one plays: in reality, in a dream that begins with a real frame, or in both.

    In both, the player sees reality, which decides when episodes end. Until the dream has seen as
    many frames as the agent's burn-in, it wakes at every step, so that it imagines one step ahead;
    then it goes on alone, for ever or until it wakes after `wake_every` steps.

    Attributes:
        frame: What the player sees, [1, C, H, W] uint8 on the CPU.
        over: The episode has ended.
        panels: What the last step led to: "reality", "dream", or both. `end` is the probability
            that the step ended the episode, in reality 0 or 1.
        returns: The episode's rewards so far, of each panel.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        agent: Agent | None = None,
        where: str = "real",
        wake_every: int | None = None,
    ) -> None:
        self.env, self.agent, self.where, self.wake_every = env, agent, where, wake_every
        self.frame, self.over = torch.empty(0), False
        self.panels: dict[str, Panel] = {}
        self.returns: dict[str, float] = {}
        self.alone = 0  # steps that the dream has gone since it saw a real frame
        self._seen = 0  # real frames of the episode
        burn_in = agent.config.actor_critic.burn_in if agent else 1
        self._newest: deque[tuple[np.ndarray, Tensor]] = deque(maxlen=burn_in)

    def begin(self) -> None:
        """Start the next episode."""
        observation, _ = self.env.reset()
        self.frame, self.over = to_frames(observation[None]), False
        self.panels, self.returns, self._seen = {}, {}, 0
        self._newest.clear()
        if self.where != "dream":
            self._put("reality", self._picture(observation))
        if self.where != "real":
            self._see(np.zeros(len(self.agent.spaces.actions), np.int64))
            self._put("dream", to_rgb(observation), tokens=[-1] * self.agent.tokenizer.tokens)

    def step(self, action: np.ndarray) -> None:
        """Take an action [F]."""
        if self.where != "dream":
            observation, reward, terminated, truncated, _ = self.env.step(action)
            self.frame, self.over = to_frames(observation[None]), bool(terminated or truncated)
            note = "time limit" if truncated else ""
            picture = self._picture(observation)
            self._put("reality", picture, float(reward), float(terminated), note)
        if self.where != "real":
            self._imagine(action)
        if self.where == "both":
            self._see(action)

    def draw(self, title: str, note: str = "") -> np.ndarray:
        """A picture, [h, w, 3] uint8, of one size for all steps."""
        panels = list(self.panels.values())
        return scene(panels, title, note, max(1, round(SHOWN / len(panels[0].frame))))

    def _picture(self, observation: np.ndarray) -> np.ndarray:
        return shown(self.env, observation) if self.where == "real" else to_rgb(observation)

    def _put(
        self,
        name: str,
        picture: np.ndarray,
        reward: float | None = None,
        end: float | None = None,
        note: str = "",
        tokens: Sequence[int] | np.ndarray = (),
    ) -> None:
        """Fill a panel; an episode's start has neither reward nor end."""
        self.returns[name] = self.returns.get(name, 0.0) + (reward or 0.0)
        values = {
            "reward": "–" if reward is None else f"{reward:+.4g}",
            "return": f"{self.returns[name]:+.4g}",
            "end": "–" if end is None else f"{end:.1%}",
        }
        if name == "dream" and self.where == "both":
            difference = self.panels["reality"].frame.astype(float) - picture
            values["error of 255"] = f"{np.abs(difference).mean():.1f}"
        self.panels[name] = Panel(picture, name, note, values, tokens)

    @torch.no_grad()
    def _see(self, action: np.ndarray) -> None:
        """Show the dream the real frame that an action led to; it may wake from it."""
        self._newest.append((action, self.frame))
        self._seen += 1
        if self._seen <= self._newest.maxlen or self.alone == self.wake_every:
            before, frames = zip(*self._newest, strict=True)
            # An action stands with the frame that it follows; none follows the last frame yet.
            actions = torch.from_numpy(np.stack([*before[1:], np.zeros_like(action)]))[None]
            mask = torch.ones(1, len(frames), dtype=torch.bool)
            segment = unlabelled_segment(torch.stack(frames, dim=1), actions, mask)
            self._state, self.alone = self.agent.world.start(segment.to(self.agent.device)), 0

    @torch.no_grad()
    def _imagine(self, action: np.ndarray) -> None:
        world = self.agent.world
        given = torch.from_numpy(action)[None].to(self.agent.device)
        imagined, self._state = world.step(self._state, given)
        reward, end = world.outcome(imagined.action_features)
        probability = float(world.end_probability(imagined.action_features))
        frame = world.frames(self._state.latent).cpu()
        if self.where == "dream":
            self.frame, self.over = frame, bool(end)
        self.alone += 1
        note, tokens = f"{self.alone} from reality", imagined.tokens[0].cpu().numpy()
        self._put("dream", to_pictures(frame)[0], float(reward), probability, note, tokens)


def by_agent(agent: Agent, temperature: float) -> Choose:
    """The agent's policy as a player; temperature 0: the likeliest actions."""
    state, select = agent.policy.initial_state(1), selection(temperature)

    def choose(frame: Tensor, begins: bool) -> np.ndarray:
        nonlocal state
        state = agent.policy.initial_state(1) if begins else state
        actions, state = agent.act(frame.to(agent.device), state, select)
        return actions[0].cpu().numpy()

    return choose


def play(stage: Stage, choose: Choose, steps: int | None) -> Iterator[np.ndarray]:
    """Pictures of each episode's start and of each of `steps` actions; prints episodes' returns.

    Args:
        stage: Where.
        choose: The player.
        steps: None for no end.
    """
    label = stage.env.get_wrapper_attr("label")
    step = episode = 0
    begins = True
    while steps is None or step < steps:
        if begins:
            episode += 1
            stage.begin()
            yield stage.draw(f"episode {episode}, step {step}")
        action = choose(stage.frame, begins)
        stage.step(action)
        step += 1
        done = shorten(label(action), 30, placeholder="…")
        yield stage.draw(f"episode {episode}, step {step}", done)
        begins = stage.over
        if begins:
            returns = ", ".join(f"{value:+.4g} in {name}" for name, value in stage.returns.items())
            print(f"episode {episode} ended at step {step} with return {returns}", flush=True)
