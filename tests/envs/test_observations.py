import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Tuple

from envs.errors import BadInput
from envs.locate import check_can_render, find_image
from envs.observations import Frames
from envs.scores import CRAFTER_ACHIEVEMENTS
from envs.vector import EnvConfig, make_single

IMAGE = Box(0, 255, (32, 32, 3), np.uint8)
VECTOR = Box(-np.inf, np.inf, (4,), np.float32)


class Shows(gymnasium.Env):
    """Its observations, rewards and pictures are what one says."""

    action_space = Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(
        self, space, observation=None, *, reward=0.0, picture=None, render_mode="rgb_array"
    ):
        self.observation_space, self.observation = (
            space,
            space.sample() if observation is None else observation,
        )
        self.reward, self.picture, self.render_mode = reward, picture, render_mode

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation, self.reward, False, False, {}

    def render(self):
        return self.picture


def frames(env: Shows, pixels="auto", image=None, size=None, bounds=None, layout=None) -> Frames:
    path = find_image(env.observation_space, pixels, image, layout, bounds is not None)
    return Frames(env, path, size, bounds, "Shows-v0", layout)


class TestWhereTheImageIs:
    MANY = Dict(left=IMAGE, right=IMAGE, speed=VECTOR, inner=Dict(up=IMAGE))

    @pytest.mark.parametrize(
        ("space", "pixels", "image", "path"),
        [
            (IMAGE, "auto", None, ()), (VECTOR, "auto", None, None), (IMAGE, "render", None, None),
            (Dict(image=IMAGE, text=Discrete(3)), "auto", None, ("image",)), (MANY, "auto", "right", ("right",)),
            (MANY, "observation", "inner.up", ("inner", "up")), (Tuple([VECTOR, IMAGE]), "auto", None, (1,)),
            (Tuple([IMAGE, IMAGE]), "auto", "1", (1,)), (Tuple([VECTOR, Discrete(3)]), "auto", None, None), (Discrete(3), "auto", None, None),
        ],
    )  # fmt: skip
    def test_found(self, space, pixels, image, path):
        assert find_image(space, pixels, image) == path

    @pytest.mark.parametrize(
        ("space", "pixels", "image", "named"),
        [
            (MANY, "auto", None, "left, right, inner.up; give one"), (MANY, "auto", "lefd", "did you mean left"),
            (MANY, "auto", "speed", "its images are left, right, inner.up"), (VECTOR, "observation", None, "holds no image.*env.pixels=render"),
            (IMAGE, "render", "image", "leave one out"), (IMAGE, "rendered", None, "auto, observation, render"),
        ],
    )  # fmt: skip
    def test_refused(self, space, pixels, image, named):
        with pytest.raises(BadInput, match=named):
            find_image(space, pixels, image)

    def test_a_layout_is_of_those_with_as_many_axes(self):
        many = Dict(now=IMAGE, past=Box(0, 255, (32, 32, 3, 4), np.uint8))
        assert find_image(many, "auto", None, "hwcs") == ("past",) and find_image(
            many, "auto", None, "hwc"
        ) == ("now",)
        with pytest.raises(
            BadInput, match="env.layout=hw was given, but .* holds no image that can be read so"
        ):
            find_image(many, "auto", None, "hw")
        with pytest.raises(BadInput, match="env.layout=hwc was given with env.pixels=render"):
            find_image(IMAGE, "render", None, "hwc")


def test_frames_of_the_allowed_kind_pass_untouched():
    env = Shows(IMAGE)
    wrapped = frames(env)
    assert wrapped.step(0)[0] is env.observation
    assert wrapped.observation_space is IMAGE and "as it is" in wrapped.frames_text


def test_one_image_of_a_dict():
    env = Shows(Dict(image=IMAGE, speed=VECTOR))
    wrapped = frames(env)
    np.testing.assert_array_equal(wrapped.step(0)[0], env.observation["image"])
    assert wrapped.observation_space == IMAGE and "speed not seen" in wrapped.frames_text


