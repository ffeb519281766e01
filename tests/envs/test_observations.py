import signal
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Tuple

from envs.errors import BadInput
from envs.locate import check_can_render, find_image
from envs.make import EnvConfig, make_single
from envs.observations import Frames
from envs.scores import CRAFTER_ACHIEVEMENTS

IMAGE = Box(0, 255, (32, 32, 3), np.uint8)
GREY = Box(0, 1, (32, 32), np.float32)
VECTOR = Box(-np.inf, np.inf, (4,), np.float32)
MANY = Dict(left=IMAGE, right=IMAGE, speed=VECTOR, inner=Dict(up=IMAGE))
PICTURE = np.random.default_rng(0).integers(0, 256, (80, 120, 3)).astype(np.uint8)
COUNTS = dict.fromkeys(CRAFTER_ACHIEVEMENTS, 2)


class Shows(gymnasium.Env):
    """Its observations, rewards and pictures are those that are given."""

    action_space = Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, space, observation=None, *, reward=0.0, picture=None):
        self.observation_space, self.reward, self.picture = space, reward, picture
        self.observation = space.sample() if observation is None else observation
        self.render_mode = "rgb_array"

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation, self.reward, False, False, {}

    def render(self):
        return self.picture


def frames(env: Shows, size=None, bounds=None) -> Frames:
    path = find_image(env.observation_space, "auto", None, None, bounds is not None)
    return Frames(env, path, EnvConfig("Shows-v0", size=size, range=bounds))


@pytest.mark.parametrize(
    ("space", "pixels", "image", "path"),
    [
        (IMAGE, "auto", None, ()), (VECTOR, "auto", None, None), (IMAGE, "render", None, None),
        (Dict(image=IMAGE, text=Discrete(3)), "auto", None, ("image",)),
        (MANY, "auto", "right", ("right",)), (MANY, "observation", "inner.up", ("inner", "up")),
        (Tuple([VECTOR, IMAGE]), "auto", None, (1,)), (Tuple([IMAGE, IMAGE]), "auto", "1", (1,)),
        (Tuple([VECTOR, Discrete(3)]), "auto", None, None), (Discrete(3), "auto", None, None),
    ],
)  # fmt: skip
def test_where_the_image_is(space, pixels, image, path):
    assert find_image(space, pixels, image) == path


@pytest.mark.parametrize(
    ("space", "pixels", "image", "named"),
    [
        (MANY, "auto", None, "left, right, inner.up; give one"),
        (MANY, "auto", "lefd", "its images are left, right, inner.up"),
        (MANY, "auto", "speed", "its images are left, right, inner.up"),
        (VECTOR, "observation", None, "holds no such image.*env.pixels=render"),
        (IMAGE, "render", "image", "env.pixels=render does not show; leave them out"),
        (IMAGE, "rendered", None, "auto, observation, render"),
    ],
)
def test_no_image_there(space, pixels, image, named):
    with pytest.raises(BadInput, match=named):
        find_image(space, pixels, image)


def test_a_layout_is_of_those_with_as_many_axes():
    many = Dict(now=IMAGE, past=Box(0, 255, (32, 32, 3, 4), np.uint8))
    assert find_image(many, "auto", None, "hwcs") == ("past",)
    assert find_image(many, "auto", None, "hwc") == ("now",)
    with pytest.raises(BadInput, match="env.layout=hw were given, but .* holds no such image"):
        find_image(many, "auto", None, "hw")
    with pytest.raises(
        BadInput,
        match="env.layout=hwc are of an observation, which env.pixels=render does not show",
    ):
        find_image(IMAGE, "render", None, "hwc")


def test_frames_of_the_allowed_kind_pass_untouched():
    env = Shows(IMAGE)
    wrapped = frames(env)
    assert wrapped.step(0)[0] is env.observation
    assert wrapped.observation_space == IMAGE and "as it is" in wrapped.frames_text


def test_a_renderer_that_fails_is_named():
    env = Shows(VECTOR)
    env.render = lambda: {}["camera"]
    with pytest.raises(BadInput, match="Shows-v0 cannot be rendered: KeyError: 'camera'; correct"):
        frames(env)


@pytest.mark.parametrize("picture", [None, "text", np.zeros(3), PICTURE.astype(np.int64)], ids=type)
def test_no_picture(picture):
    with pytest.raises(BadInput, match="Shows-v0 renders .* accepted are arrays"):
        frames(Shows(VECTOR, picture=picture))


def test_a_picture_of_another_size():
    env = Shows(VECTOR, picture=PICTURE)
    wrapped = frames(env)
    assert wrapped.reset()[0].shape == (128, 128, 3) and "rendered" in wrapped.frames_text
    env.picture = PICTURE[1:]
    with pytest.raises(BadInput, match=r"it rendered an image with the shape \(79, 120, 3\)"):
        wrapped.step(0)


def test_an_environment_without_pictures():
    env = Shows(VECTOR)
    env.metadata = {"render_modes": ["human"]}
    with pytest.raises(BadInput, match="holds no image.*no render_mode rgb_array \\(human\\)"):
        check_can_render(env, "auto")


def test_cartpole_is_rendered_without_being_asked():
    env = make_single(EnvConfig(id="CartPole-v1"), 0)
    assert env.observation_space == Box(0, 255, (64, 64, 3), np.uint8)
    assert env.reset()[0].std() > 5  # not an empty picture
    env.close()


