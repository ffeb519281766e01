from __future__ import annotations

import torch

from agent.segment import masked_mean, real_frames


def test_masked_mean() -> None:
    x, mask = torch.tensor([[1.0, 2.0], [3.0, 10.0]]), torch.tensor([[True, False], [False, True]])
    assert masked_mean(x, mask) == 5.5
    assert masked_mean(x, torch.zeros_like(mask)) == 0


def test_what_is_masked_may_be_anything() -> None:
    x = torch.tensor([1.0, torch.nan, torch.inf, 4.0], requires_grad=True)
    mean = masked_mean(x, torch.tensor([True, False, False, True]))
    mean.backward()
    assert mean == 2.5 and x.grad.tolist() == [0.5, 0, 0, 0.5]


def test_the_frame_after_the_last_step_is_real() -> None:
    mask = torch.tensor(
        [[0, 0, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0]], dtype=torch.bool
    )
    expected = [[0, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]]
    assert real_frames(mask).int().tolist() == expected
