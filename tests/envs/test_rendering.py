"""Where drawing is not possible, and where one environment's drawing could end another's."""

import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from envs.errors import BadInput, EnvironmentFailed
from envs.trial import try_out
from envs.vector import EnvConfig, make_single, make_vector

OSMESA = (
    "def made():\n    raise AttributeError(\"'NoneType' object has no attribute 'glGetError'\")\n"
)


class Drawn(gymnasium.Env):
    """Pictures of noise; each environment fails at its step `fails`.

    They turn black once `black_after` were made, or, as MuJoCo's, when an older one is collected.
    """

    observation_space = Box(-1, 1, (3,))
    action_space = Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}
    drawing: weakref.WeakSet = weakref.WeakSet()
    made = 0

    def __init__(self, render_mode=None, black_after=99, fails=99):
        self.render_mode, self.fails, self.is_black = render_mode, fails, False
        if render_mode:
            Drawn.made += 1
            Drawn.drawing.add(self)
            self.is_black = Drawn.made > black_after

    def __del__(self):
        for other in Drawn.drawing:
            other.is_black |= self.render_mode is not None and other is not self

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == self.fails:
            raise IndexError("no more")
        return np.zeros(3, np.float32), 1.0, self.steps == 8, False, {}

    def render(self):
        return self.np_random.integers(0, 256, (32, 32, 3), np.uint8) * np.uint8(not self.is_black)


@pytest.fixture(autouse=True)
def registered():
    gymnasium.register("Drawn-v0", Drawn)
    Drawn.made = 0
    yield
    del gymnasium.registry["Drawn-v0"]


def drawn(**settings) -> EnvConfig:
    of_env = {name: settings.pop(name) for name in ("black_after", "fails") if name in settings}
    return EnvConfig(id="Drawn-v0", kwargs=of_env, **settings)


def test_what_is_restarted_is_not_black_by_what_was_closed():
    """The old one is gone before the new one draws, not when it is collected later."""
    env = make_single(drawn(fails=3, on_error="restart"), 0)
    env.unwrapped.itself = env.unwrapped  # which the garbage collector has to find
    for _ in range(3):
        assert env.reset()[0].any()
        assert all(env.step(0)[0].any() for _ in range(3))


@pytest.mark.parametrize("on_error", ["stop", "restart"])
def test_black_frames_are_not_gone_on_with(on_error: str):
    envs = make_vector(drawn(black_after=1, fails=3, on_error=on_error), [0])
    envs.reset()
    said = {"stop": "no more", "restart": "made anew it shows a single colour.*env.parallel=true"}
    with pytest.raises(EnvironmentFailed, match=said[on_error]):
        for _ in range(30):
            assert envs.step(np.array([0]))[0].any()


def test_black_when_made_again():
    """What is true is said, and not that its seed does not decide it."""
    with pytest.raises(
        BadInput, match="shows a single colour once it was made before.*env.parallel=true"
    ):
        try_out(drawn(black_after=1), 0, 20)
    Drawn.made = 0
    assert "seed" not in str(try_out(drawn(black_after=1, parallel=True), 0, 20).mistakes())
    assert "All 23 frames are equal" in try_out(drawn(black_after=0), 0, 20).mistakes()[0]


@pytest.fixture
def mujoco(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """As far as it is asked for: what cannot draw, called when it is imported, or later."""
    (tmp_path / "mujoco" / "osmesa").mkdir(parents=True)
    (tmp_path / "mujoco" / "osmesa" / "__init__.py").write_text(OSMESA)
    (tmp_path / "mujoco" / "__init__.py").write_text("from mujoco.osmesa import made\nmade()\n")
    (tmp_path / "draws.py").write_text("import mujoco\n")
    (tmp_path / "later.py").write_text(
        "import gymnasium\nfrom envs.games.catch import CatchEnv\n\n"
        "class Later(CatchEnv):\n    metadata = {'render_modes': ['rgb_array']}\n"
        "    def render(self):\n        import mujoco\ngymnasium.register('Later-v0', Later)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    real = {name: sys.modules.pop(name) for name in imported("mujoco")}
    yield tmp_path
    for name in imported("mujoco"):
        del sys.modules[name]
    sys.modules.update(real)


def imported(package: str) -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == package]


@pytest.mark.parametrize(
    "given", [{"id": "draws:X-v0"}, {"id": "later:Later-v0", "pixels": "render"}], ids=str
)
@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("osmesa", r"\(MUJOCO_GL is osmesa; MUJOCO_GL=egl draws without a screen\)"), (None, r"\(MUJOCO_GL is unset; MUJOCO_GL=egl draws"),
        ("egl", r"\(MUJOCO_GL=egl needs the library libegl1"),
    ],
)  # fmt: skip
def test_mujoco_that_cannot_draw(mujoco, monkeypatch, given, value, named):
    monkeypatch.delenv("MUJOCO_GL", raising=False) if value is None else monkeypatch.setenv(
        "MUJOCO_GL", value
    )
    with pytest.raises(BadInput, match=f"glGetError' {named}") as refusal:
        make_single(EnvConfig(**given), 0)
    assert "\n" not in str(refusal.value)


def test_pygame_that_cannot_draw(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "nothing")
    with pytest.raises(
        BadInput, match=r"nothing not available \(SDL_VIDEODRIVER=dummy draws without a screen\)"
    ):
        make_single(EnvConfig(id="CartPole-v1"), 0)


@pytest.mark.slow
def test_mujoco_is_not_imported_by_ours(mujoco):
    """torchrl would, which only tests import."""
    code = "import agent.data.replay, sys; print('mujoco' in sys.modules, 'torchrl' in sys.modules)"
    paths = {"PYTHONPATH": os.pathsep.join([str(mujoco), str(Path(__file__).parents[2])])}
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | paths,
    )
    assert result.stdout == "False False\n", result.stderr


@pytest.mark.slow
def test_several_of_gymnasiums_mujoco_environments(monkeypatch):
    """What one shows depends neither on others, of another size, nor on one that was closed."""
    pytest.importorskip("mujoco")
    if os.environ.get("MUJOCO_GL") != "egl":
        pytest.skip("needs MUJOCO_GL=egl")

    def shown(env, steps: int) -> list[np.ndarray]:
        return [
            env.reset()[0].copy(),
            *(env.step(np.zeros(env.action_space.shape, int))[0].copy() for _ in range(steps)),
        ]

    cheetah, hopper = EnvConfig(id="HalfCheetah-v5"), EnvConfig(id="Hopper-v5")
    alone = shown(make_single(cheetah, 0), 3)
    env, other = make_single(cheetah, 0), make_single(hopper, 0)
    shown(other, 1)
    np.testing.assert_array_equal(shown(env, 3), alone)
    other.close()
    del other
    env.reset(seed=0)
    env.resume_from = (0, 0, [])
    np.testing.assert_array_equal(shown(env, 3), alone)