class TestRendered:
    PICTURE = np.random.default_rng(0).integers(0, 256, (80, 120, 3)).astype(np.uint8)

    def test_bytes(self):
        wrapped = frames(Shows(VECTOR, picture=self.PICTURE))
        assert wrapped.reset()[0].shape == (128, 128, 3) and "rendered" in wrapped.frames_text

    def test_floats(self):
        wrapped = frames(Shows(VECTOR, picture=self.PICTURE / 255), size=64)
        again = frames(Shows(VECTOR, picture=self.PICTURE), size=64)
        np.testing.assert_array_equal(wrapped.reset()[0], again.reset()[0])

    def test_what_fails_is_told(self):
        env = Shows(VECTOR)
        env.render = lambda: {}["camera"]
        with pytest.raises(
            BadInput, match="Shows-v0 cannot be rendered: KeyError: 'camera'; correct it"
        ):
            frames(env)
        env.reset = lambda **kwargs: {}["level"]
        with pytest.raises(
            BadInput, match="Shows-v0 cannot be reset: KeyError: 'level'; correct it"
        ):
            frames(env)

    @pytest.mark.parametrize(
        "picture",
        [None, [PICTURE], "text", np.zeros(3), PICTURE.astype(np.int64)],
        ids=lambda p: type(p).__name__,
    )
    def test_something_else(self, picture):
        with pytest.raises(BadInput, match="Shows-v0 renders .* accepted are arrays"):
            frames(Shows(VECTOR, picture=picture))

    def test_a_size_that_changes(self):
        env = Shows(VECTOR, picture=self.PICTURE)
        wrapped = frames(env)
        wrapped.reset()
        env.picture = env.picture[1:]
        with pytest.raises(
            BadInput,
            match=r"step 1 of its episode 1 it rendered an image with the shape \(79, 120, 3\)",
        ):
            wrapped.step(0)

    def test_an_environment_without_pictures(self):
        env = Shows(VECTOR)
        env.metadata = {"render_modes": ["human"]}
        with pytest.raises(BadInput, match="holds no image.*no render_mode rgb_array \\(human\\)"):
            check_can_render(env, "auto")

    def test_without_being_asked(self):
        env = make_single(EnvConfig(id="CartPole-v1"), 0)
        assert env.observation_space == Box(0, 255, (64, 64, 3), np.uint8)
        frame, _ = env.reset()
        assert frame.std() > 5  # not an empty picture
        env.close()


class TestHeldToItsWord:
    @pytest.mark.parametrize(
        ("observation", "named"),
        [
            (np.zeros((32, 32), np.uint8), "the shape (32, 32)"), (np.zeros((32, 32, 3)), "the type float64"),
            (None, "an observation that is None"), ([1, 2], "the shape (2,)"),
        ],
        ids=["shape", "type", "none", "list"],
    )  # fmt: skip
    def test_observations(self, observation, named):
        env = Shows(IMAGE)
        wrapped = frames(env)
        wrapped.reset()
        wrapped.step(0)
        env.observation = observation
        with pytest.raises(BadInput) as refusal:
            wrapped.step(0)
        sentence = str(refusal.value)
        assert (
            "Shows-v0" in sentence and "step 2 of its episode 1" in sentence and named in sentence
        )

    @pytest.mark.parametrize(
        "reward", [float("nan"), float("inf"), 1e300, None, "one", np.zeros(2)], ids=str
    )
    def test_rewards(self, reward):
        wrapped = frames(Shows(IMAGE, reward=reward))
        wrapped.reset()
        with pytest.raises(BadInput, match="step 1 of its episode 1 it returned the reward"):
            wrapped.step(0)

    @pytest.mark.parametrize("end", ["False", None, np.array([True, False]), 2, [False]], ids=str)
    def test_ends(self, end):
        env = Shows(IMAGE)
        wrapped = frames(env)
        wrapped.reset()
        for name, ends in (("terminated", (end, False)), ("truncated", (False, end))):
            env.step = lambda action, ends=ends: (env.observation, 0.0, *ends, {})
            with pytest.raises(
                BadInput,
                match=f"at step . of its episode 1 it returned {name} as .*, but True or False "
                f"is accepted",
            ):
                wrapped.step(0)
        env.step = lambda action: (env.observation, 0.0, np.bool_(True), np.array(0), {})
        assert wrapped.step(0)[2:4] == (True, False)

    def test_an_info_that_is_none(self):
        env = Shows(IMAGE)
        env.reset = lambda **kwargs: (env.observation, None)
        with pytest.raises(
            BadInput,
            match="in the reset that begins its episode 1 it returned the info None, but a "
            "dictionary is accepted",
        ):
            frames(env).reset()

    @pytest.mark.parametrize("reward", [1, np.float32(0.5), np.array(2), True])
    def test_rewards_that_are_numbers(self, reward):
        wrapped = frames(Shows(IMAGE, reward=reward))
        wrapped.reset()
        assert wrapped.step(0)[1] == float(reward)

    def test_a_missing_key(self):
        wrapped = frames(Shows(Dict(image=IMAGE), {}))
        wrapped.reset()
        with pytest.raises(BadInput, match="an observation without image"):
            wrapped.step(0)

    def test_the_older_api(self):
        env = Shows(IMAGE)
        wrapped = frames(env)
        env.step = lambda action: (env.observation, 0.0, False, {})
        with pytest.raises(BadInput, match="step\\(\\) returned 4 values"):
            wrapped.step(0)
        env.reset = lambda **kwargs: env.observation
        with pytest.raises(BadInput, match="reset\\(\\) returned an array"):
            wrapped.reset()


