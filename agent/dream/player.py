"""Playing in reality, in its dream, or in both under the same actions; and how that is drawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from agent.agent import Agent
from agent.data.collect import to_frames
from agent.evaluation.evaluate import selection
from agent.media.pictures import Panel, fitted, scene, shown, to_rgb
from agent.segment import unlabelled_segment

SHOWN = 384  # pixels, about the height of a frame when it is drawn


class Side(NamedTuple):
    """What a step led to, in reality or in the dream.

    Attributes:
        picture: [H, W, 3] uint8.
        total: The episode's rewards so far.
        reward: Of the step; None at an episode's start.
        end: Probability that the step ended the episode, in reality 0 or 1; None at its start.
    """

    picture: np.ndarray
    total: float
    reward: float | None = None
    end: float | None = None


class View(NamedTuple):
    """What is seen after a step; None stands for what there is not.

    Attributes:
        real: Reality.
        dream: What is imagined.
        over: The episode ends here.
        tokens: [K] int64 that led to the dream's frame, −1 where none did.
        alone: Steps that the dream has gone since it saw a real frame.
        error: Mean absolute difference of the two frames, in 0..255.
    """

    real: Side | None
    dream: Side | None
    over: bool = False
    tokens: np.ndarray | None = None
    alone: int | None = None
    error: float | None = None


class PlayerStep(NamedTuple):
    """One step of an episode, or its start.

    Attributes:
        step: Actions so far, over all episodes.
        episode: Counted from 1.
        action: [F] int64 that led here; None at an episode's start.
        view: What is seen.
    """

    step: int
    episode: int
    action: np.ndarray | None
    view: View


Choose = Callable[[Tensor, bool], np.ndarray]
"""A player: (frame [1, C, H, W] uint8, whether an episode begins) -> action [F] int64."""


class Reality:
    """An environment of `make_single` or `make_rendered`.

    It shows what the environment renders, or with `as_seen` what the agent sees.
    """

    def __init__(self, env: gymnasium.Env, as_seen: bool) -> None:
        self.env, self.as_seen = env, as_seen
        self.frame = torch.empty(0)  # [1, C, H, W] uint8 on the CPU
        self.total, self.over = 0.0, False
        self._size: tuple[int, ...] = ()

    def begin(self) -> Side:
        """Start the next episode."""
        observation, _ = self.env.reset()
        self.total, self.over = 0.0, False
        return Side(self._picture(observation), 0.0)

    def step(self, action: np.ndarray) -> Side:
        """Take an action [F]."""
        observation, reward, terminated, truncated, _ = self.env.step(action)
        self.total, self.over = self.total + float(reward), bool(terminated or truncated)
        return Side(self._picture(observation), self.total, float(reward), float(terminated))

    def _picture(self, observation: np.ndarray) -> np.ndarray:
        self.frame = to_frames(observation[None])
        picture = to_rgb(observation) if self.as_seen else shown(self.env, observation)
        self._size = self._size or picture.shape[:2]  # a renderer may change its mind
        return fitted(picture, *self._size)


class Dream:
    """What the world model imagines, from the newest real frames that it was shown."""

    def __init__(self, agent: Agent) -> None:
        self.world, self.device = agent.world, agent.device
        self.frame = torch.empty(0)
        self.total, self.over, self.alone = 0.0, False, 0
        self.tokens = np.full(agent.tokenizer.tokens, -1)
        self._no_action = np.zeros(len(agent.spaces.actions), np.int64)
        self.burn_in = agent.config.actor_critic.burn_in
        self._seen: deque[tuple[np.ndarray, Tensor]] = deque(maxlen=self.burn_in)

    def begin(self, frame: Tensor) -> Side:
        """An episode that starts with a real frame, [1, C, H, W] uint8."""
        self._seen.clear()
        self.see(self._no_action, frame)
        self.frame, self.total, self.over = frame, 0.0, False
        self.tokens = np.full_like(self.tokens, -1)
        self.wake()
        return Side(to_picture(frame), 0.0)

    def see(self, action: np.ndarray, frame: Tensor) -> None:
        """A real frame, and the action that led to it, for the next `wake`."""
        self._seen.append((action, frame))

    @torch.no_grad()
    def wake(self) -> None:
        """Go on from reality: the newest frames that were seen, at most the agent's burn-in."""
        self.alone = 0
        before, frames = zip(*self._seen, strict=True)
        # An action stands with the frame that it follows; none follows the last frame yet.
        actions = torch.from_numpy(np.stack([*before[1:], self._no_action]))[None]
        mask = torch.ones(1, len(frames), dtype=torch.bool)
        segment = unlabelled_segment(torch.stack(frames, dim=1), actions, mask)
        self._state = self.world.start(segment.to(self.device))

    @torch.no_grad()
    def step(self, action: np.ndarray) -> Side:
        """Imagine what comes of an action."""
        given = torch.from_numpy(action)[None].to(self.device)
        imagined, self._state = self.world.step(self._state, given)
        rewards, ends = self.world.outcome(imagined.action_features)
        self.frame = self.world.frames(self._state.latent).cpu()
        self.tokens = imagined.tokens[0].cpu().numpy()
        self.over, self.alone = bool(ends), self.alone + 1
        self.total += float(rewards)
        end = float(self.world.end_probability(imagined.action_features))
        return Side(to_picture(self.frame), self.total, float(rewards), end)


