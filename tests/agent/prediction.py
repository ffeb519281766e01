"""What any dynamics' loss over tokens must come to, by a loop over real steps."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from agent.nets.heads import symlog
from agent.segment import Segment
from agent.world_models.base import DynamicsOutput
from tests.agent.conftest import random_segment

WEIGHTS = {"tokens_weight": 0.5, "reward_weight": 3.0, "end_weight": 0.1}


def padded_segment(steps: int) -> Segment:
    """Row 0 starts after two padded steps, row 1 ends before two; rewards of all sizes."""
    segment = random_segment(3, steps)
    segment.mask[:] = True
    segment.mask[0, :2] = False
    segment.mask[1, 3:] = False
    segment.terminated[:] = False
    segment.terminated[1, 2] = True
    segment.rewards[:] = torch.linspace(-3, 40, 3 * steps).view(3, steps)
    return segment


def expected_loss(
    output: DynamicsOutput, segment: Segment, targets: Tensor, reward: str
) -> dict[str, float]:
    """Of a `padded_segment` of five steps, with WEIGHTS. targets: [B, T - 1, K]"""
    errors, correct, reward_errors, end_errors = [], [], [], []
    rows, steps = segment.mask.shape
    for b, t in product(range(rows), range(steps)):
        if not segment.mask[b, t]:
            continue
        end_errors.append(
            -output.end[b, t].double().log_softmax(-1)[int(segment.terminated[b, t])].item()
        )
        log_p, r = output.reward[b, t].double().log_softmax(-1), segment.rewards[b, t].double()
        if reward == "sign":
            reward_errors.append(-log_p[int(r.sign()) + 1].item())
        else:
            place = (symlog(r).item() + 20) / (40 / 254)
            low = int(place)
            reward_errors.append(
                -((low + 1 - place) * log_p[low] + (place - low) * log_p[low + 1]).item()
            )
        if t < steps - 1:
            for k, target in enumerate(targets[b, t]):
                log_p = output.tokens[b, t, k].double().log_softmax(-1)
                errors.append(-log_p[target].item())
                correct.append(log_p.argmax() == target)
    assert len(errors) == targets.shape[-1] * (2 + 3 + 4)
    mean = lambda terms: float(sum(terms)) / len(terms)
    expected = {
        "tokens": 0.5 * mean(errors),
        "reward": 3.0 * mean(reward_errors),
        "end": 0.1 * mean(end_errors),
    }
    return expected | {"loss": sum(expected.values()), "token_accuracy": mean(correct)}
