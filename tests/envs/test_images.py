import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import BadInput
from envs.images import SIDES, ImageReader, check_layout, is_image

INT64 = np.iinfo(np.int64)
FLOAT32 = np.finfo(np.float32)


def box(shape, low=0, high=255, dtype=np.uint8) -> Box:
    return Box(low, high, shape, dtype)


@pytest.mark.parametrize(
    "space",
    [
        box((4, 84, 84, 3)), box((64, 64, 3), 0, 1, np.float32), box((10, 10, 4), 0, 1, bool),
        box((7, 7, 3), 0, 10, np.int64), box((7, 7), 0, 10, np.uint32), MultiBinary((8, 8)),
    ],
    ids=str,
)  # fmt: skip
def test_images(space):
    assert is_image(space)
    read = ImageReader(space)
    assert read.frames.contains(read(space.sample())) and "\n" not in read.text


@pytest.mark.parametrize(
    "space",
    [
        Discrete(4), box((4,)), box((2, 64)), box((64, 64, 3), -np.inf, np.inf, np.float32),
        Dict(image=box((64, 64, 3))), box((64, 64, 3), FLOAT32.min, FLOAT32.max, np.float32),
        box((2, 3, 4, 5, 6)), box((9, 9), INT64.min, INT64.max, np.int64), MultiBinary(12),
        box((9, 9), 0, 2**64 - 1, np.uint64),
    ],
    ids=str,
)  # fmt: skip
def test_no_images(space):
    assert not is_image(space)


@pytest.mark.parametrize(
    ("shape", "frame"),
    [
        ((3, 64, 64), (64, 64, 3)), ((64, 64), (64, 64, 1)), ((64, 48, 4), (64, 64, 4)),
        ((4, 64, 48), (64, 64, 4)), ((10, 10, 10), (32, 32, 10)), ((111, 8, 8), (32, 32, 111)),
        ((4, 84, 84, 3), (96, 96, 12)), ((4, 3, 210, 160), (64, 64, 12)),
        ((3, 3, 210, 160), (64, 64, 9)), ((4, 4, 84, 84), (96, 96, 16)),
        ((210, 160, 3, 4), (64, 64, 12)), ((10, 10, 16, 4), (32, 32, 64)),
        ((84, 84, 4, 1), (96, 96, 4)), ((10, 12, 16), (32, 32, 16)), ((5, 4, 26), (32, 32, 26)),
        ((17, 19, 19), (32, 32, 17)), ((16, 16, 1), (16, 16, 1)), ((16, 8), (32, 32, 1)),
        ((128, 128, 3), (128, 128, 3)), ((129, 129, 3), (64, 64, 3)), ((400, 600, 3), (64, 64, 3)),
    ],
)  # fmt: skip
def test_size_and_channels(shape, frame):
    read = ImageReader(box(shape))
    assert read(np.zeros(shape, np.uint8)).shape == frame == read.frames.shape


@pytest.mark.parametrize("side", SIDES)
def test_frames_are_not_touched(side):
    read = ImageReader(box((side, side, 3)))
    image = read.space.sample()
    assert read.is_native and read(image) is not None and np.array_equal(read(image), image)
    grey = ImageReader(box((side, side)))
    assert not grey.is_native and np.array_equal(grey(image[..., 0]), image[..., :1])
    assert grey.text.endswith("as it is")


def test_a_declared_size():
    image = np.zeros((64, 64, 3), np.uint8)
    assert ImageReader(box((64, 64, 3)), 128)(image).shape == (128, 128, 3)
    assert ImageReader(box((40, 40, 3)), 40).is_native


def test_a_declared_layout():
    """Whatever the order of the axes, the picture is the same."""
    stack = box((4, 16, 32, 3)).sample()  # shwc
    frame = ImageReader(box(stack.shape), layout="shwc")(stack)
    for layout in ("hwcs", "schw", "hwsc", "cshw"):
        other = np.einsum(f"shwc->{layout}", stack)
        read = ImageReader(box(other.shape), layout=layout)
        assert np.array_equal(read(other), frame) and f"read as {layout} (env.layout)" in read.text
    assert not is_image(box(stack.shape), "hwc") and is_image(box(stack.shape), "hcws")
    assert not is_image(box((2, 64, 64)), "hwc")
    turned = ImageReader(box((64, 64)), layout="wh")(np.eye(64, k=9, dtype=np.uint8))
    assert np.array_equal(turned[..., 0], np.eye(64, k=-9, dtype=np.uint8))


@pytest.mark.parametrize("layout", ["", "hc", "hwh", "hwx", "HWC"])
def test_no_layout(layout):
    with pytest.raises(BadInput, match=f"env.layout={layout} was given; give a letter"):
        check_layout(layout)


@given(low=st.integers(-50, 50), span=st.integers(1, 400))
def test_the_declared_range_becomes_bytes(low, span):
    for dtype in (np.float32, np.int64):
        read = ImageReader(box((32, 32), low, low + span, dtype))
        image = np.full((32, 32), low, dtype)
        image[0, :3] = low + span, low + span // 2, low
        most, half, least = read(image)[0, :3, 0].tolist()
        assert (most, least) == (255, 0) and abs(half - 255 * (span // 2) / span) <= 0.5


def test_each_channel_has_its_own_range():
    high = np.ones((32, 32, 2), np.float32) * np.float32([1, 10])
    assert (ImageReader(Box(np.zeros_like(high), high))(high) == 255).all()


def test_bools_are_enlarged_by_a_whole_factor():
    """3 × 3 pixels a cell, and a border of one pixel."""
    image = np.zeros((10, 10, 4), bool)
    image[3, 4, 2] = True
    expected = np.zeros((32, 32, 4), np.uint8)
    expected[10:13, 13:16, 2] = 255
    np.testing.assert_array_equal(ImageReader(box((10, 10, 4), 0, 1, bool))(image), expected)


def test_shrinking_is_antialiased():
    """Lines that nearest neighbour would drop or keep whole become grey.

    Four channels are four pictures, and not three and a transparency.
    """
    image = np.zeros((256, 256, 4), np.uint8)
    image[::4, :, :3] = 255
    frame = ImageReader(box((256, 256, 4)))(image)
    assert 40 < frame[..., :3].min() and frame[..., :3].max() < 90 and not frame[..., 3].any()
