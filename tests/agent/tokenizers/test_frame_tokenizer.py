"""The per-frame VQ-VAE: its sizes, the terms and masks of its loss, and that it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from agent.config import KINDS, OptimizerConfig
from agent.config.networks import ConvConfig
from agent.config.quantizers import FsqConfig, VqConfig
from agent.config.tokenizers import FrameTokenizerConfig
from agent.segment import Segment
from agent.tokenizers.frame import FrameTokenizer
from agent.training.learner import Learner
from envs.errors import BadInput
from envs.spaces import Spaces
from tests.agent.conftest import SPACES, random_segment


def small_conv(**changes) -> ConvConfig:
    """16×16 -> 2×2."""
    return ConvConfig(
        **{"base": 8, "mult": [1], "down": [1], "patch": 4, "groups": 4, "attention": 1, **changes}
    )


def small_config(**changes) -> FrameTokenizerConfig:
    return replace(
        FrameTokenizerConfig(conv=small_conv(), quantizer=VqConfig(size=16, dim=8, commitment=1.0)),
        **changes,
    )


def make(spaces: Spaces = SPACES, **changes) -> FrameTokenizer:
    """In evaluation mode, with codes that lie among the encoder's vectors."""
    torch.manual_seed(0)
    tokenizer = FrameTokenizer(small_config(**changes), spaces).eval()
    torch.nn.init.normal_(tokenizer.quantizer.codebook, std=0.3)
    return tokenizer


def padded_segment() -> Segment:
    """Row 0 starts after two padded steps, row 1 ends before two."""
    segment = random_segment(3, 6)
    segment.mask[:] = True
    segment.mask[0, :2] = False
    segment.mask[1, 3:] = False
    return segment


def test_the_published_sizes() -> None:
    """64×64×3 -> 4×4 = 16 tokens of 512 codes (IRIS, appendix A).

    Stages of 64 channels, attention at 16×16 and 8×8.
    """
    with torch.device("meta"):
        tokenizer = FrameTokenizer(FrameTokenizerConfig(), Spaces(3, 64, (4,)))
        frames = torch.empty(2, 3, 64, 64, dtype=torch.uint8)
    assert (tokenizer.tokens, tokenizer.map_size) == (16, 4)
    tokens = tokenizer.encode(frames)
    assert tokens.shape == (2, 16) and tokens.dtype == torch.int64
    assert tokenizer.embed(tokens).shape == (2, 16, 512)
    assert (
        tokenizer.decode(tokens).shape == (2, 3, 64, 64)
        and tokenizer.decode(tokens).dtype == torch.uint8
    )

    conv, norm, c, codes, dim = lambda i, o, k=3: i * o * k * k + o, 2 * 64, 64, 512, 512
    block, attention = 2 * (norm + conv(c, c)), norm + conv(c, 3 * c, 1) + conv(c, c, 1)
    stages = 8 * block + 4 * attention + norm
    encoder = conv(3, c) + stages + 4 * conv(c, c, 2) + conv(c, dim)
    decoder = conv(dim, c) + stages + 4 * conv(c, c) + conv(c, 3)
    assert (
        sum(p.numel() for p in tokenizer.parameters())
        == encoder + decoder + codes * dim
        == 2_389_763
    )