@pytest.mark.parametrize(
    ("space", "observation", "named"),
    [
        (IMAGE, np.zeros((32, 32), np.uint8), "the shape (32, 32)"),
        (IMAGE, np.zeros((32, 32, 3)), "float64"),
        (IMAGE, None, "an observation that is None"),
        (GREY, np.full((32, 32), 1.5, np.float32), "from 1.5 to 1.5, but its space is Box(0, 1"),
        (GREY, np.full((32, 32), np.nan, np.float32), "from nan to nan"),
        (Box(0, 255, (32, 32), np.uint32), np.full((32, 32), 256, np.uint32), "to 256"),
        (MultiBinary((8, 8)), np.full((8, 8), 2, np.int8), "from 2 to 2"),
    ],
)
def test_an_observation_that_is_not_of_its_space(space, observation, named):
    env = Shows(space)
    wrapped = frames(env)
    wrapped.reset()
    wrapped.step(0)
    env.observation = observation
    with pytest.raises(BadInput) as refusal:
        wrapped.step(0)
    assert "Shows-v0" in str(refusal.value) and named in str(refusal.value)
    assert "at step 2 of its episode 1 it returned an observation" in str(refusal.value)


@pytest.mark.parametrize("reward", [float("nan"), 1e300, None, np.zeros(2)], ids=str)
def test_a_reward_that_is_no_number(reward):
    wrapped = frames(Shows(IMAGE, reward=reward))
    wrapped.reset()
    with pytest.raises(BadInput, match="step 1 of its episode 1 it returned the reward"):
        wrapped.step(0)


def test_the_older_api():
    env = Shows(IMAGE)
    wrapped = frames(env)
    env.step = lambda action: (env.observation, 0.0, False, {})
    with pytest.raises(BadInput, match=r"step\(\) returned 4 values"):
        wrapped.step(0)
    env.reset = lambda **kwargs: env.observation
    with pytest.raises(BadInput, match=r"reset\(\) returned one value"):
        wrapped.reset()


def test_another_action_space():
    env = Shows(IMAGE)
    wrapped = frames(env)
    env.action_space = Discrete(3)
    with pytest.raises(BadInput, match=r"its action space is Discrete\(3\), but it was Discrete"):
        wrapped.reset()


@pytest.mark.parametrize(
    ("info", "used"),
    [
        ({"_own": 1, 7: 1, "failures": 2, "path": np.zeros(4), "of": {"wood": float("nan")}}, {}),
        ({"achievements": COUNTS, "game_continues": True, "level": 3},
         {"achievements": COUNTS, "game_continues": True}),
        ({"achievements": {"first level": 1}, "game_continues": None}, {}),
        ({"achievements": list(COUNTS), "game_continues": np.zeros(2)}, {}),
        ({"achievements": COUNTS | {"collect_coal": float("nan")}}, {}),
    ],
)  # fmt: skip
def test_what_is_used_of_an_info(info, used):
    env = Shows(IMAGE)
    env.step = lambda action: (env.observation, 0.0, False, False, info)
    assert frames(env).step(0)[4] == used


def test_an_info_is_a_dictionary():
    env = Shows(IMAGE)
    env.step = lambda action: (env.observation, 0.0, False, False, None)
    with pytest.raises(BadInput, match=r"step\(\) returned the info None"):
        frames(env).step(0)


def test_a_range_that_a_space_declares_too_widely():
    """MiniGrid's codes 0 to 10, declared as 0 to 255."""
    codes = np.arange(49 * 3, dtype=np.uint8).reshape(7, 7, 3) % 11
    space = Dict(image=Box(0, 255, (7, 7, 3), np.uint8), speed=VECTOR)
    shows = Shows(space, {"image": codes})
    env = frames(shows, size=28, bounds=[0, 10])
    np.testing.assert_array_equal(env.step(0)[0][::4, ::4], np.rint(codes * 25.5))
    assert "(speed not seen)" in env.frames_text and "0 to 10 as 0 to 255" in env.frames_text
    shows.observation = {"image": codes + np.uint8(1)}
    with pytest.raises(BadInput, match="from 1 to 11, but its space is Box"):
        env.step(0)


def test_a_range_that_a_space_does_not_declare():
    """It makes an image of floats without bounds, which would be no image."""
    space = Box(-np.inf, np.inf, (32, 32, 3), np.float32)
    assert find_image(space, "auto", None) is None
    env = frames(Shows(space, np.full(space.shape, 0.5, np.float32)), bounds=[-1, 1])
    assert (env.step(0)[0] == 191).all() and "-1 to 1 as 0 to 255" in env.frames_text


@pytest.mark.parametrize("bounds", [[1, 0], [0, 0.5], [0, 300], [0]])
def test_no_range(bounds):
    with pytest.raises(BadInput, match=r"env.range=.*give \[least, most\]"):
        frames(Shows(IMAGE), bounds=bounds)


def test_a_renderer_does_not_swallow_signals():
    """As pygame would, which CartPole is drawn by."""
    code = (
        "import os, signal; from envs.make import EnvConfig, make_single\n"
        "make_single(EnvConfig(id='CartPole-v1'), 0).reset()\n"
        "os.kill(os.getpid(), signal.SIGTERM)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGTERM
