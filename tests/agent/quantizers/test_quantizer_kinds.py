"""All quantizers: one interface, and each kind against its paper or vector-quantize-pytorch."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from vector_quantize_pytorch import FSQ, VectorQuantize

from agent.config.quantizers import (
    CosineEmaConfig,
    FsqConfig,
    QuantizerConfig,
    VqConfig,
    VqEmaConfig,
)
from agent.quantizers.base import Quantizer
from agent.quantizers.codebooks import rotate
from agent.quantizers.make import make_quantizer
from agent.runs.api import configure
from envs.errors import BadInput
from envs.settings import check_values
from tests.agent.quantizers.test_quantizers import noise
from tests.tiny import experiment

ALL = {
    "cosine_ema": CosineEmaConfig(size=16, dim=4),
    "cosine_ema, rotation": CosineEmaConfig(size=16, dim=4, gradient="rotation"),
    "cosine_ema, product": CosineEmaConfig(size=16, dim=4, codebooks=2, revival_updates=None),
    "vq": VqConfig(size=16, dim=4),
    "vq, rotation, product": VqConfig(size=16, dim=4, gradient="rotation", codebooks=2),
    "vq_ema": VqEmaConfig(size=16, dim=4),
    "fsq": FsqConfig(levels=[4, 2, 2, 3]),
}
SIZE, DIM = 32, 6
gradients = pytest.mark.parametrize("gradient", ["straight_through", "rotation"])


def make(config: QuantizerConfig) -> Quantizer:
    """In training mode; its codes, where it keeps them, are about as large as `noise`."""
    torch.manual_seed(0)
    quantizer = make_quantizer(config)
    for name, value in quantizer.state_dict().items():
        if name.endswith("codebook"):
            value.copy_(noise(*value.shape))
    return quantizer


@pytest.fixture(params=ALL)
def quantizer(request) -> Quantizer:
    return make(ALL[request.param])


def check_states(ours: Quantizer, theirs: dict[str, Tensor]) -> None:
    assert all(torch.equal(value, theirs[name]) for name, value in ours.state_dict().items())


def test_what_is_no_number_does_not_stay(quantizer: Quantizer) -> None:
    """It is a token nevertheless: else it would index out of the dynamics' embedding."""
    z = noise(5, 3, quantizer.config.vector_dim)
    z[2, 1] = math.nan
    tokens = quantizer(z).tokens
    assert all(value.isfinite().all() for value in quantizer.state_dict().values())
    assert (0 <= tokens).all() and (tokens < quantizer.config.num_codes).all()


def test_vectors_tokens_and_back(quantizer: Quantizer) -> None:
    z = noise(3, 5, 4, seed=1)
    vectors, tokens, commitment = quantizer.eval()(z)
    assert vectors.shape == z.shape and tokens.shape == (3, 5) and commitment.shape == ()
    assert tokens.dtype == torch.int64 and vectors.dtype == commitment.dtype == torch.float32
    assert torch.equal(quantizer.nearest(z), tokens)
    torch.testing.assert_close(quantizer.lookup(tokens), vectors)
    every = quantizer.lookup(torch.arange(quantizer.config.num_codes))
    assert every.shape == (quantizer.config.num_codes, quantizer.config.vector_dim)
    assert len(every.unique(dim=0)) == len(every)


def test_float32_under_autocast(quantizer: Quantizer) -> None:
    z = noise(200, 4, seed=1).bfloat16()
    plain = quantizer.eval()(z.float())
    with torch.autocast("cpu", torch.bfloat16):
        output, nearest = quantizer(z), quantizer.nearest(z)
    assert all(map(torch.equal, output, plain)) and torch.equal(nearest, plain.tokens)


def test_nothing_moves_in_evaluation_and_use_is_counted_in_training(quantizer: Quantizer) -> None:
    before, z = copy.deepcopy(quantizer.state_dict()), noise(50, 4, seed=1)
    tokens = quantizer.eval()(z).tokens
    check_states(quantizer, before)
    quantizer.train()(z)
    use = torch.bincount(tokens, minlength=quantizer.config.num_codes) / 50
    torch.testing.assert_close(quantizer.usage, 0.98 * before["usage"] + 0.02 * use)


