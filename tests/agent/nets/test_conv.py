"""Sizes of encoder and decoder, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from agent.config.networks import ConvConfig
from agent.nets.conv import Decoder, Encoder, MapAttention, ResidualBlock, pixels
from envs.errors import BadInput
from envs.settings import check_values


def small(**changes) -> ConvConfig:
    return ConvConfig(**{"base": 8, "mult": [1, 2, 2], "down": [1, 0, 1], "groups": 4, **changes})


@pytest.mark.parametrize("patch", [1, 2, 8])
@pytest.mark.parametrize("size", [16, 32, 96])
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


def stages(network: nn.Module) -> list[tuple[int, int]]:
    """Channels in and out of the blocks and resizings between first and last convolution."""
    found = []
    for layer in list(network)[1:-3]:
        if isinstance(layer, ResidualBlock):
            found.append((layer.conv1.in_channels, layer.conv2.out_channels))
        elif not isinstance(layer, MapAttention):
            conv = layer if isinstance(layer, nn.Conv2d) else layer[1]
            found.append((conv.in_channels, conv.out_channels))
    return found


@pytest.mark.parametrize("config", [ConvConfig(), small(mult=[2, 1, 4], blocks=3, attention=2)])
def test_the_decoder_mirrors_the_encoder(config: ConvConfig) -> None:
    forth, back = stages(Encoder(config, 3, 6)), stages(Decoder(config, 6, 3))
    assert len(forth) == config.blocks * len(config.mult) + sum(config.down)
    assert back == [(after, before) for before, after in reversed(forth)]


def test_the_last_stages_attend() -> None:
    """Each of their residual blocks is followed by attention, on maps of the stage's own size."""
    config, sides = small(blocks=2, attention=2), []
    inputs = torch.rand(1, 3, 32, 32), torch.rand(1, 6, 8, 8)
    for network, x in zip((Encoder(config, 3, 6), Decoder(config, 6, 3)), inputs):
        before = None
        for layer in network:
            x = layer(x)
            if isinstance(layer, MapAttention):
                assert isinstance(before, ResidualBlock)
                sides.append(x.shape[-1])
            before = layer
    assert sides == 8 * [16]


def test_attention_against_a_loop() -> None:
    torch.manual_seed(0)
    attention, x = MapAttention(8, groups=4).requires_grad_(False), torch.randn(2, 8, 3, 5)
    ours = attention(x).flatten(2)
    query, key, value = attention.query_key_value(attention.norm(x)).flatten(2).chunk(3, dim=1)
    for b in range(2):
        for place in range(15):
            weights = (query[b, :, place] @ key[b] / 8**0.5).softmax(dim=0)
            seen = attention.out.weight[:, :, 0, 0] @ (value[b] @ weights) + attention.out.bias
            torch.testing.assert_close(ours[b, :, place], x.flatten(2)[b, :, place] + seen)


def test_a_patch_is_decoded_from_its_own_place() -> None:
    """A patch decoder's last two layers turn each cell into one square of the image."""
    *_, projection, shuffle = Decoder(small(patch=4), latent=6, channels=3)
    x = torch.zeros(1, projection.in_channels, 2, 2)
    x[..., 1, 0] = 1
    changed = (shuffle(projection(x)) != shuffle(projection(torch.zeros_like(x)))).any(dim=1)[0]
    assert changed[4:, :4].all() and changed.sum() == 16


def test_misfits_are_refused() -> None:
    for changes, message in (
        ({"down": [1, 1]}, "mult has 3 stages and down has 2"),
        ({"base": 6}, "groups=4 .* base=6"),
        ({"attention": 4}, "attention=4 is more than the 3 stages"),
    ):
        with pytest.raises(BadInput, match=message):
            small(**changes).output_size(64)
    for change in ({"blocks": 0}, {"attention": -1}, {"down": [2, 0, 1]}):
        with pytest.raises(BadInput, match=f"conv.{next(iter(change))}="):
            check_values(small(**change), "conv.")
    for size in (0, 2):
        with pytest.raises(BadInput, match=f"image size {size} is not divisible by 4"):
            small().output_size(size)
    with pytest.raises(
        BadInput, match="256×256 take 5 halvings, and mult has 2 stages; give mult more"
    ):
        ConvConfig(mult=[1, 2], down=None).fitted(256, "conv")


@pytest.mark.parametrize(("size", "patch", "down"), [
    (64, 1, [1, 1, 1, 0]), (96, 1, [1, 1, 1, 1]), (5, 1, [0, 0, 0, 0]), (64, 4, [1, 0, 0, 0]), (64, 16, [0] * 4),
])  # fmt: skip
def test_stages_follow_from_the_size(size, patch, down) -> None:
    assert ConvConfig(mult=[1] * 4, down=None, patch=patch).fitted(size, "conv").down == down


def test_pixels() -> None:
    seen = pixels(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, torch.tensor([0, 0.2, 1.0]))
