"""One pass or many with a cache: the same outputs; and no output sees a later input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config.networks import TransformerConfig
from agent.nets.transformer import CausalTransformer
from envs.errors import BadInput

POSITIONS, WIDTH = 12, 16


@pytest.fixture(scope="module")
def transformer() -> CausalTransformer:
    torch.manual_seed(0)
    return CausalTransformer(
        TransformerConfig(layers=2, heads=4, width=WIDTH), POSITIONS
    ).requires_grad_(False)


chunks = st.lists(st.integers(1, POSITIONS), min_size=1, max_size=POSITIONS).filter(
    lambda c: sum(c) <= POSITIONS
)


@settings(max_examples=25, deadline=None)
@given(chunks=chunks, seed=st.integers(0, 99))
def test_chunks_with_a_cache_equal_one_pass(
    transformer: CausalTransformer, chunks: list[int], seed: int
) -> None:
    x = torch.randn(3, sum(chunks), WIDTH, generator=torch.Generator().manual_seed(seed))
    # Noise where nothing is written yet: reading or writing beyond the positions would show.
    cache = [torch.randn_like(layer) * 1e3 for layer in transformer.empty_cache(3)]
    outputs, position, expected = [], 0, transformer(x)
    for chunk in x.split(chunks, dim=1):
        before, count = torch.stack(cache), chunk.shape[1]
        outputs.append(transformer(chunk, cache, transformer.cache_positions(position, count)))
        changed = before != torch.stack(cache)
        written = slice(position, position + count)
        assert changed[..., written, :].all() and changed.sum() == changed[..., written, :].sum()
        position += count
    last = torch.tensor(chunks).cumsum(0) - 1
    torch.testing.assert_close(torch.stack(outputs, dim=1), expected[:, last], rtol=1e-5, atol=1e-5)


def test_each_dropout_is_felt(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the inputs, and three of each layer: attention weights, attention, perceptron."""
    torch.manual_seed(0)
    config = TransformerConfig(layers=2, heads=4, width=WIDTH, dropout=0.3)
    transformer = CausalTransformer(config, POSITIONS)
    attend, dropped = torch.nn.functional.scaled_dot_product_attention, []

    def attention(*arguments, dropout_p, **options):
        dropped.append(dropout_p)
        return attend(*arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    drop = lambda x, p, *_: dropped.append(p) or x  # nn.Dropout's, too
    monkeypatch.setattr(torch.nn.functional, "dropout", drop)
    transformer(torch.randn(2, POSITIONS, WIDTH))
    assert dropped == [0.3] * (1 + 2 * 3)
    transformer.eval()
    dropped.clear()
    transformer(torch.randn(2, POSITIONS, WIDTH))
    assert dropped[1::3] == [0.0, 0.0]


def test_misfits_are_refused() -> None:
    with pytest.raises(BadInput, match="width=16 .* heads=3"):
        CausalTransformer(TransformerConfig(layers=1, heads=3, width=16), 4)
