"""What an update costs on a card that is not here: a model of the card."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from agent.agent import sketch_agent
from agent.benchmark.rates import line
from agent.benchmark.record import Operation, record_updates
from agent.config import TrainConfig
from agent.training.components import total_updates
from agent.training.costs import count_costs
from agent.training.progress import duration
from envs.spaces import Spaces

# Shares of the rates on the data sheet. Both and LAUNCH are round numbers, calibrated on three
# updates of the published code on an A100 (tests/agent/benchmark/test_estimate.py).
COMPUTE_EFFICIENCY = 0.4
BANDWIDTH_EFFICIENCY = 0.4  # low: bytes count once, and some kernels go over them again
LAUNCH = 45e-6  # seconds of host time that an eager operation takes
REPLAY = 2e-6  # seconds that an operation takes on the card besides its work; not calibrated

ELEMENTWISE = frozenset(
    "add sub mul div neg abs sign sgn pow exp expm1 log log1p sigmoid tanh silu gelu relu where "  # noqa: SIM905 (one a line is long)
    "clamp clamp_min round eq lt addcmul lerp _to_copy clone copy_ fill_ zeros new_zeros "
    "scalar_tensor threshold_backward silu_backward gelu_backward sigmoid_backward tanh_backward "
    "exponential_ add_ mul_".split()
)


class Card(NamedTuple):
    """A graphics card: operations a second by the data sheet (fp32: without tensor cores), bytes
    a second of its memory."""

    name: str
    bf16: float
    tf32: float
    fp32: float
    bandwidth: float


# NVIDIA's data sheets of A100 (SXM, 40 GB), H100 (SXM) and L4, and the white papers of GA102 and
# Ada, appendix A. Half of the rate where it is for sparse matrices.
CARDS = (
    Card("A100", bf16=312e12, tf32=156e12, fp32=19.5e12, bandwidth=1.555e12),
    Card("H100", bf16=989e12, tf32=494e12, fp32=67e12, bandwidth=3.35e12),
    Card("RTX 4090", bf16=165e12, tf32=82.6e12, fp32=82.6e12, bandwidth=1.008e12),
    Card("RTX 3090", bf16=71e12, tf32=35.6e12, fp32=35.6e12, bandwidth=0.936e12),
    Card("L4", bf16=121e12, tf32=60e12, fp32=30.3e12, bandwidth=0.300e12),
)


def estimate(
    operations: Iterable[Operation],
    card: Card,
    precision: str,
    launch: float = LAUNCH,
    replay: float = REPLAY,
) -> float:
    """Seconds that operations take, each by whichever of arithmetic and memory takes longer.

    Eagerly, the host issues one operation after the other, and the card works through them in
    order. Not modelled: autocast's casts as launches of their own, fused kernels, caches.

    Args:
        operations: Recorded in float32.
        precision: "bf16" (autocast), or "fp32", in which convolutions use TF32 and matrix products
            do not: PyTorch's defaults.
        launch: Seconds of the host for an operation; 0 for a CUDA graph.
        replay: Seconds of the card for an operation besides its work.
    """
    issued = finished = 0.0
    for operation in operations:
        fp32 = card.tf32 if "convolution" in operation.name else card.fp32
        arithmetic = operation.flop / (card.bf16 if precision == "bf16" else fp32)
        memory = operation.bytes / card.bandwidth
        issued += launch
        work = max(arithmetic / COMPUTE_EFFICIENCY, memory / BANDWIDTH_EFFICIENCY)
        finished = max(finished, issued) + work + replay
    return finished


def estimate_cards(config: TrainConfig, spaces: Spaces) -> dict[str, Any]:
    """Print what updates cost on each of CARDS, and return it for JSON.

    "compiled" is captured without the elementwise operations, as if each were fused into a
    neighbour: roughly a lower bound.
    """
    recordings = record_updates(config, spaces)
    cards: dict[str, Any] = {}
    print("Estimated milliseconds an update: eager/captured/captured and compiled. Not measured.")
    print(line("card", *recordings, "all, at best"))
    for card in CARDS:
        for precision in ("bf16", "fp32"):
            row, seconds = {}, 0.0
            for part, operations in recordings.items():
                fused = [o for o in operations if o.name.split(".")[1] not in ELEMENTWISE]
                row[part] = {
                    "eager": 1e3 * estimate(operations, card, precision),
                    "captured": 1e3 * estimate(operations, card, precision, launch=0.0),
                    "compiled": 1e3 * estimate(fused, card, precision, launch=0.0),
                }
                seconds += row[part]["compiled"] * total_updates(config, part) / 1e3
            times = ["/".join(f"{ms:.3g}" for ms in part.values()) for part in row.values()]
            print(line(f"{card.name} {precision}", *times, duration(seconds)))
            cards[f"{card.name} {precision}"] = row | {"hours_of_updates": seconds / 3600}
    costs = count_costs(sketch_agent(config.agent, spaces), config)
    held = {part: cost.held / 1e9 for part, cost in costs.items()}
    print("kept for the backward pass in float32, GB:", held)
    print("Assumed: 0.4 of the card's peaks, and launches. Expect a factor of 1.5 either way.")
    return {"cards": cards, "activations_gb": held}
