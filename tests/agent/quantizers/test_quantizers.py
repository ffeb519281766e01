"""The codebook against plain loops, code by code, in float64."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from agent.config.quantizers import CosineEmaConfig
from agent.quantizers.codebooks import CosineQuantizer

SIZE, DIM = 16, 4


def make(seed: int = 0, **changes) -> CosineQuantizer:
    """A quantizer in training mode, with unit codes."""
    quantizer = CosineQuantizer(CosineEmaConfig(**{"size": SIZE, "dim": DIM, **changes}))
    quantizer.codebook.copy_(F.normalize(noise(SIZE, DIM, seed=seed), dim=-1))
    return quantizer


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_nearest_code_by_cosine() -> None:
    quantizer, z = make().eval(), 30 * noise(3, 5, DIM, seed=1)
    output = quantizer(z)
    for place in [(i, j) for i in range(3) for j in range(5)]:
        cosines = [
            F.cosine_similarity(z[place].double(), code.double(), dim=0).item()
            for code in quantizer.codebook
        ]
        assert output.tokens[place] == cosines.index(max(cosines))
    torch.testing.assert_close(output.vectors, quantizer.codebook[output.tokens])


def test_commitment_is_the_weighted_squared_distance() -> None:
    quantizer, z = make(commitment=0.3), noise(7, DIM, seed=1)
    codebook = quantizer.codebook.clone()
    output = quantizer(z)
    unit = z / z.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(
        output.commitment, 0.3 * (unit - codebook[output.tokens]).square().mean()
    )


def test_an_update_against_a_loop_over_codes() -> None:
    quantizer, z = make(decay=0.9, usage_decay=0.7), noise(2, 10, DIM, seed=1)
    codebook, usage = quantizer.codebook.double(), quantizer.usage.double()
    tokens = quantizer(z).tokens.flatten()
    unit = F.normalize(z.double().flatten(0, 1), dim=-1)
    assert 0 < len(tokens.unique()) < SIZE
    for code in range(SIZE):
        chosen = unit[tokens == code]
        if len(chosen) == 0:
            expected = codebook[code]
        else:
            mean = chosen.mean(dim=0)
            expected = 0.9 * codebook[code] + 0.1 * mean / mean.norm()
        torch.testing.assert_close(
            quantizer.codebook[code].double(), expected / expected.norm(), rtol=0, atol=1e-6
        )
        used = 0.7 * usage[code].item() + 0.3 * len(chosen) / 20
        assert quantizer.usage[code].item() == pytest.approx(used, abs=1e-6)
    assert quantizer.updates == 1


def test_rows_are_unit_vectors_from_the_first_update_on() -> None:
    torch.manual_seed(0)
    quantizer = CosineQuantizer(CosineEmaConfig(size=64, dim=8))
    assert quantizer.codebook.abs().max() <= 1 / 64
    for seed in range(3):
        quantizer(noise(30, 8, seed=seed))
        torch.testing.assert_close(quantizer.codebook.norm(dim=-1), torch.ones(64))


THRESHOLD = 0.1 / SIZE  # of a dead code
# Codes in equal use, beside two that are nearly dead: 0.09, 1.08, 1.66 and 2.07 bits. The limits
# are 1 and 2.


@pytest.mark.parametrize(
    ("in_use", "limit", "updates", "revives"),
    [
        (1, 0, 0, True), (1, 10, 99, True), (1, None, 99, True),
        (2, 0, 0, False), (2, 10, 9, True), (2, 10, 10, False), (2, None, 10**6, True),
        (3, 0, 0, False), (3, 10, 9, True), (3, 10, 10, False), (3, None, 10**6, True),
        (4, 0, 0, False), (4, 10, 0, False), (4, None, 0, False),
    ],
)  # fmt: skip
def test_revival(in_use: int, limit: int | None, updates: int, revives: bool) -> None:
    quantizer = make(usage_decay=1.0, revival_updates=limit)  # the usage stays as it is set here
    quantizer.usage.zero_()
    quantizer.usage[:in_use] = 1 / in_use
    quantizer.usage[-2:] = torch.tensor([0.99, 1.01]) * THRESHOLD
    quantizer.updates.fill_(updates)
    twin, usage = copy.deepcopy(quantizer), quantizer.usage.clone()
    twin.usage.fill_(1 / SIZE)  # the twin never revives

    z = noise(40, DIM, seed=1)
    torch.manual_seed(0)
    quantizer(z)
    twin(z)
    dead = (usage < THRESHOLD) if revives else torch.zeros(SIZE, dtype=torch.bool)
    assert dead.sum() == (SIZE - in_use - 1 if revives else 0)
    assert torch.equal(quantizer.codebook[~dead], twin.codebook[~dead])
    assert torch.equal(quantizer.usage[~dead], usage[~dead])
    assert (quantizer.usage[dead] == 1 / SIZE).all()
    rows = {tuple(row) for row in F.normalize(z, dim=-1).tolist()}
    revived = {tuple(row) for row in quantizer.codebook[dead].tolist()}
    assert revived <= rows and (not revives or len(revived) > 3)  # different ones, not one for all
    assert quantizer.updates == updates + 1


def test_usage_in_numbers() -> None:
    quantizer = make()
    assert quantizer.usage_entropy().item() == pytest.approx(math.log2(SIZE))
    assert quantizer.diagnostics()["codes_in_use"] == SIZE
    quantizer.usage.zero_()[:4] = torch.tensor([0.5, 0.25, 0.25 - THRESHOLD / 2, THRESHOLD / 2])
    assert quantizer.diagnostics()["codes_in_use"] == 3
    shares = torch.tensor([0.5, 0.25, 0.25])
    quantizer.usage.zero_()[:3] = 3 * shares  # revival leaves it unnormalised
    assert quantizer.usage_entropy().item() == pytest.approx(1.5)


def test_revival_in_a_book_of_four() -> None:
    """Of its two bits none is left two below them: it is less than one that counts."""
    quantizer = CosineQuantizer(CosineEmaConfig(size=4, dim=DIM, usage_decay=1.0))
    for usage, revives in (((0.9, 0.1, 0.0, 0.0), True), ((0.4, 0.3, 0.3, 0.0), False)):
        quantizer.usage.copy_(torch.tensor(usage))
        quantizer(noise(40, DIM))
        assert (quantizer.usage[3] == 0.25) == revives
