import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import BadInput
from envs.images import SIDES, ImageReader, check_layout, is_image


def box(shape, low=0, high=255, dtype=np.uint8) -> Box:
    return Box(low, high, shape, dtype)


@pytest.mark.parametrize(
    "space",
    [
        box((64, 64, 3)), box((64, 64)), box((3, 64, 64)), box((4, 84, 84)), box((210, 160, 3)), box((4, 84, 84, 3)),
        box((64, 64, 3), 0, 1, np.float32), box((48, 48, 1), -1, 1, np.float64), box((10, 10, 4), 0, 1, bool),
        box((7, 7, 3), 0, 10, np.int64), box((7, 7), 0, 10, np.uint32), MultiBinary((8, 8)),
    ],
    ids=str,
)  # fmt: skip
def test_images(space):
    assert is_image(space)
    read = ImageReader(space)
    frame = read(space.sample())
    assert frame.shape == (read.side, read.side, read.channels) and frame.dtype == np.uint8
    assert read.side in SIDES and "\n" not in read.text


@pytest.mark.parametrize(
    "space",
    [
        Discrete(4), box((4,)), box((2, 64)), box((64, 64, 3), -np.inf, np.inf, np.float32), Dict(image=box((64, 64, 3))),
        box((64, 64, 3), np.finfo(np.float32).min, np.finfo(np.float32).max, np.float32), box((2, 3, 4, 5, 6)),
        box((9, 9), np.iinfo(np.int64).min, np.iinfo(np.int64).max, np.int64), MultiBinary(12), box((9, 9), 0, 2**64 - 1, np.uint64),
    ],
    ids=str,
)  # fmt: skip
def test_no_images(space):
    assert not is_image(space)


@pytest.mark.parametrize(
    ("shape", "frame"),
    [
        ((64, 64, 3), (64, 64, 3)), ((3, 64, 64), (64, 64, 3)), ((64, 64), (64, 64, 1)), ((64, 48, 4), (64, 64, 4)),
        ((4, 64, 48), (64, 64, 4)), ((10, 10, 10), (32, 32, 10)), ((8, 8, 111), (32, 32, 111)), ((111, 8, 8), (32, 32, 111)),
        ((4, 84, 84, 3), (96, 96, 12)), ((4, 3, 210, 160), (64, 64, 12)), ((3, 3, 210, 160), (64, 64, 9)), ((4, 4, 84, 84), (96, 96, 16)),
        ((210, 160, 3, 4), (64, 64, 12)), ((10, 10, 16, 4), (32, 32, 64)), ((84, 84, 4, 1), (96, 96, 4)),
        ((20, 20, 40), (32, 32, 40)), ((10, 12, 16), (32, 32, 16)), ((11, 9, 40), (32, 32, 40)), ((5, 4, 26), (32, 32, 26)),
        ((17, 19, 19), (32, 32, 17)), ((1, 84, 84), (96, 96, 1)), ((16, 16, 1), (16, 16, 1)), ((16, 8), (32, 32, 1)),
        ((84, 84, 3), (96, 96, 3)), ((128, 128, 3), (128, 128, 3)), ((129, 129, 3), (64, 64, 3)), ((400, 600, 3), (64, 64, 3)),
    ],
)  # fmt: skip
def test_size_and_channels(shape, frame):
    read = ImageReader(box(shape))
    assert read(np.zeros(shape, np.uint8)).shape == frame == (read.side, read.side, read.channels)


@pytest.mark.parametrize("side", SIDES)
def test_frames_are_not_touched(side):
    read = ImageReader(box((side, side, 3)))
    image = read.space.sample()
    assert read.is_native and read(image) is not None and np.array_equal(read(image), image)
    grey = ImageReader(box((side, side)))
    assert (
        not grey.is_native
        and np.array_equal(grey(image[..., 0]), image[..., :1])
        and grey.text.endswith("as it is")
    )


def test_a_declared_size():
    image = np.zeros((64, 64, 3), np.uint8)
    assert ImageReader(box((64, 64, 3)), 128)(image).shape == (128, 128, 3)
    assert ImageReader(box((40, 40, 3)), 40).is_native
    with pytest.raises(BadInput, match="env.size=2 was given"):
        ImageReader(box((64, 64, 3)), 2)


