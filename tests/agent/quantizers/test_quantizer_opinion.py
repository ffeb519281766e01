"""A second opinion on the quantizers: vector-quantize-pytorch, where it has the same."""

from __future__ import annotations

import pytest
import torch
from vector_quantize_pytorch import FSQ, VectorQuantize

from agent.config.quantizers import CosineEmaConfig, FsqConfig, VqConfig, VqEmaConfig
from agent.quantizers.base import Quantizer
from agent.quantizers.make import make_quantizer
from tests.agent.quantizers.test_quantizers import noise

SIZE, DIM = 32, 6


def theirs_of(ours: Quantizer, **options) -> VectorQuantize:
    """Theirs, with our codes and commitment."""
    theirs = VectorQuantize(
        ours.config.dim, ours.config.size, commitment_weight=ours.config.commitment, decay=getattr(ours.config, "decay", 0.99),
        rotation_trick=ours.config.gradient == "rotation", **options,
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


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_vq_ema(gradient: str) -> None:
    """Three updates.

    Theirs starts its averages at one vector a code and smooths its counts; here it hardly smooths.
    """
    ours = make_quantizer(VqEmaConfig(size=SIZE, dim=DIM, gradient=gradient))
    ours.codebook.copy_(noise(SIZE, DIM))
    theirs = theirs_of(ours, eps=1e-30)
    ours.counts.fill_(1)
    ours.sums.copy_(ours.codebook)
    theirs._codebook.embed_avg.copy_(ours.codebook[None])
    for seed in range(1, 4):
        compare(ours, theirs, seed)
        torch.testing.assert_close(ours.codebook, theirs._codebook.embed[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_vq(gradient: str) -> None:
    """Their `commitment_weight` weighs both terms of the loss: at 1 it equals ours at 1."""
    ours = make_quantizer(VqConfig(size=SIZE, dim=DIM, commitment=1.0, gradient=gradient))
    ours.codebook.data.copy_(noise(SIZE, DIM))
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


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_cosine_codes(gradient: str) -> None:
    """The choice of codes and the gradients, not their update: Δ-IRIS moves its codes otherwise."""
    ours = make_quantizer(CosineEmaConfig(size=SIZE, dim=DIM, gradient=gradient))
    ours.codebook.copy_(torch.nn.functional.normalize(noise(SIZE, DIM), dim=-1))
    compare(ours, theirs_of(ours, use_cosine_sim=True), seed=1)


@pytest.mark.parametrize("levels", [[8, 6, 5], [8, 5, 5, 5], [7, 5, 5, 5, 5], [3]])
def test_fsq(levels: list[int]) -> None:
    ours, theirs = make_quantizer(FsqConfig(levels=levels)), FSQ(levels)
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
