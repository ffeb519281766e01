"""Episodes that can be played again, of any environment, also of one that fails."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import zip_longest
from typing import Any

import gymnasium
import numpy as np

from envs.config import EnvConfig
from envs.errors import BadInput
from envs.failures import Restarts
from envs.images import is_plain
from envs.workers import Remote


def episode_seed(seed: int, episode: int) -> int:
    """The seed of one episode, in 0 .. 2**32 - 1, of an environment whose own seed is `seed`."""
    return int(np.random.SeedSequence(seed, spawn_key=(episode,)).generate_state(1)[0])


Position = tuple[int, int, list[Any]]
"""Where an environment stands: the number of the episode in which its game began, the number of
the running episode, and all actions since the game's beginning. If the first number is the larger
one, the environment failed in the running episode, and the next step begins the next."""

Progress = tuple[Any, float, dict[str, Any]]
"""Observation, reward and info of a reset or step."""


class SeededEpisodes(gymnasium.Wrapper):
    """Episodes decided by (seed, number of the episode, actions), and by nothing before them.

    Each `reset()` starts the next episode: number 0, 1, 2, ... A `reset(seed=s)` makes `s` the seed
    and starts its episode 0. After an episode's end, `step` is a reset too. Where the last step's
    info says `game_continues` (Atari: a life was lost, and others remain), the next episode goes on
    with the same game, and is decided by its actions too.

    An environment fails when `reset` or `step` raises an exception or SystemExit. That stops the
    run, or the environment is made anew (`config.on_error`). Then, in a step, its episode is
    truncated with what was seen before that step; in a reset, the next episode begins instead. The
    info has `failures`, a list of sentences.

    Attributes:
        seed: the seed from which every episode's own seed is derived.
        episode: the number of the running episode; -1 before the first reset.
        resume_from: None, or a `position` to which the next `reset()` brings the environment, by
            replaying its actions; it returns what is seen then. An environment that its seed does
            not decide may end before the actions do: then `position` is not what was asked for.

    Args:
        make: makes the environment, the first one and its replacements. Its actions are numbers or
            arrays of them, and it has no wrapper that remembers past episodes.
        seed: a whole number, 0 or more.
        config: what is done when it fails.
        name: of the environment, for people.

    Raises:
        EnvironmentFailed: in `reset` and `step`: it failed, and is not to be restarted.
        BadInput: the seed is negative; later, it is not what it declares (`Frames`).
    """

    def __init__(
        self,
        make: Callable[[], gymnasium.Env],
        seed: int,
        config: EnvConfig | None = None,
        name: str = "",
    ) -> None:
        super().__init__(make())
        if seed < 0:
            raise BadInput(f"An environment was given the seed {seed}: give 0 or more.")
        config = config or EnvConfig()
        self._make, self._restarts = make, Restarts(config, name or config.name)
        self.seed = seed
        self.resume_from: Position | None = None
        self._step, self._steps = 0, 0  # of the episode, and of all
        self._seen: Any = None
        self._was_plain: bool | None = None  # whether an episode ever began with a single colour
        self._is_anew = False
        self._start_before(0)

    @property
    def position(self) -> Position:
        return self._began, self.episode, self._actions.copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start the next episode, or go to `resume_from`."""
        if seed is not None:
            self.seed, self.resume_from = seed, None
            self._start_before(0)
        for progress in self.begin(options):  # noqa: B007 (the last one is used)
            pass
        assert progress is not None
        return progress[0], progress[2]

    def begin(self, options: dict[str, Any] | None = None) -> Iterator[Progress | None]:
        """As `reset`, one step of a replay at a time, so that several environments take turns."""
        position, self.resume_from = self.resume_from, None
        if position is not None:
            self._start_before(position[0])
        self._ended = True  # whatever was played before
        self.ask()
        yield None
        if position is None:
            yield self._begin(options)
        elif position[0] <= position[1]:
            yield from self.go_to(position)
        else:  # what stands before an episode has to show something too: its first frame
            yield self._begin()
            self._start_before(position[0])

    def go_to(self, position: Position) -> Iterator[Progress]:
        """Replay a game up to a position, or its end. Yields every reset and step."""
        began, episode, actions = position
        self._start_before(began)
        yield self._begin()
        for action, following in zip_longest(actions, actions[1:]):
            if self._ended:
                yield self._begin()
            observation, reward, _, _, info = self._play(action)
            is_over = self._ended and not self._continues
            if following is not None and not is_over:
                self.ask(following)
            yield observation, reward, info
            if is_over:
                return
        if self._continues and self.episode < episode:
            yield self._begin()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; a reset, whatever the action, after an episode's end."""
        if self._ended:
            observation, reward, info = self._begin()
            return observation, reward, False, False, info
        return self._play(action)

    def ask(self, action: Any = None) -> None:
        """Have an environment in a process begin what `step(action)` or a reset will wait for."""
        if isinstance(self.env, Remote):
            data = self._next_seed() if self._ended else action
            self.env.ask("reset" if self._ended else "step", data)

    def ask_to_close(self) -> None:
        """Have an environment in a process close itself before `close()` ends it."""
        if isinstance(self.env, Remote):
            self.env.ask("close")

    def close(self) -> None:
        """Of an environment that fails in this, too, nothing more is wanted."""
        with suppress(Exception, SystemExit):
            self.env.close()

    def _start_before(self, episode: int) -> None:
        self.episode = episode - 1
        self._began = episode
        self._actions: list[Any] = []
        self._ended, self._continues = True, False

    def _next_seed(self) -> int | None:
        return None if self._continues else episode_seed(self.seed, self.episode + 1)

    def _begin(self, options: dict[str, Any] | None = None) -> Progress:
        failures: list[str] = []
        while True:
            seed = self._next_seed()
            self.episode, self._step = self.episode + 1, 0
            if seed is not None:
                self._began, self._actions = self.episode, []
            self._ended = self._continues = False
            try:
                observation, info = self.env.reset(seed=seed, options=options)
                self._check_shows(observation)
            except (Exception, SystemExit) as error:
                where = f"in the reset that begins its episode {self.episode + 1}"
                failures.append(self._restart(error, where))
                continue
            self._seen = observation.copy()  # the environment's own array may change
            return observation, 0.0, info | {"failures": failures} if failures else info

    def _play(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._step, self._steps = self._step + 1, self._steps + 1
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except (Exception, SystemExit) as error:
            where = f"at step {self._step} of its episode {self.episode + 1}"
            report = self._restart(error, where)
            self._start_before(self.episode + 1)
            return self._seen, 0.0, False, True, {"failures": [report]}
        self._seen = observation.copy()
        self._actions.append(np.asarray(action).tolist())
        self._ended = terminated or truncated
        self._continues = bool(self._ended and info.get("game_continues", False))
        return observation, float(reward), terminated, truncated, info

    def _check_shows(self, first: np.ndarray) -> None:
        """A renderer may break when another is closed: it shows black, and raises nothing."""
        plain = is_plain(first)
        if plain and self._is_anew and self._was_plain is False:
            raise RuntimeError(
                "made anew it shows a single colour, which it did not before (env.parallel=true "
                "gives it a process of its own)"
            )
        self._was_plain = bool(self._was_plain) or plain

    def _restart(self, error: BaseException, where: str) -> str:
        """Make the environment anew -> a sentence about it, if that is accepted."""
        while True:
            report = self._restarts.accept(error, where, self._steps)
            self.close()
            try:
                self.env, self._is_anew = self._make(), True
                return report
            except (Exception, SystemExit) as again:
                error, where = again, "when it was made anew"
