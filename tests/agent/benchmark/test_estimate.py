from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.benchmark.estimate import CARDS, Card, estimate
from agent.benchmark.record import Operation, record_updates
from agent.config import TrainConfig
from envs.spaces import Spaces

OPERATIONS = st.lists(
    st.builds(
        Operation,
        name=st.sampled_from(["aten.convolution", "aten.mm", "aten.add"]),
        flop=st.integers(0, 10**12),
        bytes=st.integers(0, 10**10),
    ),
    max_size=20,
)
# The published code, eager, on an A100: Crafter configuration, batches of 32 × 21, 32 × 21, and
# 86 × 15 imagined steps: seconds, launches and precision of an update.
PUBLISHED = {
    "tokenizer": (0.270, 1_831, "bf16"),
    "dynamics": (0.096, 1_443, "bf16"),
    "policy": (0.710, 13_854, "fp32"),
}


@pytest.mark.slow
def test_the_published_timings_are_met() -> None:
    """The model was calibrated on them, so this is no independent test."""
    recordings = record_updates(TrainConfig(), Spaces(channels=3, size=64, actions=(17,)))
    (card,) = (card for card in CARDS if card.name == "A100")
    for part, (seconds, launches, precision) in PUBLISHED.items():
        scale = launches / len(recordings[part])  # the host's time is that of the published code
        scaled = dataclasses.replace(card, launch=card.launch * scale)
        estimated = estimate(recordings[part], scaled, precision, captured=False)
        assert estimated == pytest.approx(seconds, rel=0.08), part


def test_estimate_by_hand() -> None:
    card = Card("toy", bf16=10.0, tf32=5.0, fp32=1.0, bandwidth=1e9, launch=100.0, replay=0.0)
    product, convolution = Operation("aten.mm", 400, 0), Operation("aten.convolution", 400, 0)
    nothing = Operation("aten.add", 0, 0)
    # At the efficiency of 0.4: 100 s and 1000 s.
    assert estimate([product], card, "bf16", captured=True) == pytest.approx(100)
    assert estimate([product], card, "fp32", captured=True) == pytest.approx(1000)
    assert estimate([convolution], card, "fp32", captured=True) == pytest.approx(200)
    # The host is ahead of a card that is busy, and the card waits for a host that is slow.
    assert estimate([product] * 3, card, "fp32", captured=False) == pytest.approx(100 + 3 * 1000)
    assert estimate([nothing] * 3, card, "fp32", captured=False) == pytest.approx(300)


@given(OPERATIONS, st.sampled_from(CARDS), st.sampled_from(["bf16", "fp32"]))
def test_captured_is_never_slower_and_neither_beats_the_data_sheet(
    operations: list[Operation], card: Card, precision: str
) -> None:
    captured, eager = (estimate(operations, card, precision, c) for c in (True, False))
    arithmetic = sum(o.flop for o in operations) / max(card.bf16, card.tf32, card.fp32)
    memory = sum(o.bytes for o in operations) / card.bandwidth
    assert max(arithmetic, memory) <= captured <= eager
    assert eager >= card.launch * len(operations)
