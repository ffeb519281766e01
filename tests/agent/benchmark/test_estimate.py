from __future__ import annotations

import pytest

from agent.benchmark.estimate import CARDS, LAUNCH, Card, estimate
from agent.benchmark.record import Operation, record_updates
from agent.config import TrainConfig
from envs.spaces import Spaces

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
        launch = LAUNCH * launches / len(recordings[part])  # the host's, as of the published code
        estimated = estimate(recordings[part], card, precision, launch)
        assert estimated == pytest.approx(seconds, rel=0.08), part


def test_estimate_by_hand() -> None:
    card = Card("toy", bf16=10.0, tf32=5.0, fp32=1.0, bandwidth=1e9)
    product, convolution = Operation("aten.mm", 400, 0), Operation("aten.convolution", 400, 0)
    nothing = Operation("aten.add", 0, 0)
    # At the efficiency of 0.4: 100 s and 1000 s.
    assert estimate([product], card, "bf16", launch=0, replay=0) == pytest.approx(100)
    assert estimate([product], card, "fp32", launch=0, replay=0) == pytest.approx(1000)
    assert estimate([convolution], card, "fp32", launch=0, replay=0) == pytest.approx(200)
    # The host is ahead of a card that is busy, and the card waits for a host that is slow.
    eager = {"launch": 100, "replay": 0}
    assert estimate([product] * 3, card, "fp32", **eager) == pytest.approx(100 + 3 * 1000)
    assert estimate([nothing] * 3, card, "fp32", **eager) == pytest.approx(300)
