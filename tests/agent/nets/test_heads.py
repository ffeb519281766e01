"""Two-hot against arithmetic in float64, Gumbel-max against the softmax."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from agent.nets.heads import Scalar, Sign, TwoHot, greedy, gumbel_max, symexp, symlog

CODE = TwoHot()
STEP = 40 / 254
ROUNDING = 2e-5  # float32 near symlog 20, in units of the distance between buckets


def brute_force(x: float) -> np.ndarray:
    """The two-hot code of x, bucket by bucket."""
    y = math.copysign(math.log1p(abs(x)), x)
    place = min(max((y + 20) / STEP, 0), 254)
    code = np.zeros(255)
    lower = min(int(place), 253)
    code[lower], code[lower + 1] = 1 - (place - lower), place - lower
    return code


@settings(max_examples=150, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.booleans())
@example(3.4028234663852886e38, False)
@example(-4.8e8, False)
@example(4.8e8, False)
@example(1.401298464324817e-45, False)
@example(-0.0, False)
@example(-1e300, True)
@example(5e-324, True)
def test_two_hot_of_any_number(x: float, double: bool) -> None:
    """Against the brute force, and back."""
    if not double:
        x = min(max(x, -3.4028234663852886e38), 3.4028234663852886e38)
    code = CODE.encode(torch.tensor(x, dtype=torch.float64 if double else torch.float32))
    assert code.shape == (255,) and code.dtype == torch.float32
    assert code.min() >= 0 and abs(code.sum().item() - 1) < 1e-4
    lit = (code > ROUNDING).nonzero().flatten().tolist()
    assert len(lit) == 1 or (len(lit) == 2 and lit[1] == lit[0] + 1)
    np.testing.assert_allclose(code.numpy(), brute_force(x), atol=ROUNDING)
    limit = math.expm1(20)
    if abs(x) > limit:
        assert lit == ([254] if x > 0 else [0])
    back = CODE.value(code.log()).item()
    assert back == pytest.approx(min(max(x, -limit), limit), rel=2e-5, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.floats(-1e300, 1e300))
@example(-1e-12)
def test_symlog_and_symexp_are_inverse(x: float) -> None:
    y = symlog(torch.tensor(x, dtype=torch.float64))
    assert y.item() == pytest.approx(math.copysign(math.log1p(abs(x)), x), rel=1e-14, abs=1e-300)
    assert symexp(y).item() == pytest.approx(x, rel=1e-12, abs=1e-300)


def test_two_hot_loss_is_the_cross_entropy() -> None:
    x = torch.tensor([[0.0, 1.0, -3.5], [1e6, -1e12, 0.2]])
    logits = 3 * torch.randn(2, 3, 255, generator=torch.Generator().manual_seed(0))
    target = torch.from_numpy(np.stack([brute_force(v) for v in x.flatten().tolist()]))
    expected = F.cross_entropy(logits.flatten(0, 1).double(), target, reduction="none").view(2, 3)
    torch.testing.assert_close(CODE.loss(logits, x).double(), expected, rtol=1e-4, atol=1e-4)


def test_two_hot_reward_is_the_mean_whatever_the_selection() -> None:
    logits = torch.full((2, 255), -math.inf)
    logits[:, [127, 254]] = torch.tensor([[0.0, -math.inf], [math.log(0.9), math.log(0.1)]])
    expected = torch.tensor([0.0, math.expm1(2)])
    for select in (greedy, gumbel_max):
        torch.testing.assert_close(CODE.sample(logits, select), expected, rtol=1e-5, atol=1e-6)


def test_sign() -> None:
    x = torch.tensor([-7.0, -1.0, -0.01, 0.0, 0.5, 1.0, 30.0])
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    expected = F.cross_entropy(logits, torch.tensor([0, 0, 0, 1, 2, 2, 2]), reduction="none")
    torch.testing.assert_close(Sign().loss(logits, x), expected)
    rewards = Sign().sample(torch.eye(3), greedy)
    assert rewards.tolist() == [-1, 0, 1] and rewards.dtype == torch.float32


def test_scalar() -> None:
    output, x = torch.tensor([[1.0], [-2.0]]), torch.tensor([4.0, -2.5])
    assert Scalar().value(output).tolist() == [1, -2]
    assert Scalar().loss(output, x).tolist() == [9, 0.25]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gumbel_max_draws_the_softmax(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = torch.tensor(
        [[2.0, 0.0, -1.0, -3.0, 1.0], [-5.0, 100.0, 101.0, 99.0, 98.0]], dtype=dtype
    )
    drawn = gumbel_max(logits.expand(20_000, 2, 5))
    assert drawn.shape == (20_000, 2) and drawn.dtype == torch.int64
    for row, probabilities in enumerate(logits.double().softmax(dim=-1).numpy()):
        counts = drawn[:, row].bincount(minlength=5).numpy()
        likely = 20_000 * probabilities > 1
        assert counts[~likely].sum() < 5
        expected = probabilities[likely] / probabilities[likely].sum() * counts[likely].sum()
        assert chisquare(counts[likely], expected).pvalue > 0.01


def test_impossible_classes_are_never_drawn() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([-math.inf, -1000.0, -math.inf, -1003.0, -math.inf])
    assert set(gumbel_max(logits.expand(20_000, 5)).tolist()) == {1, 3}
