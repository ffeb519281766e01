from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from agent.agent import Agent
from agent.benchmark.record import Operation, Recorder
from tests.agent.conftest import SPACES, random_segment, small_config


@pytest.mark.parametrize(
    ("part", "steps", "device"), [("tokenizer", 6, "cpu"), ("dynamics", 6, "meta")]
)
def test_flop_is_that_of_the_flop_counter(part: str, steps: int, device: str) -> None:
    with torch.device(device):
        agent = Agent(small_config(), SPACES)
    segment = random_segment(2, steps).to(device)

    def update() -> None:
        getattr(agent, f"{part}_loss")(segment)["loss"].backward()

    with Recorder() as recorder:
        update()
    agent.zero_grad()
    with FlopCounterMode(display=False) as counter:
        update()
    assert sum(o.flop for o in recorder.operations) == counter.get_total_flops() > 0


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_operations_counted_by_hand(device: str) -> None:
    a, b = torch.ones(3, 4, device=device), torch.ones(4, 5, device=device)
    with Recorder() as recorder:
        c = a @ b
        c.add_(c)
        a.half()
        torch._foreach_mul_([a, b], 2.0)
        torch.add(a, 1.0, out=torch.empty_like(a))
    assert recorder.operations == [
        Operation("aten.mm", flop=2 * 3 * 4 * 5, bytes=4 * (12 + 20 + 15)),
        Operation("aten.add_", flop=0, bytes=4 * (15 + 15 + 15)),
        Operation("aten._to_copy", flop=0, bytes=4 * 12 + 2 * 12),
        Operation("aten._foreach_mul_", flop=0, bytes=4 * 2 * (12 + 20)),
        Operation("aten.add", flop=0, bytes=4 * (12 + 12)),
    ]


def test_what_launches_no_kernel_is_left_out() -> None:
    x = torch.ones(2, 3, 4)
    with Recorder() as recorder:
        x.view(6, 4).t()[1:].unsqueeze(0).expand(2, -1, -1).detach().chunk(2)
        x.permute(2, 0, 1).unbind()
        x.new_empty(3), torch.empty_like(x), torch.empty(2)
    assert recorder.operations == []
    with recorder:
        x.permute(2, 0, 1).reshape(-1)  # not a view: a copy
    assert [o.name for o in recorder.operations] == ["aten.clone"]


def test_copying_into_a_cache_touches_only_what_is_copied() -> None:
    with Recorder() as recorder:
        torch.zeros(2, 100, 8, device="meta").index_copy_(
            1, torch.empty(3, dtype=torch.int64, device="meta"), torch.empty(2, 3, 8, device="meta")
        )
    assert recorder.operations[-1] == Operation("aten.index_copy_", 0, 2 * 4 * 48 + 8 * 3)