def test_channels_first_and_a_stack():
    first = box((3, 32, 32)).sample()
    assert np.array_equal(ImageReader(box((3, 32, 32)))(first), first.transpose(1, 2, 0))
    stack = box((4, 32, 32, 3)).sample()
    frame = ImageReader(box((4, 32, 32, 3)))(stack)
    for i in range(4):
        assert np.array_equal(frame[..., 3 * i : 3 * i + 3], stack[i])


def test_a_declared_layout():
    """Whatever the order of the axes, the picture is the same.

    A stack's channels lie beside one another.
    """
    stack = box((4, 16, 32, 3)).sample()  # shwc
    frame = ImageReader(box(stack.shape), layout="shwc")(stack)
    for layout in ("hwcs", "schw", "hwsc", "cshw"):
        other = np.einsum(f"shwc->{layout}", stack)
        read = ImageReader(box(other.shape), layout=layout)
        assert np.array_equal(read(other), frame) and f"read as {layout} (env.layout)" in read.text
    assert (
        not is_image(box(stack.shape), "hwc")
        and is_image(box(stack.shape), "hcws")
        and not is_image(box((2, 64, 64)), "hwc")
    )
    turned = ImageReader(box((64, 64)), layout="wh")
    assert np.array_equal(
        turned(np.eye(64, k=9, dtype=np.uint8))[..., 0], np.eye(64, k=-9, dtype=np.uint8)
    )


@pytest.mark.parametrize("layout", ["", "h", "hc", "hwh", "hwx", "HWC", "nhwc"])
def test_no_layout(layout):
    with pytest.raises(
        BadInput, match=f"env.layout={layout} was given; give a letter for each axis"
    ):
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
    read = ImageReader(Box(np.zeros_like(high), high))
    assert (read(high) == 255).all()
    assert read.fault(np.full((32, 32, 2), 2, np.float32)) == "the value 2.0"


def test_bools():
    image = np.zeros((10, 10, 4), bool)
    image[3, 4, 2] = True
    frame = ImageReader(box((10, 10, 4), 0, 1, bool))(image)
    assert frame.shape == (32, 32, 4)
    rows, columns, channels = np.nonzero(frame)
    # 3 × 3 pixels a cell, and a border of one pixel
    assert (
        sorted(set(rows)) == [10, 11, 12]
        and sorted(set(columns)) == [13, 14, 15]
        and set(channels) == {2}
    )
    assert frame.max() == 255


def test_shrinking_is_antialiased():
    """Lines that nearest neighbour would drop or keep whole become grey."""
    image = np.zeros((256, 256, 3), np.uint8)
    image[::4] = 255
    frame = ImageReader(box((256, 256, 3)))(image)
    assert 40 < frame.min() and frame.max() < 90


def test_four_channels_are_four_pictures():
    """Not three and a transparency, by which the others would be multiplied."""
    image = box((84, 84, 4)).sample()
    frame = ImageReader(box((84, 84, 4)))(image)
    for channel in range(4):
        alone = ImageReader(box((84, 84)))(image[..., channel])
        assert np.array_equal(frame[..., channel], alone[..., 0])


@pytest.mark.parametrize(
    ("space", "image", "fault"),
    [
        (box((32, 32, 3)), np.zeros((32, 32, 3), np.uint8), None),
        (box((32, 32, 3)), np.zeros((32, 32), np.uint8), "the shape (32, 32)"),
        (box((32, 32, 3)), np.zeros((32, 32, 3), np.int64), "the type int64"),
        (box((32, 32), 0, 1, np.float32), np.zeros((32, 32), np.float64), "the type float64"),
        (box((32, 32), 0, 1, np.float32), np.full((32, 32), 1.5, np.float32), "the value 1.5"),
        (box((32, 32), 0, 1, np.float32), np.full((32, 32), np.nan, np.float32), "the value nan"),
        (box((32, 32), 0, 9, np.uint8), np.full((32, 32), 10, np.uint8), "the value 10"),
        (box((32, 32), 0, 1, bool), np.ones((32, 32), bool), None),
        (box((32, 32), 0, 255, np.uint32), np.full((32, 32), 256, np.uint32), "the value 256"),
        (MultiBinary((8, 8)), np.full((8, 8), 2, np.int8), "the value 2"),
    ],
)
def test_what_a_space_forbids(space, image, fault):
    assert ImageReader(space).fault(image) == fault
