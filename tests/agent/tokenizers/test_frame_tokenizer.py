"""The per-frame VQ-VAE: its sizes, the terms and masks of its loss, and that it learns."""

from __future__ import annotations

import pytest
import torch

from agent.config import KINDS, OptimizerConfig
from agent.config.networks import ConvConfig
from agent.config.quantizers import VqConfig
from agent.config.tokenizers import FrameTokenizerConfig
from agent.tokenizers.frame import FrameTokenizer
from agent.training.learner import Learner
from envs.errors import BadInput
from envs.spaces import Spaces
from tests.agent.conftest import SPACES, floats, padded_segment, random_segment


def make(spaces: Spaces = SPACES, **changes) -> FrameTokenizer:
    """16×16 -> 2×2. In evaluation mode, with codes that lie among the encoder's vectors."""
    torch.manual_seed(0)
    conv = ConvConfig(base=8, mult=[1], down=[1], patch=4, groups=4, attention=1)
    quantizer = VqConfig(size=16, dim=8, commitment=1.0)
    config = FrameTokenizerConfig(**{"conv": conv, "quantizer": quantizer, **changes})
    tokenizer = FrameTokenizer(config, spaces).eval()
    if config.quantizer.kind == "vq":
        torch.nn.init.normal_(tokenizer.quantizer.codebook, std=0.3)
    return tokenizer


def test_the_published_sizes() -> None:
    """64×64×3 -> 4×4 = 16 tokens of 512 codes (IRIS, appendix A).

    Stages of 64 channels, attention at 16×16 and 8×8.
    """
    with torch.device("meta"):
        tokenizer = FrameTokenizer(FrameTokenizerConfig(), Spaces(3, 64, (4,)))
        tokens = tokenizer.encode(torch.empty(2, 3, 64, 64, dtype=torch.uint8))
        frames = tokenizer.decode(tokens)
    assert tokens.shape == (2, 16) and tokens.dtype == torch.int64
    assert tokenizer.embed(tokens).shape == (2, 16, 512)
    assert frames.shape == (2, 3, 64, 64) and frames.dtype == torch.uint8

    conv, norm, c, codes, dim = lambda i, o, k=3: i * o * k * k + o, 2 * 64, 64, 512, 512
    block, attention = 2 * (norm + conv(c, c)), norm + conv(c, 3 * c, 1) + conv(c, c, 1)
    stages = 8 * block + 4 * attention + norm
    encoder = conv(3, c) + stages + 4 * conv(c, c, 2) + conv(c, dim)
    decoder = conv(dim, c) + stages + 4 * conv(c, c) + conv(c, 3)
    expected = encoder + decoder + codes * dim
    assert sum(p.numel() for p in tokenizer.parameters()) == expected == 2_389_763


