"""Atari games under the protocol of Atari 100k.

Sources: Kaiser et al., "Model-Based Reinforcement Learning for Atari", ICLR 2020
(arXiv:1903.00374), the 26 games; Micheli et al., "Transformers are Sample-Efficient World Models",
ICLR 2023 (arXiv:2209.00588), frames, no-ops and lives. The games are ALE's (`ale_py`), and so are
the action sets, sticky actions and the limit of frames.
"""

import difflib
import re
from typing import Any

import ale_py
import gymnasium
import numpy as np
from PIL import Image

from envs.errors import BadInput

FRAME_RATE = 60  # raw frames a second


# gymnasium.wrappers.AtariPreprocessing takes the maximum before it resizes, resizes by another
# filter, and resets after a lost life.
class AtariEnv(gymnasium.Env):
    """An Atari game, a step of which is some raw frames under the same action.

    - observation: `[size, size, 3]` uint8 in 0..255: the elementwise maximum of the step's last
      two raw frames, each resized by Pillow's bilinear filter first; a single frame after the
      first no-ops, and if the game ends with the step's first frame;
    - action: one of the game's own (3 to 18), in ALE's order, 0 does nothing; or one of all 18;
      `action_meanings` are ALE's names for them;
    - reward: the score gained, summed over the step's frames and not clipped;
    - terminated: the game is over, or a life was lost while others remain (`end_on_life_loss`);
    - truncated: the game has had `max_frames` raw frames and is not over;
    - info: `lives`; `frames`, raw ones since the game began, no-ops included; `game_continues`.

    After a lost life has ended an episode (`game_continues`), the next `reset()` goes on with the
    same game: it does nothing for one step, whose reward is dropped. Any other `reset`, or one with
    a seed, starts a new game; so does one whose step of doing nothing ends the game.

    A seed given to `reset` decides everything that follows, in this process or another: the number
    of no-ops, and sticky actions. Apart from these, ALE's first game after a seed is always the
    same; later ones start as ALE starts them, in a few games (Assault, for one) a little otherwise.

    Args:
        game: its name, as Breakout, of a one-player game of ALE; required.
        size: pixels of the observation's side.
        frame_skip: raw frames of a step.
        noops: a game begins with 1 to `noops` raw frames of doing nothing, uniformly at random.
        max_frames: raw frames after which a game is truncated, in the middle of a step if need be.
        end_on_life_loss: whether a lost life ends an episode.
        sticky_actions: probability that a raw frame repeats the action of the frame before.
        full_action_space: all 18 actions rather than those that the game reads.
        render_mode: None, or "rgb_array": `render()` returns the raw screen, `[210, 160, 3]` uint8
            (a few games: 250).

    Raises:
        BadInput: the game is not known, or a number is out of its range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": FRAME_RATE // 4}

    def __init__(
        self,
        *,
        game: str | None = None,
        size: int = 64,
        frame_skip: int = 4,
        noops: int = 30,
        max_frames: int = 20_000,
        end_on_life_loss: bool = True,
        sticky_actions: float = 0.0,
        full_action_space: bool = False,
        render_mode: str | None = None,
    ):
        if min(size, frame_skip, noops, max_frames) < 1 or not 0 <= sticky_actions < 1:
            raise BadInput(
                f"Atari was given size={size}, frame_skip={frame_skip}, noops={noops}, "
                f"max_frames={max_frames}, sticky_actions={sticky_actions}; give numbers from 1 "
                "on, and a probability below 1."
            )
        self.size, self.frame_skip, self.noops = size, frame_skip, noops
        self.end_on_life_loss, self.sticky_actions = end_on_life_loss, sticky_actions
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": round(FRAME_RATE / frame_skip)}

        self._rom: Any = ale_py.roms.get_rom_path(_rom_name(game))
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # for its banner at each ROM
        self._ale = ale_py.ALEInterface()
        self._ale.setFloat("repeat_action_probability", sticky_actions)
        self._ale.setInt("max_num_frames_per_episode", max_frames)
        self._load()
        self._loaded = self._ale.cloneState()
        self._game_continues = False
        # The newest two screens, which ALE draws into; `_seen` are those of the last step.
        self._screens = np.zeros((2, *self._ale.getScreenDims(), 3), np.uint8)
        self._seen = self._screens[:1]
        self._actions = (
            self._ale.getLegalActionSet() if full_action_space else self._ale.getMinimalActionSet()
        )
        self.action_meanings = tuple(action.name for action in self._actions)
        self.action_space = gymnasium.spaces.Discrete(len(self._actions))
        self.observation_space = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode: in the game that lost a life, or in a new one."""
        super().reset(seed=seed, options=options)
        if self._game_continues and seed is None:
            self._play(ale_py.Action.NOOP)
        if seed is not None:  # ALE as before its first game: its own reset keeps some of the last
            if self.sticky_actions > 0:
                self._load()
            else:
                self._ale.restoreState(self._loaded)  # loading takes as long as a hundred steps
        if not self._game_continues or seed is not None or self._ale.game_over():
            self._start_game()
        self._game_continues = False
        return self._observation(), self._info()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        lives_before = self._ale.lives()
        reward = self._play(self._actions[action])
        game_over = self._ale.game_over(with_truncation=False)
        truncated = self._ale.game_truncated() and not game_over
        life_lost = self.end_on_life_loss and not game_over and 0 < self._ale.lives() < lives_before
        self._game_continues = life_lost and not truncated
        return self._observation(), reward, game_over or life_lost, truncated, self._info()

    def render(self) -> np.ndarray | None:
        """The raw screen, `[height, width, 3]` uint8; None without a render mode."""
        return None if self.render_mode is None else self._ale.getScreenRGB()

    def _load(self) -> None:
        """Load ALE as before its first game; only now does it take a seed, for sticky actions."""
        self._ale.setInt("random_seed", int(self.np_random.integers(2**31)))
        self._ale.loadROM(self._rom)

    def _start_game(self) -> None:
        self._ale.reset_game()
        for _ in range(self.np_random.integers(1, self.noops + 1)):
            self._ale.act(ale_py.Action.NOOP)
        self._seen = self._screens[:1]
        self._ale.getScreenRGB(self._screens[0])

    def _play(self, action: ale_py.Action) -> float:
        """Play a step's raw frames, until the game is over or at its limit. Returns the score."""
        reward, frames = 0.0, 0
        while frames < self.frame_skip and not self._ale.game_over():
            reward += self._ale.act(action)
            self._ale.getScreenRGB(
                self._screens[frames % 2]
            )  # each may turn out to be the last but one
            frames += 1
        if frames:  # after the end nothing is played
            self._seen = self._screens[:frames]
        return reward

    def _observation(self) -> np.ndarray:
        """`[size, size, 3]` uint8 from the screens that were seen last."""
        size, bilinear = (self.size, self.size), Image.Resampling.BILINEAR
        pictures = [Image.fromarray(screen).resize(size, bilinear) for screen in self._seen]
        return np.maximum(np.asarray(pictures[0]), np.asarray(pictures[-1]))

    def _info(self) -> dict[str, Any]:
        return {
            "lives": self._ale.lives(),
            "frames": self._ale.getEpisodeFrameNumber(),
            "game_continues": self._game_continues,
        }


def games() -> dict[str, str]:
    """Name -> ROM's name, of ALE's games as ale_py registers them: without two-player games."""
    return {
        id.removeprefix("ALE/").removesuffix("-v5"): spec.kwargs["game"]
        for id, spec in gymnasium.registry.items()
        if id.startswith("ALE/") and id.endswith("-v5")
    }


def game_of(id: str) -> str | None:
    """The game of an id of ale_py's in any version, as Pong of Pong-ramNoFrameskip-v4."""
    version = r"^ALE/|(-?ram)?(NoFrameskip|Deterministic)?(-v\d+)?$"
    name = re.sub(version, "", id, flags=re.IGNORECASE).lower().replace("_", "")
    return {game.lower(): game for game in games()}.get(name)


def _rom_name(game: str | None) -> str:
    """What ALE calls the game's ROM. Raises BadInput if there is no such game."""
    names = games()
    if game in names:
        return names[game]
    near = game_of(str(game)) or next(iter(difflib.get_close_matches(str(game), names)), None)
    raise BadInput(
        f"Atari was given game={game!r}; give the name of a game of ALE, as "
        f"env.game={near or 'Breakout'} (https://ale.farama.org/environments/complete_list)."
    )
