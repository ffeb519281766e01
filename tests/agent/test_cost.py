from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from agent.agent import Agent
from agent.cost import CARDS, PUBLISHED, Card, Held, Operation, Recorder
from agent.cost import check_against_published, compiled_launches, estimate
from tests.agent.conftest import SPACES, random_segment, small_config

OPERATIONS = st.lists(
    st.builds(
        Operation,
        name=st.sampled_from(["aten.convolution", "aten.mm", "aten.add"]),
        flop=st.integers(0, 10**12),
        bytes=st.integers(0, 10**10),
    ),
    max_size=20,
)
CARD = st.sampled_from(list(CARDS.values()))
PRECISION = st.sampled_from(["bf16", "fp32"])


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("part", "steps"), [("tokenizer", 6), ("dynamics", 6), ("policy", 3)])
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
    assert recorder.flop == counter.get_total_flops() > 0
    assert not {"aten.view", "aten.t", "aten.detach", "aten.expand"} & {o.name for o in recorder.operations}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_is_kept_for_the_backward_pass(device: str) -> None:
    """Each memory once, the parameters aside, and nothing of what has no gradient."""
    layer = torch.nn.Linear(4, 5, device=device)
    x = torch.ones(3, 4, device=device, requires_grad=True)
    with Held() as held:
        y = layer(x).exp()  # keeps x, and its own result
        y.view(15).square()  # keeps the same result, by another view
        with torch.no_grad():
            layer(x).exp()
    assert held.bytes == 4 * (12 + 15)


def test_counting_what_is_kept_keeps_nothing() -> None:
    """A graph that stays alive holds its memory, and the stream on which it was made, which breaks a capture."""
    weight = torch.ones(3, requires_grad=True)
    with Held():
        y = weight.exp()
    y.grad_fn.next_functions[0][0].metadata["here"] = True  # the one node of this weight, as long as a graph holds it
    del y
    assert "here" not in weight.exp().grad_fn.next_functions[0][0].metadata


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
    assert len(recorder) == 5
    assert recorder.bytes == sum(o.bytes for o in recorder.operations)


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


def test_estimate_by_hand() -> None:
    card = Card("toy", bf16=10.0, tf32=5.0, fp32=1.0, bandwidth=1e9, launch=100.0, replay=0.0)
    product, convolution = Operation("aten.mm", 400, 0), Operation("aten.convolution", 400, 0)
    # At the efficiency of 0.4: 100 s and 1000 s.
    assert estimate([product], card, "bf16", captured=True) == pytest.approx(100)
    assert estimate([product], card, "fp32", captured=True) == pytest.approx(1000)
    assert estimate([convolution], card, "fp32", captured=True) == pytest.approx(200)
    # The host is ahead of a card that is busy, and the card waits for a host that is slow.
    assert estimate([product] * 3, card, "fp32", captured=False) == pytest.approx(100 + 3 * 1000)
    assert estimate([Operation("aten.add", 0, 0)] * 3, card, "fp32", captured=False) == pytest.approx(300)


@given(OPERATIONS, CARD, PRECISION)
def test_captured_is_never_slower_and_neither_beats_the_data_sheet(
    operations: list[Operation], card: Card, precision: str
) -> None:
    captured, eager = (estimate(operations, card, precision, captured) for captured in (True, False))
    arithmetic = sum(o.flop for o in operations) / max(card.bf16, card.tf32, card.fp32)
    memory = sum(o.bytes for o in operations) / card.bandwidth
    assert max(arithmetic, memory) <= captured <= eager
    assert eager >= card.launch * len(operations)


@given(OPERATIONS, st.integers(0, 20), CARD, PRECISION, st.booleans())
def test_more_launches_are_never_faster(
    operations: list[Operation], at: int, card: Card, precision: str, captured: bool
) -> None:
    more = [*operations[:at], Operation("aten.add", 0, 0), *operations[at:]]
    assert estimate(more, card, precision, captured) >= estimate(operations, card, precision, captured)


@given(OPERATIONS.filter(len), CARD, PRECISION)
def test_a_slower_host_is_never_faster(operations: list[Operation], card: Card, precision: str) -> None:
    slower = dataclasses.replace(card, launch=2 * card.launch)
    assert estimate(operations, slower, precision, False) >= estimate(operations, card, precision, False)


@pytest.mark.parametrize("part", list(PUBLISHED))
def test_published_launches_set_the_hosts_time(part: str) -> None:
    estimated, measured = check_against_published({part: [Operation("aten.add", 0, 0)] * 10})[part]
    assert estimated == pytest.approx(CARDS["A100"].launch * PUBLISHED[part].launches, rel=0.01)
    assert measured == PUBLISHED[part].seconds


def test_launches_of_generated_code() -> None:
    """A body counts as often as it is called; what only makes or views memory does not."""
    source = """
cpp_fused_add_0 = async_compile.cpp("...")
def body(args):
    buf0 = empty_strided_cpu((2,), (1,), torch.float32)
    cpp_fused_add_0(args, buf0)
    extern_kernels.mm(buf0, buf0, out=buf0)
    return (reinterpret_tensor(buf0, (2,), (1,), 0),)
class Runner:
    def call(self, args):
        a = body(args)
        b = body(a)
        assert_size_stride(b, (2,), (1,), 'torch.ops.aten.convolution.default')
        c = torch.ops.aten.sort.default(b)
        triton_poi_fused_1.run(c, stream=stream0)
        return c
"""
    assert compiled_launches(source) == 2 * 2 + 2
    assert compiled_launches("x = 1") == 0