@pytest.mark.parametrize(("channels", "size"), [(1, 24), (4, 40)])
def test_frames_of_any_size(channels: int, size: int) -> None:
    tokenizer = make(Spaces(channels, size, (2,)))
    frames = torch.randint(256, (3, channels, size, size), dtype=torch.uint8)
    tokens = tokenizer.encode(frames)
    assert tokens.shape == (3, tokenizer.tokens) == (3, (size // 8) ** 2)
    assert tokenizer.decode(tokens).shape == frames.shape
    with pytest.raises(BadInput, match="image size 20 is not divisible by 8"):
        make(Spaces(channels, 20, (2,)))


def test_a_token_is_the_nearest_code_of_its_place() -> None:
    tokenizer, frames = make(), random_segment(3, 2).frames[:, 0]
    maps, tokens = tokenizer.encoder(frames / 255), tokenizer.encode(frames)
    for n in range(3):
        for k in range(4):
            distances = (tokenizer.quantizer.codebook - maps[n, :, k // 2, k % 2]).norm(dim=-1)
            assert tokens[n, k] == distances.argmin()
    codes = tokenizer.quantizer.codebook[tokens]
    assert torch.equal(tokenizer.embed(tokens.unsqueeze(1)), codes.unsqueeze(1))
    plain = tokenizer.decoder(codes.view(3, 2, 2, 8).permute(0, 3, 1, 2)).clamp(0, 1)
    assert (tokenizer.decode(tokens) / 255 - plain).abs().max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("kind", ["cosine_ema", "vq_ema", "fsq"])
def test_codes_of_other_kinds(kind: str) -> None:
    sizes = {} if kind == "fsq" else {"size": 16, "dim": 8}
    tokenizer = make(quantizer=KINDS["tokenizer.quantizer"][kind](**sizes))
    segment = random_segment(2, 3)
    assert tokenizer.train().loss(segment)["loss"].isfinite()
    tokens = tokenizer.eval().encode(segment.frames[:, 0])
    assert tokens.shape == (2, 4) and tokens.max() < tokenizer.config.quantizer.num_codes
    assert tokenizer.decode(tokens).shape == (2, 3, 16, 16)


def test_the_loss_against_a_loop_over_real_frames() -> None:
    tokenizer, segment = make(l1=0.3, l2=2.0), padded_segment(6)
    tokenizer.config.quantizer.commitment = 0.25
    errors, distances = [], []
    for b in range(3):
        for t in range(6):
            frame = segment.frames[b, t : t + 1]
            codes = tokenizer.embed(tokenizer.encode(frame))
            distances.append((tokenizer.encode_vectors(frame) - codes).square().mean().item())
            # Of row 0 two are padding; row 1 shows the last observation at 3, and then nothing.
            if (b, t) not in {(0, 0), (0, 1), (1, 4), (1, 5)}:
                errors.append((tokenizer.reconstruct(codes) - frame / 255).abs())
    mean = lambda terms: sum(terms) / len(terms)
    expected = {
        "reconstruction_l1": 0.3 * mean([e.mean().item() for e in errors]),
        "reconstruction_l2": 2 * mean([e.square().mean().item() for e in errors]),
        "commitment": 1.25 * mean(distances),
    }
    expected["loss"] = sum(expected.values())
    assert floats(tokenizer.loss(segment)) == pytest.approx(expected, rel=1e-4)


def test_who_learns_from_what() -> None:
    """From the reconstruction all but the codebook, straight through it; from the others encoder
    and codebook."""
    conv = ConvConfig(base=8, mult=[1, 2], down=[1, 1], patch=2, groups=4, blocks=2, attention=1)
    tokenizer = make(conv=conv)
    losses, learns = tokenizer.loss(random_segment(8, 4)), {}
    for term in ("reconstruction_l1", "commitment"):
        tokenizer.zero_grad()
        losses[term].backward(retain_graph=True)
        named = tokenizer.named_parameters()
        learns[term] = {name for name, p in named if p.grad is not None and p.grad.any()}
    every = {name for name, _ in tokenizer.named_parameters()}
    assert learns["reconstruction_l1"] == every - {"quantizer.codebook"}
    assert learns["commitment"] == {name for name in every if not name.startswith("decoder.")}


def test_it_learns_a_few_frames() -> None:
    """Eight pictures of four squares, each of one of four colours."""
    conv = ConvConfig(base=16, mult=[1], down=[1], patch=4, groups=4, attention=1)
    tokenizer, segment = make(conv=conv), random_segment(2, 4)
    tokenizer.quantizer.codebook.data.uniform_(-1 / 16, 1 / 16)
    segment.mask[:] = True
    colours = torch.tensor([[20, 20, 20], [230, 40, 40], [40, 230, 40], [240, 240, 240]])
    squares = colours.to(torch.uint8)[torch.randint(4, (2, 4, 2, 2))].movedim(-1, 2)
    segment.frames[:] = squares.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)
    learner = Learner(tokenizer, tokenizer.loss, OptimizerConfig(learning_rate=5e-3))
    start = tokenizer.loss(segment)["reconstruction_l1"].item()
    for _ in range(150):
        learner.update(segment)
    frames = segment.frames.flatten(0, 1)
    error = (tokenizer.decode(tokenizer.encode(frames)).float() - frames.float()).abs().mean() / 255
    assert error < 0.08 < 0.3 < start
    diagnostics = tokenizer.diagnostics()
    assert 2 <= diagnostics["codebook_entropy_bits"] <= 4 and 4 <= diagnostics["codes_in_use"] <= 16
