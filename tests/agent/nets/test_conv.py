"""Sizes of encoder and decoder, and what is refused."""

from __future__ import annotations

import pytest
import torch

from agent.config.networks import ConvConfig
from agent.nets.conv import (
    Decoder,
    Downsample,
    Encoder,
    MapAttention,
    ResidualBlock,
    Upsample,
    pixels,
    token_grid,
)
from envs.errors import BadInput
from envs.settings import check_values


def small(**changes) -> ConvConfig:
    return ConvConfig(**{"base": 8, "mult": [1, 2, 2], "down": [1, 0, 1], "groups": 4, **changes})


@pytest.mark.parametrize("patch", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [16, 32, 64, 96, 128])
def test_shapes(size: int, patch: int) -> None:
    config = small(patch=patch)
    if size % (4 * patch):
        with pytest.raises(BadInput, match=f"image size {size} is not divisible by {4 * patch}"):
            config.output_size(size)
        return
    side = config.output_size(size)
    assert side == size // (4 * patch)
    z = Encoder(config, channels=5, latent=6)(torch.rand(2, 5, size, size))
    assert z.shape == (2, 6, side, side)
    assert Decoder(config, latent=6, channels=3)(z).shape == (2, 3, size, size)


def test_the_published_encoder_turns_64_into_8() -> None:
    config = ConvConfig()
    assert config.output_size(64) == 8
    assert Encoder(config, channels=7, latent=64)(torch.rand(1, 7, 64, 64)).shape == (1, 64, 8, 8)


@pytest.mark.parametrize(
    "config",
    [
        ConvConfig(),
        small(),
        small(mult=[2, 1, 4], down=[0, 1, 1], patch=4),
        small(mult=[2, 1, 4], blocks=3, attention=2),
    ],
)
def test_the_decoder_mirrors_the_encoder(config: ConvConfig) -> None:
    def stages(network, resizing):
        for layer in network:
            if isinstance(layer, ResidualBlock):
                yield layer.conv1.in_channels, layer.conv2.out_channels
            elif isinstance(layer, MapAttention):
                attending.append(layer.out.out_channels)
            elif isinstance(layer, resizing):
                yield layer.conv.in_channels, layer.conv.out_channels

    attending: list[int] = []
    forth = list(stages(Encoder(config, 3, 6), Downsample))
    back = list(stages(Decoder(config, 6, 3), Upsample))
    assert len(forth) == config.blocks * len(config.mult) + sum(config.down)
    assert len(attending) == 2 * config.blocks * config.attention
    assert back == [(channels_out, channels_in) for channels_in, channels_out in reversed(forth)]


def test_the_last_stages_attend() -> None:
    """Each of their residual blocks is followed by attention, on maps of the stage's own size."""
    config = small(blocks=2, attention=2)
    sides = []
    for network, x in (
        (Encoder(config, 3, 6), torch.rand(1, 3, 32, 32)),
        (Decoder(config, 6, 3), torch.rand(1, 6, 8, 8)),
    ):
        before = None
        for layer in network:
            x = layer(x)
            if isinstance(layer, MapAttention):
                assert isinstance(before, ResidualBlock)
                sides.append(x.shape[-1])
            before = layer
    assert sides == 4 * [16] + 4 * [16]


def test_attention_against_a_loop() -> None:
    torch.manual_seed(0)
    attention, x = MapAttention(8, groups=4).requires_grad_(False), torch.randn(2, 8, 3, 5)
    query, key, value = attention.query_key_value(attention.norm(x)).flatten(2).chunk(3, dim=1)
    for b in range(2):
        for place in range(15):
            weights = (query[b, :, place] @ key[b] / 8**0.5).softmax(dim=0)
            seen = attention.out.weight[:, :, 0, 0] @ (value[b] @ weights) + attention.out.bias
            expected = x.flatten(2)[b, :, place] + seen
            torch.testing.assert_close(attention(x).flatten(2)[b, :, place], expected)


def test_a_patch_is_decoded_from_its_own_place() -> None:
    """A patch decoder's last two layers turn each cell into one square of the image."""
    *_, projection, shuffle = Decoder(small(patch=4), latent=6, channels=3)
    x = torch.zeros(1, projection.in_channels, 2, 2)
    x[..., 1, 0] = 1
    changed = (shuffle(projection(x)) != shuffle(projection(torch.zeros_like(x)))).any(dim=1)[0]
    assert changed[4:, :4].all() and changed.sum() == 16


def test_misfits_are_refused() -> None:
    with pytest.raises(BadInput, match="mult has 3 stages and down has 2"):
        small(down=[1, 1]).output_size(64)
    with pytest.raises(BadInput, match="base=6 .* groups=4"):
        small(base=6).output_size(64)
    for change in ({"blocks": 0}, {"attention": -1}, {"down": [2, 0, 1]}):
        (name,) = change
        with pytest.raises(BadInput, match=f"conv.{name}="):
            check_values(small(**change), "conv.")
    with pytest.raises(BadInput, match="attention=4 was given for 3 stages"):
        small(attention=4).output_size(64)
    with pytest.raises(BadInput, match="image size 2 is not divisible by 4"):
        small().output_size(2)
    with pytest.raises(BadInput, match="image size 0 is not divisible by 4"):
        small().output_size(0)


def test_pixels() -> None:
    seen = pixels(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, torch.tensor([0, 0.2, 1.0]))


def test_token_grid() -> None:
    grids = {k: token_grid(k) for k in (1, 2, 4, 8, 16, 64, 3, 9, 12)}
    assert grids == {
        1: (1, 1),
        2: (1, 2),
        4: (2, 2),
        8: (2, 4),
        16: (4, 4),
        64: (8, 8),
        3: (1, 3),
        9: (3, 3),
        12: (3, 4),
    }
    for k in (0, -4):
        with pytest.raises(BadInput, match=f"^{k} tokens a step"):
            token_grid(k)
