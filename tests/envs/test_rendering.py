"""Where drawing is not possible, and where one environment's drawing could end another's."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from envs.config import EnvConfig
from envs.errors import BadInput, EnvironmentFailed
from envs.make import make_single
from envs.trial import try_out
from envs.vector import make_vector

OSMESA = (
    "def made():\n    raise AttributeError(\"'NoneType' object has no attribute 'glGetError'\")\n"
)


class Drawn(gymnasium.Env):
    """Pictures of noise, which are black once `black_after` of them were made."""

    observation_space = Box(-1, 1, (3,))
    action_space = Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}
    made = 0

    def __init__(self, render_mode=None, black_after=99, fails_at=0):
        self.render_mode, self.fails_at, self.steps = render_mode, fails_at, 0
        Drawn.made += render_mode is not None
        self.is_black = Drawn.made > black_after

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == self.fails_at:
            raise RuntimeError("no more")
        return np.zeros(3, np.float32), 1.0, False, False, {}

    def render(self):
        return self.np_random.integers(0, 256, (32, 32, 3), np.uint8) * np.uint8(not self.is_black)


def drawn(black_after: int, fails_at: int = 0, **settings) -> EnvConfig:
    Drawn.made = 0
    kwargs = {"black_after": black_after, "fails_at": fails_at}
    return EnvConfig(id="Drawn-v0", kwargs=kwargs, **settings)


@pytest.fixture
def known(monkeypatch) -> None:
    spec = gymnasium.envs.registration.EnvSpec("Drawn-v0", Drawn)
    monkeypatch.setitem(gymnasium.registry, "Drawn-v0", spec)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("black_after", [1, 9])
def test_black_after_a_restart(black_after: int):
    """It is not gone on with, and pictures are."""
    envs = make_vector(drawn(black_after, fails_at=3, on_error="restart", max_restarts=5), [0])
    envs.reset()
    said = "max_restarts=5" if black_after == 9 else "made anew it shows a single colour"
    with pytest.raises(EnvironmentFailed, match=said):
        for _ in range(30):
            assert envs.step(np.array([[0]]))[0].any()


@pytest.mark.usefixtures("known")
def test_black_when_made_again():
    """What is true is said, and not that its seed does not decide it."""
    with pytest.raises(BadInput, match="single colour once it was made before.*parallel=true"):
        try_out(drawn(1), 0, 20)
    assert "seed" not in str(try_out(drawn(1, parallel=True), 0, 20).mistakes())
    assert "frames are equal" in try_out(drawn(0), 0, 20).mistakes()[0]


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
    ("given", "value", "named"),
    [
        ({"id": "draws:X-v0"}, "", r"\(MUJOCO_GL=egl draws without a screen\)"),
        ({"id": "later:Later-v0", "pixels": "render"}, "egl", r"\(MUJOCO_GL=egl needs .* libegl1"),
    ],
)
def test_mujoco_that_cannot_draw(mujoco, monkeypatch, given, value, named):
    monkeypatch.setenv("MUJOCO_GL", value)
    with pytest.raises(BadInput, match=f"glGetError' {named}") as refusal:
        make_single(EnvConfig(**given), 0)
    assert "\n" not in str(refusal.value)


def test_pygame_that_cannot_draw(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "nothing")
    with pytest.raises(BadInput, match=r"\(SDL_VIDEODRIVER=dummy draws without a screen\)"):
        make_single(EnvConfig(id="CartPole-v1"), 0)


@pytest.mark.slow
def test_several_of_gymnasiums_mujoco_environments(monkeypatch):
    """What one shows depends neither on others, of another size, nor on one that was closed."""
    pytest.importorskip("mujoco")
    if os.environ.get("MUJOCO_GL") != "egl":
        pytest.skip("needs MUJOCO_GL=egl")

    def shown(env, steps: int) -> list[np.ndarray]:
        actions = [np.zeros(env.action_space.shape, int)] * steps
        return [env.reset()[0].copy(), *(env.step(action)[0].copy() for action in actions)]

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
