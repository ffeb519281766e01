"""The play command as a process: films, a keyboard on a screen that nobody sees, refusals."""

import os
import shutil
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
from PIL import Image

from agent.dream.play import by_keyboard, show
from agent.dream.player import Stage
from agent.dream.player import play as play_stage
from agent.dream.window import Window
from agent.media.pictures import CAPTION, MARGIN
from envs.config import EnvConfig
from envs.keys import action_names, key_map
from envs.make import make_single
from envs.spaces import Spaces
from tests.scripts.commands import contents, play, train
from tests.scripts.test_bad_input import check_refused
from tests.tiny import TINY

SIDE = 384  # of a frame of Catch when it is drawn
TOP = MARGIN // 2 + 2 * CAPTION


def frames_of(path: Path) -> np.ndarray:
    """[T, h, w, 3] uint8; a GIF's by Pillow, which knows how often each is shown."""
    if path.suffix == ".mp4":
        with imageio.get_reader(path) as reader:
            return np.stack([np.asarray(frame) for frame in reader])
    with Image.open(path) as film:
        return np.stack(
            [np.asarray((film.seek(t), film.convert("RGB"))[1]) for t in range(film.n_frames)]
        )


def panel(picture: np.ndarray, number: int) -> np.ndarray:
    """The frame in the first or second panel, as int [SIDE, SIDE, 3]."""
    left = MARGIN + number * (SIDE + MARGIN)
    return picture[TOP : TOP + SIDE, left : left + SIDE].astype(int)