@pytest.mark.parametrize(("channels", "size"), [(1, 16), (3, 24), (4, 40)])
def test_frames_of_any_size(channels: int, size: int) -> None:
    tokenizer = make(Spaces(channels, size, (2,)))
    frames = torch.randint(256, (3, channels, size, size), dtype=torch.uint8)
    tokens = tokenizer.encode(frames)
    assert tokens.shape == (3, tokenizer.tokens) == (3, (size // 8) ** 2)
    assert tokenizer.decode(tokens).shape == frames.shape
    with pytest.raises(BadInput, match="image size 20 is not divisible by 8"):
        make(Spaces(channels, 20, (2,)))


def test_a_token_is_the_nearest_code_of_its_place() -> None:
    tokenizer = make()
    frames = random_segment(3, 2).frames[:, 0]
    maps = tokenizer.encoder(frames / 255)
    tokens = tokenizer.encode(frames)
    for n in range(3):
        for k in range(4):
            distances = (tokenizer.quantizer.codebook - maps[n, :, k // 2, k % 2]).norm(dim=-1)
            assert tokens[n, k] == distances.argmin()
    codes = tokenizer.quantizer.codebook[tokens]
    assert torch.equal(tokenizer.embed(tokens), codes)
    assert torch.equal(tokenizer.embed(tokens.unsqueeze(1)), codes.unsqueeze(1))
    plain = tokenizer.decoder(codes.view(3, 2, 2, 8).permute(0, 3, 1, 2)).clamp(0, 1)
    assert (tokenizer.decode(tokens) / 255 - plain).abs().max() <= 0.5 / 255 + 1e-6


QUANTIZERS = KINDS["tokenizer.quantizer"]


@pytest.mark.parametrize("kind", ["cosine_ema", "vq_ema", "fsq"])
def test_codes_of_other_kinds(kind: str) -> None:
    config = small_config(
        quantizer=FsqConfig() if kind == "fsq" else QUANTIZERS[kind](size=16, dim=8)
    )
    tokenizer, segment = FrameTokenizer(config, SPACES), random_segment(2, 3)
    assert tokenizer.loss(segment)["loss"].isfinite()
    tokens = tokenizer.eval().encode(segment.frames[:, 0])
    assert tokens.shape == (2, 4) and tokens.max() < config.quantizer.num_codes
    assert tokenizer.embed(tokens).shape == (2, 4, config.quantizer.vector_dim)
    assert tokenizer.decode(tokens).shape == (2, 3, 16, 16)


def test_decoded_frames_do_not_wrap_around() -> None:
    tokenizer = make()
    for bias, grey in ((9.0, 255), (-9.0, 0)):
        torch.nn.init.constant_(tokenizer.decoder[-2].bias, bias)
        assert (tokenizer.decode(torch.zeros(2, 4, dtype=torch.int64)) == grey).all()


def unlike(reconstruction: Tensor, frames: Tensor) -> Tensor:
    return 0.5 * (reconstruction.mean(dim=(1, 2, 3)) - frames.mean(dim=(1, 2, 3))).square()


@pytest.mark.parametrize("perceptual", [None, unlike])
def test_the_loss_against_a_loop_over_real_frames(perceptual) -> None:
    tokenizer, segment = make(l1=0.3, l2=2.0), padded_segment()
    tokenizer.config.quantizer.commitment = 0.25
    errors, squares, distances, looks = [], [], [], []
    for b in range(3):
        for t in range(6):
            frame = segment.frames[b, t : t + 1]
            codes = tokenizer.embed(tokenizer.encode(frame))
            distances.append((tokenizer.encode_vectors(frame) - codes).square().mean().item())
            # Of row 0 two are padding; row 1 shows the last observation at 3, and then nothing.
            if (b, t) not in {(0, 0), (0, 1), (1, 4), (1, 5)}:
                image = tokenizer.reconstruct(codes)
                errors.append((image - frame / 255).abs().mean().item())
                squares.append((image - frame / 255).square().mean().item())
                looks.append(unlike(image, frame / 255).item())
    mean = lambda terms: sum(terms) / len(terms)
    expected = {
        "reconstruction_l1": 0.3 * mean(errors),
        "reconstruction_l2": 2 * mean(squares),
        "commitment": 1.25 * mean(distances),
    }
    if perceptual is not None:
        expected["perceptual"] = mean(looks)
    expected["loss"] = sum(expected.values())
    losses = tokenizer.loss(segment, perceptual)
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(
        expected, rel=1e-4
    )


def test_padding_reaches_nothing_but_the_commitment() -> None:
    tokenizer, segment = make(), padded_segment()
    other = segment.clone()
    other.frames[0, :2] = 7
    other.frames[1, 4:] = 7
    before, after = tokenizer.loss(segment), tokenizer.loss(other)
    assert (
        before["reconstruction_l1"] == after["reconstruction_l1"]
        and before["commitment"] != after["commitment"]
    )
    other.frames[1, 3] = 7  # the last observation, which no action follows
    assert tokenizer.loss(other)["reconstruction_l1"] != before["reconstruction_l1"]


def test_who_learns_from_what() -> None:
    """Which parameters learn from the reconstruction, and which from the other terms.

    From the reconstruction all but the codebook, straight through it; from the others encoder and
    codebook.
    """
    tokenizer = make(
        conv=ConvConfig(base=8, mult=[1, 2], down=[1, 1], patch=2, groups=4, blocks=2, attention=1)
    )
    losses = tokenizer.loss(random_segment(8, 4))
    learns = {}
    for term in ("reconstruction_l1", "commitment"):
        tokenizer.zero_grad()
        losses[term].backward(retain_graph=True)
        learns[term] = {
            name for name, p in tokenizer.named_parameters() if p.grad is not None and p.grad.any()
        }
    every = {name for name, _ in tokenizer.named_parameters()}
    assert learns["reconstruction_l1"] == every - {"quantizer.codebook"}
    assert learns["commitment"] == {name for name in every if not name.startswith("decoder.")}


def test_it_learns_a_few_frames() -> None:
    """Eight pictures of four squares, each of one of four colours."""
    torch.manual_seed(0)
    tokenizer = FrameTokenizer(small_config(conv=small_conv(base=16)), SPACES).eval()
    segment = random_segment(2, 4)
    segment.mask[:] = True
    colours = torch.tensor(
        [[20, 20, 20], [230, 40, 40], [40, 230, 40], [240, 240, 240]], dtype=torch.uint8
    )
    squares = colours[torch.randint(4, (2, 4, 2, 2))].movedim(-1, 2)
    segment.frames[:] = squares.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)
    learner = Learner(tokenizer, tokenizer.loss, OptimizerConfig(learning_rate=5e-3))
    start = tokenizer.loss(segment)["reconstruction_l1"].item()
    for _ in range(200):
        learner.update(segment)
    frames = segment.frames.flatten(0, 1)
    error = (tokenizer.decode(tokenizer.encode(frames)).float() - frames.float()).abs().mean() / 255
    assert error < 0.07 < 0.3 < start
    diagnostics = tokenizer.diagnostics()
    assert 2 <= diagnostics["codebook_entropy_bits"] <= 4 and 4 <= diagnostics["codes_in_use"] <= 16