COUNTS = dict.fromkeys(CRAFTER_ACHIEVEMENTS, 2)


@pytest.mark.parametrize(
    ("info", "used"),
    [
        ({"_own": 1, 7: 1, "failures": 2, "path": np.zeros(4), "of": {"wood": float("nan")}}, {}),
        ({"achievements": COUNTS, "game_continues": np.bool_(True)}, {"achievements": COUNTS, "game_continues": True}),
        ({"achievements": {name: np.int32(2) for name in COUNTS}}, {"achievements": COUNTS}),
        ({"achievements": COUNTS | {"eat_plant": float("nan")}, "game_continues": float("nan")}, {}),
        ({"achievements": COUNTS | {"eat_plant": 2**70}, "game_continues": np.zeros(2)}, {}),
        ({"achievements": COUNTS | {"first level": 1}, "game_continues": None}, {}),
        ({"achievements": list(COUNTS)}, {}),
    ],
)  # fmt: skip
def test_what_is_used_of_an_info(info, used):
    env = Shows(IMAGE)
    env.step = lambda action: (env.observation, 0.0, False, False, info)
    assert frames(env).step(0)[4] == used


class TestAnotherRange:
    def test_what_a_space_declares_too_widely(self):
        """MiniGrid's codes 0 to 10, declared as 0 to 255."""
        codes = np.arange(49 * 3, dtype=np.uint8).reshape(7, 7, 3) % 11
        env = frames(
            Shows(Dict(image=Box(0, 255, (7, 7, 3), np.uint8)), {"image": codes}),
            size=28,
            bounds=[0, 10],
        )
        frame, *_ = env.step(0)
        assert (
            np.array_equal(frame[::4, ::4], np.rint(codes * 25.5))
            and "0 to 10 as 0 to 255" in env.frames_text
        )
        env.env.observation = {"image": codes + np.uint8(1)}
        with pytest.raises(BadInput, match="the value 11"):
            env.step(0)

    def test_what_a_space_does_not_declare(self):
        """It makes an image of floats without bounds, which would be no image."""
        space = Box(-np.inf, np.inf, (32, 32, 3), np.float32)
        assert find_image(space, "auto", None) is None
        env = frames(Shows(space, np.full(space.shape, 0.5, np.float32)), bounds=[-1, 1])
        assert (env.step(0)[0] == 191).all() and "-1 to 1 as 0 to 255" in env.frames_text
        env.env.observation = np.full(space.shape, 2, np.float32)
        with pytest.raises(BadInput, match="the value 2.0, but its space is Box\\(-1, 1"):
            env.step(0)

    @pytest.mark.parametrize("bounds", [[1, 0], [0, 0.5], [0, 300], [0], [], [0, 1, 2]])
    def test_no_range(self, bounds):
        with pytest.raises(BadInput, match=r"env.range=.*give \[least, most\]"):
            frames(Shows(IMAGE), bounds=bounds)