def first_frame(seed: int) -> np.ndarray:
    observation, _ = make_single(EnvConfig(id="deltadream/Catch-v0"), seed).reset()
    return observation.repeat(SIDE // 32, 0).repeat(SIDE // 32, 1).astype(int)


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_films(finished: Path, tmp_path: Path, suffix: str):
    """Of 20 steps and the first frame of each of three episodes: Catch ends after nine."""
    before = contents(finished)
    for where in ("both", "dream", "real"):
        fixed = (f"run={finished}", "by=agent", "steps=20", "seed=4")
        result = play(*fixed, f"where={where}", f"video=deep/{where}.{suffix}", cwd=tmp_path)
        assert result.code == 0, result.err
        assert result.out == f"film: deep/{where}.{suffix}\n"
        film = frames_of(tmp_path / "deep" / f"{where}.{suffix}")
        assert len(film) == 23 if where != "dream" else len(film) > 20, where
        if where == "real":  # as the environment renders it, and twice as large
            continue
        assert np.abs(panel(film[0], 0) - first_frame(4)).mean() < 3
        if where == "both":
            assert np.abs(panel(film[0], 0) - panel(film[0], 1)).mean() < 1
            assert film.shape[2] == 2 * SIDE + 3 * MARGIN
    assert contents(finished) == before


def test_a_film_is_made_again_alike(finished: Path, tmp_path: Path):
    def film(name: str, *arguments: str) -> np.ndarray:
        fixed = (
            f"run={finished}/checkpoints/epoch_000002",
            "by=agent",
            "steps=9",
            f"video={name}.mp4",
        )
        result = play(*fixed, *arguments, cwd=tmp_path)
        assert result.code == 0, result.err
        return frames_of(tmp_path / f"{name}.mp4")

    one, same = film("one", "where=both"), film("same", "where=both")
    woken = film("woken", "where=both", "wake_every=1")
    assert np.array_equal(one, same) and not np.array_equal(one, woken)
    other, greedy = film("other", "where=both", "seed=7"), film("greedy", "temperature=0", "fps=30")
    assert not np.array_equal(one[0], other[0])
    assert (
        len(greedy) == 10
        and imageio.get_reader(tmp_path / "greedy.mp4").get_meta_data()["fps"] == 30
    )
    assert imageio.get_reader(tmp_path / "one.mp4").get_meta_data()["fps"] == 5  # Catch's own


@pytest.mark.parametrize(("where", "by"), [("both", "keyboard"), ("dream", "agent")])
def test_a_window(finished: Path, tmp_path: Path, where: str, by: str):
    result = play(
        f"run={finished}",
        f"where={where}",
        f"by={by}",
        "steps=10",
        "fps=240",
        cwd=tmp_path,
        screen="dummy",
    )
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    keys = ["left    left", "no key  stay", "right   right", "escape  end"]
    assert lines[: len(keys)] == keys if by == "keyboard" else keys[0] not in lines
    if where != "dream":
        over = [line for line in lines if "is over" in line]
        assert len(over) == 1 and over[0].startswith(
            "episode 1 is over at step 9: return in reality "
        )
    assert contents(tmp_path) == {}


def test_keys_decide_and_escape_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """Events as a keyboard posts them: held, tapped, released; in a game that would not end."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    import pygame

    env = make_single(EnvConfig(id="deltadream/Catch-v0"), 0)
    names = action_names(env)
    # After which moment what is pressed (+) or released (-): moment 0 is the first frame.
    events = {1: ["+left"], 3: ["-left", "+d"], 5: ["-d"], 7: ["+right", "-right"], 12: ["+escape"]}
    shown = []

    def typing(moments):
        for number, moment in enumerate(moments):
            shown.append(moment)
            for event in events.get(number, []):
                kind = pygame.KEYDOWN if event[0] == "+" else pygame.KEYUP
                pygame.event.post(pygame.event.Event(kind, key=pygame.key.key_code(event[1:])))
            yield moment

    with Window("test") as window:
        choose = by_keyboard(window, key_map(names), Spaces.of(env))
        show(
            window, typing(play_stage(Stage(env), choose, None)), env.get_wrapper_attr("label"), 240
        )
    done = [None if moment.action is None else names[moment.action[0]] for moment in shown]
    expected = [
        None,
        "stay",
        "left",
        "left",
        "right",
        "right",
        "stay",
        "stay",
        "right",
        "stay",
        None,
        "stay",
        "stay",
    ]
    assert done == expected
    assert capsys.readouterr().out.startswith("episode 1 is over at step 9: return in reality ")


@pytest.mark.parametrize(
    ("environment", "line"),
    [((), "tab     sleep"), (("env.id=deltadream/Atari-v0", "env.game=Pong"), "left + space   LEFTFIRE"),
     (("env.id=deltadream/Catch-v0",), "left    left")],
)  # fmt: skip
def test_without_a_run(tmp_path: Path, environment: tuple[str, ...], line: str):
    result = play(*environment, "steps=3", "fps=240", cwd=tmp_path, screen="dummy")
    assert result.code == 0, result.err
    assert line in result.out.splitlines()


def test_an_environment_of_someone_else(tmp_path: Path):
    """Without names of actions and speed; its module is named by env.id."""
    shutil.copy(Path(__file__).with_name("odd_envs.py"), tmp_path)
    run = train(*TINY, "env.id=odd_envs:Odd-v0", "epochs=1", "run=run", cwd=tmp_path)
    assert run.code == 0, run.err
    check_refused(
        play("run=run", "by=agent", "video=x.gif", cwd=tmp_path), "add env.id=odd_envs:Odd-v0"
    )
    result = play(
        "run=run",
        "env.id=odd_envs:Odd-v0",
        "where=both",
        "by=agent",
        "steps=3",
        "video=x.gif",
        cwd=tmp_path,
    )
    assert result.code == 0, result.err
    assert len(frames_of(tmp_path / "x.gif")) == 4
    result = play("env.id=odd_envs:Odd-v0", "steps=3", "fps=240", cwd=tmp_path, screen="dummy")
    assert result.code == 0, result.err
    assert result.out.splitlines()[:2] == ["0 or no key  action 0", "1            action 1"]


FILM = ("run=run", "by=agent", "video=x.mp4")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["run=run", "where=heaven"], ["where=heaven", "real, dream, both"]),
        (["run=run", "by=hand"], ["by=hand", "keyboard, agent"]),
        (["where=dream"], ["where=dream", "no run was given", "run=<"]),
        (["by=agent", "video=x.mp4"], ["by=agent", "no run was given"]),
        (["run=nothing"], ["nothing holds no checkpoint"]),
        (["run=run", "video=x.mp4"], ["video=x.mp4", "by=keyboard", "by=agent"]),
        (["run=run"], ["no screen", "video="]),
        ([*FILM, "video=x.avi"], ["video=x.avi", ".mp4 or .gif"]),
        ([*FILM, "video=odd_envs.py/x.mp4"], ["video=odd_envs.py/x.mp4", "cannot be written"]),
        ([*FILM, "video=x.gif", "steps=2001"], ["steps=2001", "2000", ".mp4"]),
        ([*FILM, "steps=0"], ["steps=0", "1 or more"]),
        ([*FILM, "fps=1000"], ["fps=1000", "1 to 240"]),
        ([*FILM, "wake_every=3"], ["wake_every=3", "where=both"]),
        ([*FILM, "device=tpu"], ["device=tpu"]),
        (
            [*FILM, "env.id=deltadream/Crafter-v1"],
            ["run's agent knows", "deltadream/Crafter-v1 has"],
        ),
    ],
    ids=lambda x: " ".join(x),
)
def test_refused(finished: Path, tmp_path: Path, given: list[str], named: list[str]):
    os.symlink(finished, tmp_path / "run")
    shutil.copy(Path(__file__).with_name("odd_envs.py"), tmp_path)
    (tmp_path / "__pycache__").mkdir()
    before = contents(finished), [path for path in contents(tmp_path) if "__pycache__" not in path]
    screen = "dummy" if given[0].startswith("env") else ""
    check_refused(play(*given, cwd=tmp_path, screen=screen), *named)
    assert (
        contents(finished),
        [path for path in contents(tmp_path) if "__pycache__" not in path],
    ) == before
