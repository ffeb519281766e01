"""One pass or many with a cache: the same outputs; and no output sees a later input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config.networks import TransformerConfig
from agent.nets.transformer import Cache, CausalTransformer
from envs.errors import BadInput

POSITIONS, WIDTH = 12, 16


@pytest.fixture(scope="module")
def transformer() -> CausalTransformer:
    torch.manual_seed(0)
    return CausalTransformer(
        TransformerConfig(layers=2, heads=4, width=WIDTH), POSITIONS
    ).requires_grad_(False)


def all_of(cache: Cache) -> torch.Tensor:
    """[layers, 2 (keys, values), batch, heads, positions, width / heads]."""
    return torch.stack(cache)


chunks = st.lists(st.integers(1, POSITIONS), min_size=1, max_size=POSITIONS).filter(
    lambda c: sum(c) <= POSITIONS
)


@settings(max_examples=60, deadline=None)
@given(chunks=chunks, seed=st.integers(0, 99))
def test_chunks_with_a_cache_equal_one_pass(
    transformer: CausalTransformer, chunks: list[int], seed: int
) -> None:
    x = torch.randn(3, sum(chunks), WIDTH, generator=torch.Generator().manual_seed(seed))
    # Noise where nothing is written yet: reading or writing beyond the positions would show.
    cache = [torch.randn_like(layer) * 1e3 for layer in transformer.empty_cache(3)]
    outputs, position = [], 0
    expected = transformer(x)
    for chunk in x.split(chunks, dim=1):
        before = all_of(cache).clone()
        written = slice(position, position + chunk.shape[1])
        outputs.append(
            transformer(chunk, cache, transformer.cache_positions(position, chunk.shape[1]))
        )
        after = all_of(cache)
        assert (before != after)[..., written, :].all()
        before[..., written, :] = after[..., written, :]
        assert torch.equal(before, after)
        position += chunk.shape[1]
    last = torch.tensor(chunks).cumsum(0) - 1
    torch.testing.assert_close(torch.stack(outputs, dim=1), expected[:, last], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changed", range(POSITIONS))
def test_a_later_input_changes_no_earlier_output(
    transformer: CausalTransformer, changed: int
) -> None:
    x = torch.randn(2, POSITIONS, WIDTH, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[:, changed] = -other[:, changed]
    differs = (transformer(x) != transformer(other)).any(dim=-1)
    assert not differs[:, :changed].any() and differs[:, changed:].all()


def test_positions_are_felt(transformer: CausalTransformer) -> None:
    """Without them, the same input everywhere would give the same output everywhere."""
    y = transformer(torch.ones(1, POSITIONS, WIDTH))[0]
    assert torch.cdist(y, y).add(torch.eye(POSITIONS)).min() > 1e-3


def test_the_cache(transformer: CausalTransformer) -> None:
    cache = all_of(transformer.empty_cache(5))
    assert cache.shape == (2, 2, 5, 4, POSITIONS, WIDTH // 4) and not cache.requires_grad


def test_dropout_in_training_only() -> None:
    """In evaluation mode, and then with a cache too, it is as if there were none."""
    torch.manual_seed(0)
    config = TransformerConfig(layers=2, heads=4, width=WIDTH, dropout=0.5)
    transformer = CausalTransformer(config, POSITIONS).requires_grad_(False)
    plain = CausalTransformer(
        TransformerConfig(layers=2, heads=4, width=WIDTH), POSITIONS
    ).requires_grad_(False)
    plain.load_state_dict(transformer.state_dict())
    x = torch.randn(2, POSITIONS, WIDTH)
    a, b = transformer(x), transformer(x)
    assert not torch.allclose(a, b) and torch.equal(transformer.eval()(x), plain.train()(x))
    cache = transformer.empty_cache(2)
    torch.testing.assert_close(
        transformer(x, cache, transformer.cache_positions(0, POSITIONS)),
        plain(x)[:, -1],
        rtol=1e-5,
        atol=1e-5,
    )


def test_each_dropout_is_felt(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the inputs, and three of each layer: attention weights, attention, perceptron."""
    torch.manual_seed(0)
    transformer = CausalTransformer(
        TransformerConfig(layers=2, heads=4, width=WIDTH, dropout=0.3), POSITIONS
    )
    attend, dropped = torch.nn.functional.scaled_dot_product_attention, []

    def attention(*arguments, dropout_p, **options):
        dropped.append(dropout_p)
        return attend(*arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(
        torch.nn.functional, "dropout", lambda x, p, *_: dropped.append(p) or x
    )  # nn.Dropout's, too
    transformer(torch.randn(2, POSITIONS, WIDTH))
    assert dropped == [0.3] * (1 + 2 * 3)
    transformer.eval()
    dropped.clear()
    transformer(torch.randn(2, POSITIONS, WIDTH))
    assert dropped[1::3] == [0.0, 0.0]


def test_misfits_are_refused() -> None:
    with pytest.raises(BadInput, match="dropout=1.0"):
        CausalTransformer(TransformerConfig(layers=1, heads=2, width=16, dropout=1.0), 4)
    with pytest.raises(BadInput, match="width=16 .* heads=3"):
        CausalTransformer(TransformerConfig(layers=1, heads=3, width=16), 4)
