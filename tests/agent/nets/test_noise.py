"""Noise: the published generator, evenly spread, each row's own whatever its neighbours."""

from __future__ import annotations

import torch

from agent.nets.noise import KeyedGumbelMax, mix, split, uniform


def splitmix64(seed: int, count: int) -> list[int]:
    """The reference in whole numbers."""
    numbers = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) % 2**64
        x = seed
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        numbers.append(x ^ x >> 31)
    return numbers


def signed(x: int) -> int:
    return x - 2**64 * (x >= 2**63)


def test_the_generator_is_splitmix64():
    # As its authors' code gives them.
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]
    for seed in (0, 1, 1234567, 2**63 - 1):
        expected = [signed(x) for x in splitmix64(seed, 50)]
        key = torch.tensor(seed)
        assert split(key, torch.arange(50)).tolist() == expected
        assert [split(key, i).item() for i in range(50)] == expected


def test_uniform_is_even_and_open():
    drawn = uniform(split(torch.tensor(7), torch.arange(200_000)))
    assert drawn.dtype == torch.float32 and 0 < drawn.min() and drawn.max() < 1
    counts = torch.histc(drawn, bins=50, min=0, max=1)
    assert (counts / 4000 - 1).abs().max() < 0.08
    assert uniform(torch.tensor([0, -1])).tolist() == [2.0**-24, 1 - 2.0**-24]


def test_samples_follow_the_distribution():
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    select = KeyedGumbelMax(split(torch.tensor(3), torch.arange(20_000)))
    for _ in range(2):
        drawn = select(probabilities.log().expand(20_000, 4))
        assert (drawn.bincount(minlength=4) / 20_000 - probabilities).abs().max() < 0.015


def test_a_row_draws_by_its_key_alone_and_anew_each_time():
    keys, logits = mix(torch.arange(300)), torch.zeros(300, 16)
    together, alone = KeyedGumbelMax(keys), KeyedGumbelMax(keys[41:42])
    rows = [(together(logits), alone(logits[:1])) for _ in range(20)]
    assert all(many[41] == one[0] for many, one in rows)
    assert len({tuple(many.tolist()) for many, _ in rows}) == 20
    draws = torch.stack([many for many, _ in rows], dim=1)
    assert len({tuple(row) for row in draws.tolist()}) == 300
