"""Playing in reality, in its dream, or in both under the same actions; and how that is drawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import gymnasium
import numpy as np
import torch
from torch import Tensor

from agent.agent import Agent
from agent.collect import to_frames
from agent.nets.heads import Select
from agent.pictures import fitted, Panel, scene, shown, to_rgb
from agent.segment import untold

SHOWN = 384  # pixels, about the height of a frame when it is drawn


class Side(NamedTuple):
    """What a step led to, in reality or in the dream.

    picture: [H, W, 3] uint8
    total:   the episode's rewards so far
    reward:  of the step; None at an episode's start
    end:     probability that the step ended the episode, in reality 0 or 1; None at its start
    """

    picture: np.ndarray
    total: float
    reward: float | None = None
    end: float | None = None


class View(NamedTuple):
    """What is seen of a moment; None stands for what there is not.

    over:   the episode ends here
    tokens: [K] int64 that led to the dream's frame, −1 where none did
    alone:  steps that the dream has gone since it saw a real frame
    error:  mean absolute difference of the two frames, in 0..255
    """

    real: Side | None
    dream: Side | None
    over: bool = False
    tokens: np.ndarray | None = None
    alone: int | None = None
    error: float | None = None


class Moment(NamedTuple):
    """step: actions so far; episode: counted from 1; action: [F] int64, that led here, None at an episode's start"""

    step: int
    episode: int
    action: np.ndarray | None
    view: View


class Stage(Protocol):
    """Where one plays. frame: [1, C, H, W] uint8 on the CPU, what the player sees"""

    @property
    def frame(self) -> Tensor: ...

    def begin(self) -> View:
        """Start the next episode."""
        ...

    def step(self, action: np.ndarray) -> View: ...


Choose = Callable[[Tensor, bool], np.ndarray]
"""A player: the frame it sees, [1, C, H, W] uint8, and whether an episode begins with it -> its action, [F] int64."""


class Reality:
    """An environment as a stage. It shows what the environment renders, or else what the agent sees.

    as_seen: it shows what the agent sees in any case
    """

    def __init__(self, env: gymnasium.Env, as_seen: bool = False) -> None:
        self.env, self.as_seen = env, as_seen
        self._size: tuple[int, ...] = ()
        self.frame = torch.empty(0)
        self.total = 0.0

    def begin(self) -> View:
        observation, _ = self.env.reset()
        self.frame, self.total = to_frames(observation[None]), 0.0
        return View(Side(self._picture(observation), 0.0), None)

    def step(self, action: np.ndarray) -> View:
        observation, reward, terminated, truncated, _ = self.env.step(action)
        self.frame, self.total = to_frames(observation[None]), self.total + float(reward)
        real = Side(self._picture(observation), self.total, float(reward), float(terminated))
        return View(real, None, over=bool(terminated or truncated))

    def _picture(self, observation: np.ndarray) -> np.ndarray:
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
        burn_in = agent.config.actor_critic.burn_in
        self.no_action = np.zeros(len(agent.spaces.actions), np.int64)
        self._frames: deque[Tensor] = deque(maxlen=burn_in)
        self._actions: deque[np.ndarray] = deque(maxlen=burn_in - 1)

    def begin(self, frame: Tensor) -> Side:
        """An episode that starts with a real frame, [1, C, H, W] uint8."""
        self._frames.clear()
        self._actions.clear()
        self._frames.append(frame)
        self.total, self.over = 0.0, False
        self.tokens = np.full_like(self.tokens, -1)
        self.frame = frame
        self.wake()
        return Side(to_picture(frame), 0.0)

    def see(self, action: np.ndarray, frame: Tensor) -> None:
        """A real frame, and the action that led to it: the world will start from them at the next `wake`."""
        self._actions.append(action)
        self._frames.append(frame)

    @torch.no_grad()
    def wake(self) -> None:
        """Go on from reality: from the newest frames that were seen, at most the agent's burn-in."""
        self.alone = 0
        frames = torch.stack(tuple(self._frames), dim=1)
        actions = torch.from_numpy(np.stack([*self._actions, self.no_action]))[None]  # none follows the last frame yet
        segment = untold(frames, actions, mask=torch.ones(frames.shape[:2], dtype=torch.bool))
        self._state = self.world.start(segment.to(self.device))

    @torch.no_grad()
    def step(self, action: np.ndarray) -> Side:
        """Imagine what comes of an action."""
        imagined, self._state = self.world.step(self._state, torch.from_numpy(action)[None].to(self.device))
        rewards, ends = self.world.outcome(imagined.outlook)
        self.frame, self.tokens = self.world.frames(self._state.moment).cpu(), imagined.tokens[0].cpu().numpy()
        self.over, self.alone = bool(ends), self.alone + 1
        self.total += float(rewards)
        end = float(self.world.end_probability(imagined.outlook))
        return Side(to_picture(self.frame), self.total, float(rewards), end)