def test_a_recorded_step_replays_bit_equal(quantizer: Quantizer) -> None:
    """Recorded once, it replays on other inputs without the Python."""
    twin = copy.deepcopy(quantizer)

    def step(quantizer: Quantizer, z: Tensor) -> list[Tensor]:
        z = z.detach().requires_grad_()
        output = quantizer(z)
        loss = (output.vectors * z.detach().flip(0)).sum() + output.commitment
        return [*output, torch.autograd.grad(loss, z)[0]]

    inputs = [noise(50, 4, seed=seed) for seed in range(1, 6)]
    torch.manual_seed(7)
    recorded = make_fx(partial(step, quantizer))(inputs[0])
    replayed = [recorded(z) for z in inputs[1:]]
    torch.manual_seed(7)
    eager = [step(twin, z) for z in inputs][1:]
    for ours, theirs in zip(replayed, eager):
        assert all(map(torch.equal, ours, theirs))
        assert ours[-1].isfinite().all() and ours[-1].any(dim=0).all()  # the input learns
    check_states(quantizer, twin.state_dict())


def test_the_compiler_takes_it_whole(quantizer: Quantizer) -> None:
    """No graph break, and the same numbers."""
    z = noise(50, 4, seed=1)
    torch.manual_seed(0)
    expected = copy.deepcopy(quantizer)(z)
    torch._dynamo.reset()
    torch.manual_seed(0)
    output = torch.compile(quantizer, fullgraph=True, dynamic=False, backend="eager")(z)
    assert all(map(torch.equal, output, expected))


def theirs_of(ours: Quantizer, **options) -> VectorQuantize:
    """Theirs, with our codes and commitment."""
    c = ours.config
    theirs = VectorQuantize(
        c.dim, c.size, commitment_weight=c.commitment, decay=getattr(c, "decay", 0.99),
        rotation_trick=c.gradient == "rotation", **options,
    )  # fmt: skip
    theirs._codebook.embed.data.copy_(ours.codebook[None])
    return theirs.train()


def compare(ours: Quantizer, theirs: torch.nn.Module, seed: int) -> None:
    """Tokens, vectors, the loss, and the gradient of both together for the input."""
    a, b = (noise(2, 30, DIM, seed=seed).requires_grad_() for _ in range(2))
    vectors, tokens, commitment = ours(a)
    their_vectors, their_tokens, their_loss = theirs(b)
    assert torch.equal(tokens, their_tokens)
    torch.testing.assert_close(vectors, their_vectors)
    torch.testing.assert_close(commitment, their_loss)
    gradient = noise(2, 30, DIM, seed=seed + 100)
    ((vectors * gradient).sum() + commitment).backward()
    ((their_vectors * gradient).sum() + their_loss).backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)


@gradients
def test_vq_ema(gradient: str) -> None:
    """Three updates. Theirs starts at one vector a code, and smooths its counts."""
    ours = make(VqEmaConfig(size=SIZE, dim=DIM, gradient=gradient))
    theirs = theirs_of(ours, eps=1e-30)
    ours.counts.fill_(1)
    ours.sums.copy_(ours.codebook)
    theirs._codebook.embed_avg.copy_(ours.codebook[None])
    for seed in range(1, 4):
        compare(ours, theirs, seed)
        torch.testing.assert_close(ours.codebook, theirs._codebook.embed[0], rtol=1e-4, atol=1e-5)


@gradients
def test_vq(gradient: str) -> None:
    """Their `commitment_weight` weighs both terms of the loss: at 1 it equals ours at 1."""
    ours = make(VqConfig(size=SIZE, dim=DIM, commitment=1.0, gradient=gradient))
    theirs = theirs_of(ours, learnable_codebook=True, ema_update=False)
    a, b = (noise(2, 30, DIM, seed=1).requires_grad_() for _ in range(2))
    output, (vectors, tokens, loss) = ours(a), theirs(b)
    assert torch.equal(output.tokens, tokens)
    torch.testing.assert_close(output.vectors, vectors)
    # Their loss is one squared distance with both gradients, ours two with one each.
    torch.testing.assert_close(output.commitment, 2 * loss)
    weights = noise(2, 30, DIM, seed=2)
    ((output.vectors * weights).sum() + output.commitment).backward()
    ((vectors * weights).sum() + loss).backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.codebook.grad, theirs._codebook.embed.grad[0])


@gradients
def test_cosine_codes(gradient: str) -> None:
    """The choice of codes and the gradients, not their update: Δ-IRIS moves its codes otherwise."""
    ours = make(CosineEmaConfig(size=SIZE, dim=DIM, gradient=gradient))
    ours.codebook.copy_(F.normalize(ours.codebook, dim=-1))
    compare(ours, theirs_of(ours, use_cosine_sim=True), seed=1)


