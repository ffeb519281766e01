"""Playing: films, a keyboard on a screen that nobody sees, refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from agent.config.compose import PLAYING, register
from agent.dream.play import PlayConfig, by_keyboard
from agent.dream.play import play as run_play
from agent.dream.player import Stage
from agent.dream.player import play as play_stage
from agent.dream.window import PlayerWindow
from agent.media.pictures import LINE, MARGIN
from agent.runs.cli import configuration
from envs.config import EnvConfig
from envs.errors import BadInput
from envs.keys import keys_of
from envs.make import make_single
from envs.spaces import Spaces
from tests.scripts.commands import contents
from tests.scripts.commands import play as play_command

SIDE = 384  # of a frame of Catch when it is drawn


def play(*arguments: str) -> None:
    """The command, in this process."""
    register("play", PLAYING)
    run_play(configuration("play", PlayConfig, [*arguments]), [*arguments])


@pytest.fixture
def screen(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def panel(picture: np.ndarray, number: int) -> np.ndarray:
    """The frame in the first or second panel, as int [SIDE, SIDE, 3]."""
    left = MARGIN + number * (SIDE + MARGIN)
    return picture[2 * LINE : 2 * LINE + SIDE, left : left + SIDE].astype(int)


@pytest.mark.parametrize(("where", "suffix"), [("both", "mp4"), ("dream", "gif"), ("real", "mp4")])
def test_films(finished: Path, tmp_path: Path, capsys, where: str, suffix: str):
    """Of 12 steps and the first frame of each of two episodes: Catch ends after nine."""
    before, path = contents(finished), tmp_path / "deep" / f"film.{suffix}"
    play(f"run={finished}", "by=agent", "steps=12", "seed=4", f"where={where}", f"video={path}")
    assert capsys.readouterr().out.endswith(f"film: {path}\n")
    film = imageio.imread(path)
    assert len(film) == 14 if where != "dream" else len(film) > 12
    if where != "real":  # there as the environment renders it
        first, _ = make_single(EnvConfig(id="deltadream/Catch-v0"), 4).reset()
        expected = first.repeat(SIDE // 32, 0).repeat(SIDE // 32, 1).astype(int)
        assert np.abs(panel(film[0], 0) - expected).mean() < 3
    if where == "both":
        assert np.abs(panel(film[0], 0) - panel(film[0], 1)).mean() < 1
        assert film.shape[2] == 2 * SIDE + 3 * MARGIN
    assert contents(finished) == before


def test_a_film_is_made_again_alike(finished: Path, tmp_path: Path):
    def film(*arguments: str) -> np.ndarray:
        run, path = f"run={finished}/checkpoints/epoch_000002", tmp_path / "film.mp4"
        play(run, "by=agent", "steps=5", f"video={path}", *arguments)
        return imageio.imread(path)

    one, same, woken = film("where=both"), film("where=both"), film("where=both", "wake_every=1")
    assert np.array_equal(one, same) and not np.array_equal(one, woken)
    assert imageio.immeta(tmp_path / "film.mp4")["fps"] == 5  # Catch's own
    other = film("where=both", "seed=7", "temperature=0", "fps=30")
    assert not np.array_equal(one[0], other[0])
    assert imageio.immeta(tmp_path / "film.mp4")["fps"] == 30


def test_a_window(finished: Path, tmp_path: Path):
    """By the command itself."""
    given = f"run={finished}", "where=both", "steps=10", "fps=240"
    result = play_command(*given, cwd=tmp_path, screen="dummy")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0].split() == ["left", "left"] and lines[3].split() == ["escape", "end"]
    assert len(lines) == 5 and lines[4].startswith("episode 1 ended at step 9 with return ")
    assert contents(tmp_path) == {}


def test_a_window_to_watch(finished: Path, screen, capsys):
    play(f"run={finished}", "where=dream", "by=agent", "steps=3", "fps=240")
    assert "escape" not in capsys.readouterr().out


def test_keys_decide_and_escape_ends(screen):
    """Events as a keyboard posts them: held, tapped, released; in a game that would not end."""
    import pygame

    env = make_single(EnvConfig(id="deltadream/Catch-v0"), 0)
    # After which picture what is pressed (+) or released (-); picture 0 is the first frame.
    events = {1: ["+left"], 3: ["-left", "+d"], 5: ["-d"], 7: ["+right", "-right"], 12: ["+escape"]}
    window, done = PlayerWindow("test"), []
    choose = by_keyboard(window, keys_of(env), Spaces.of(env))

    def noted(frame, begins: bool) -> np.ndarray:
        done.append(int(choose(frame, begins)[0]))
        return np.array([done[-1]])

    for number, picture in enumerate(play_stage(Stage(env), noted, None)):
        for event in events.get(number, []):
            kind = pygame.KEYDOWN if event[0] == "+" else pygame.KEYUP
            pygame.event.post(pygame.event.Event(kind, key=pygame.key.key_code(event[1:])))
        if not window.show(picture, 240):
            break
    window.close()
    left, stay, right = range(3)
    assert done == [stay, left, left, right, right, stay, stay, right, stay, stay, stay]


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ([], "tab             sleep"),
        (["env.id=deltadream/Atari-v0", "env.game=Pong"], "left + space    LEFTFIRE"),
    ],
)
def test_without_a_run(screen, capsys, environment: list[str], line: str):
    play(*environment, "steps=3", "fps=240")
    assert line in capsys.readouterr().out.splitlines()


def test_an_environment_of_someone_else(tmp_path: Path):
    """Without names of actions and speed; its module is named by env.id."""
    shutil.copy(Path(__file__).with_name("odd_envs.py"), tmp_path)
    given = "env.id=odd_envs:Odd-v0", "steps=3", "fps=240"
    result = play_command(*given, cwd=tmp_path, screen="dummy")
    assert result.code == 0, result.err
    first, second, *_ = result.out.splitlines()
    assert first.split() == ["0", "or", "no", "key", "action", "0"]
    assert second.split() == ["1", "action", "1"]


FILM = ["by=agent", "video=x.mp4"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["where=heaven"], "where=heaven .* real, dream, both"),
        (["by=hand"], "by=hand .* keyboard, agent"),
        (["run=null", "where=dream"], "where=dream .* no run was given; give run="),
        (["run=nothing"], "nothing holds no checkpoint"),
        (["video=x.mp4"], "video=x.mp4 .* by=keyboard; give by=agent"),
        ([], "no screen .* video="),
        ([*FILM, "video=x.avi"], "video=x.avi .* .mp4 or .gif"),
        ([*FILM, "video=file/x.mp4"], "video=file/x.mp4 cannot be written"),
        ([*FILM, "steps=0"], "steps=0 .* 1 or more"),
        ([*FILM, "fps=1000"], "fps=1000 .* 1 to 240"),
        ([*FILM, "wake_every=3"], "wake_every=3 .* where=both"),
        ([*FILM, "device=tpu"], "device=tpu"),
        ([*FILM, "env.id=deltadream/Crafter-v1"], "run's agent knows .* deltadream/Crafter-v1 has"),
    ],
)
def test_refused(finished: Path, tmp_path: Path, monkeypatch, given: list[str], named: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    before = contents(finished)
    with pytest.raises(BadInput, match=f"(?s){named}"):
        play(f"run={finished}", *given)
    assert contents(finished) == before and [*contents(tmp_path)] == ["file"]