class DreamAlone:
    """A stage where each episode starts with a first frame of the environment, and the rest is imagined."""

    def __init__(self, env: gymnasium.Env, agent: Agent) -> None:
        self.env, self.dream = env, Dream(agent)

    @property
    def frame(self) -> Tensor:
        return self.dream.frame

    def begin(self) -> View:
        observation, _ = self.env.reset()
        return self._view(self.dream.begin(to_frames(observation[None])))

    def step(self, action: np.ndarray) -> View:
        return self._view(self.dream.step(action))

    def _view(self, side: Side) -> View:
        dream = self.dream
        return View(None, side, dream.over, dream.tokens, dream.alone)


class Both:
    """A stage where the player sees reality, which decides when episodes end; the dream follows its actions.

    Both show what the agent sees, at the same size. Until the dream has seen as many frames as the agent's burn-in, it wakes at every step, so that it
    imagines one step ahead; then it goes on alone, for ever or until it wakes after `wake_every` steps.
    """

    def __init__(self, env: gymnasium.Env, agent: Agent, wake_every: int | None) -> None:
        self.reality, self.dream = Reality(env, as_seen=True), Dream(agent)
        self.burn_in, self.wake_every = agent.config.actor_critic.burn_in, wake_every
        self.seen = 0  # real frames of the episode

    @property
    def frame(self) -> Tensor:
        return self.reality.frame

    def begin(self) -> View:
        real = self.reality.begin()
        self.seen = 1
        return self._view(real, self.dream.begin(self.frame))

    def step(self, action: np.ndarray) -> View:
        real, side = self.reality.step(action), self.dream.step(action)
        view = self._view(real, side)
        self.dream.see(action, self.frame)
        self.seen += 1
        if self.seen <= self.burn_in or self.dream.alone == self.wake_every:
            self.dream.wake()
        return view

    def _view(self, real: View, side: Side) -> View:
        dream = self.dream
        return View(real.real, side, real.over, dream.tokens, dream.alone, frame_error(self.frame, dream.frame))


def frame_error(real: Tensor, imagined: Tensor) -> float:
    """Mean absolute difference of two frames [1, C, H, W] uint8, over pixels and channels, in 0..255."""
    return float((real.float() - imagined.float()).abs().mean())


def to_picture(frame: Tensor) -> np.ndarray:
    """[1, C, H, W] uint8 -> [H, W, 3] uint8."""
    return to_rgb(frame[0].permute(1, 2, 0).numpy())


def by_agent(agent: Agent, select: Select) -> Choose:
    """The agent's policy as a player; `select` chooses actions from logits."""
    state = agent.policy.initial_state(1)

    def choose(frame: Tensor, begins: bool) -> np.ndarray:
        nonlocal state
        state = agent.policy.initial_state(1) if begins else state
        actions, state = agent.act(frame.to(agent.device), state, select)
        return actions[0].cpu().numpy()

    return choose


def play(stage: Stage, choose: Choose, steps: int | None) -> Iterator[Moment]:
    """What comes to be seen in `steps` actions, None for no end: a moment for each of them, and one for each
    episode's first frame."""
    step = episode = 0
    begins = True
    while steps is None or step < steps:
        if begins:
            episode += 1
            yield Moment(step, episode, None, stage.begin())
        action = choose(stage.frame, begins)
        view = stage.step(action)
        step += 1
        begins = view.over
        yield Moment(step, episode, action, view)


def draw(
    moment: Moment, label: Callable[[np.ndarray], str], keys: Sequence[tuple[str, str]] = ()
) -> np.ndarray:
    """A picture of the moment, [h, w, 3] uint8; the same size for all moments of a stage.

    label: says what an action is called
    keys:  (keys, name) of each action, to be listed beside it
    """
    view, panels = moment.view, []
    if view.real is not None:
        end = "over" if view.over and not view.real.end else ""  # by a limit
        panels.append(Panel(view.real.picture, "reality", end, values(view.real)))
    if view.dream is not None:
        shown = values(view.dream) | ({} if view.error is None else {"error of 255": f"{view.error:.1f}"})
        ahead = f"{view.alone} step{'s' * (view.alone != 1)} from reality"
        panels.append(Panel(view.dream.picture, "dream", ahead, shown, view.tokens))
    done = "" if moment.action is None else label(moment.action)
    marked = next((i for i, (_, meaning) in enumerate(keys) if meaning == done), None)
    scale = max(1, round(SHOWN / panels[0].frame.shape[0]))
    return scene(panels, f"episode {moment.episode}, step {moment.step}", done, keys, marked, scale)


def values(side: Side) -> dict[str, str]:
    """What is written below a frame; a dash where there was no step yet."""
    return {
        "reward": "–" if side.reward is None else signed(side.reward),
        "return": signed(side.total),
        "end": "–" if side.end is None else f"{100 * side.end:.1f} %",
    }


def signed(number: float) -> str:
    """Two decimals, and zero as +0.00."""
    return f"{round(number, 2) + 0.0:+.2f}"