class Stage:
    """Where one plays: in reality, in a dream that begins with a real frame, or in both.

    In both, the player sees reality, which decides when episodes end. Until the dream has seen as
    many frames as the agent's burn-in, it wakes at every step, so that it imagines one step ahead;
    then it goes on alone, for ever or until it wakes after `wake_every` steps.

    Args:
        env: an environment.
        agent: whose world dreams.
        where: real, dream or both.
        wake_every: of both.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        agent: Agent | None = None,
        where: str = "real",
        wake_every: int | None = None,
    ) -> None:
        self.where, self.wake_every = where, wake_every
        self.reality = Reality(env, as_seen=where != "real")
        self.dream = None if agent is None or where == "real" else Dream(agent)
        self.seen = 0  # real frames of the episode

    @property
    def frame(self) -> Tensor:
        """What the player sees, [1, C, H, W] uint8 on the CPU."""
        return self.dream.frame if self.dream and self.where == "dream" else self.reality.frame

    def begin(self) -> View:
        """Start the next episode."""
        real, self.seen = self.reality.begin(), 1
        return self._view(real, self.dream and self.dream.begin(self.reality.frame))

    def step(self, action: np.ndarray) -> View:
        """Take an action [F]."""
        if self.dream is None:
            return self._view(self.reality.step(action), None)
        if self.where == "dream":
            return self._view(None, self.dream.step(action))
        view = self._view(self.reality.step(action), self.dream.step(action))
        self.dream.see(action, self.frame)
        self.seen += 1
        if self.seen <= self.dream.burn_in or self.dream.alone == self.wake_every:
            self.dream.wake()
        return view

    def _view(self, real: Side | None, imagined: Side | None) -> View:
        dream = self.dream
        if dream is None:
            return View(real, None, self.reality.over)
        if self.where == "dream":
            return View(None, imagined, dream.over, dream.tokens, dream.alone)
        error = float((self.frame.float() - dream.frame.float()).abs().mean())
        return View(real, imagined, self.reality.over, dream.tokens, dream.alone, error)


def to_picture(frame: Tensor) -> np.ndarray:
    """[1, C, H, W] uint8 -> [H, W, 3] uint8."""
    return to_rgb(frame[0].permute(1, 2, 0).numpy())


def by_agent(agent: Agent, temperature: float) -> Choose:
    """The agent's policy as a player. temperature: 0 for the likeliest actions."""
    state, select = agent.policy.initial_state(1), selection(temperature)

    def choose(frame: Tensor, begins: bool) -> np.ndarray:
        nonlocal state
        state = agent.policy.initial_state(1) if begins else state
        actions, state = agent.act(frame.to(agent.device), state, select)
        return actions[0].cpu().numpy()

    return choose


def play(stage: Stage, choose: Choose, steps: int | None) -> Iterator[PlayerStep]:
    """Each episode's start, and each of `steps` actions; None for no end."""
    step = episode = 0
    begins = True
    while steps is None or step < steps:
        if begins:
            episode += 1
            yield PlayerStep(step, episode, None, stage.begin())
        action = choose(stage.frame, begins)
        view = stage.step(action)
        step += 1
        begins = view.over
        yield PlayerStep(step, episode, action, view)


def draw(
    step: PlayerStep, label: Callable[[np.ndarray], str], keys: Sequence[tuple[str, str]] = ()
) -> np.ndarray:
    """A picture of a step.

    Args:
        step: what to draw.
        label: says what an action is called.
        keys: (keys, name) of each action, to be listed beside it.

    Returns:
        [h, w, 3] uint8, of the same size for all steps of a stage.
    """
    view, panels = step.view, []
    if view.real is not None:
        end = "over" if view.over and not view.real.end else ""  # by a limit
        panels.append(Panel(view.real.picture, "reality", end, values(view.real)))
    if view.dream is not None:
        numbers = values(view.dream)
        if view.error is not None:
            numbers["error of 255"] = f"{view.error:.1f}"
        ahead = f"{view.alone} step{'s' * (view.alone != 1)} from reality"
        panels.append(Panel(view.dream.picture, "dream", ahead, numbers, view.tokens))
    done = "" if step.action is None else label(step.action)
    marked = next((i for i, (_, meaning) in enumerate(keys) if meaning == done), None)
    scale = max(1, round(SHOWN / panels[0].frame.shape[0]))
    return scene(panels, f"episode {step.episode}, step {step.step}", done, keys, marked, scale)


def values(side: Side) -> dict[str, str]:
    """What is written below a frame; a dash where there was no step yet."""
    return {
        "reward": "–" if side.reward is None else signed(side.reward),
        "return": signed(side.total),
        "end": "–" if side.end is None else f"{100 * side.end:.1f} %",
    }


def signed(number: float) -> str:
    """Two decimals, and zero as +0.00; four digits of what is large."""
    return f"{number:+.4g}" if abs(number) >= 1e7 else f"{round(number, 2) + 0.0:+.2f}"