@pytest.mark.parametrize("levels", [[8, 6, 5], [7, 5, 5, 5, 5], [3]])
def test_fsq(levels: list[int]) -> None:
    ours, theirs = make(FsqConfig(levels=levels)), FSQ(levels)
    a, b = (2 * noise(3, 500, len(levels), seed=1).requires_grad_() for _ in range(2))
    a.retain_grad(), b.retain_grad()
    output, (vectors, tokens) = ours(a), theirs(b)
    assert torch.equal(output.tokens, tokens.long())
    torch.testing.assert_close(output.vectors, vectors)
    codes = torch.arange(ours.config.num_codes)
    torch.testing.assert_close(ours.lookup(codes), theirs.indices_to_codes(codes))
    weights = noise(3, 500, len(levels), seed=2)
    (output.vectors * weights).sum().backward()
    (vectors * weights).sum().backward()
    torch.testing.assert_close(a.grad, b.grad)


def test_the_weight_of_the_commitment() -> None:
    """The input gets the straight-through gradient and β's share; the codes the distance's."""
    quantizer = make(VqConfig(size=16, dim=4, commitment=0.3))
    z, gradient = noise(50, 4, seed=1).requires_grad_(), noise(50, 4, seed=2)
    output = quantizer(z)
    distance = (z - quantizer.codebook[output.tokens]).detach()
    torch.testing.assert_close(output.commitment, 1.3 * distance.square().mean())
    ((output.vectors * gradient).sum() + output.commitment).backward()
    torch.testing.assert_close(z.grad, gradient + 0.3 * 2 * distance / z.numel())


def test_codes_out_of_use_stay_for_ever() -> None:
    quantizer = make(ALL["vq_ema"])
    quantizer(noise(200, 4, seed=1))
    before = quantizer.codebook.clone()
    quantizer.counts.mul_(1e-30)
    quantizer.sums.mul_(1e-30)
    for _ in range(3):
        tokens = quantizer(before[:1].expand(5, 4).contiguous()).tokens
    assert (tokens == 0).all()
    torch.testing.assert_close(quantizer.codebook, before)


def test_opposite_and_zero_vectors_are_rotated_to_finite_ones() -> None:
    z = torch.tensor([[1.0, 2.0], [0.0, 0.0], [1.0, 1.0]]).requires_grad_()
    rotated = rotate(z, torch.tensor([[-1.0, -2.0], [1.0, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(rotated[0], torch.tensor([-1.0, -2.0]))
    rotated.sum().backward()
    assert rotated.isfinite().all() and z.grad.isfinite().all()


def test_each_of_several_codebooks_codes_its_share() -> None:
    quantizer, z = make(CosineEmaConfig(size=27, dim=6, codebooks=3)), noise(50, 6, seed=1)
    parts = copy.deepcopy(quantizer.parts)
    assert all(part.codebook.shape == (3, 2) for part in parts)
    output = quantizer(z)
    alone = [part(own) for part, own in zip(parts, z.split(2, dim=-1))]
    assert torch.equal(output.vectors, torch.cat([part.vectors for part in alone], dim=-1))
    assert torch.equal(output.tokens, sum(3**i * part.tokens for i, part in enumerate(alone)))
    torch.testing.assert_close(output.commitment, sum(part.commitment for part in alone) / 3)
    for ours, theirs in zip(quantizer.parts, parts):
        check_states(ours, theirs.state_dict())


def test_misfits_are_refused() -> None:
    message = "codebooks=2 was given with size=1000 and dim=64; .* 1024 say"
    with pytest.raises(BadInput, match=message):
        make_quantizer(CosineEmaConfig(size=1000, codebooks=2))
    with pytest.raises(BadInput, match="multiple of 2 as dim"):
        make_quantizer(CosineEmaConfig(size=1024, dim=33, codebooks=2))
    with pytest.raises(BadInput, match="gradient=gumbel .* straight_through, rotation"):
        check_values(VqConfig(gradient="gumbel"), "quantizer.")


@pytest.mark.parametrize(
    ("kind", "given"),
    [("cosine_ema", "levels=[3]"), ("vq_ema", "revival_updates=null"), ("fsq", "codebooks=2")],
)
def test_what_a_kind_does_not_have(kind: str, given: str) -> None:
    key = f"agent.tokenizer.quantizer.{given.partition('=')[0]}"
    with pytest.raises(BadInput, match=f"^{key} belongs to quantizer="):
        configure(f"quantizer={kind}", f"agent.tokenizer.quantizer.{given}")


NAMES = [
    "cosine_ema",
    "cosine_ema_rotation",
    "cosine_ema_product",
    "vq",
    "vq_rotation",
    "vq_ema",
    "fsq",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_goes_with_an_experiment(name: str) -> None:
    config = experiment("crafter_quick", f"quantizer={name}").agent.tokenizer.quantizer
    assert name.startswith(config.kind)
    assert make_quantizer(config).usage.shape == (config.num_codes,)
