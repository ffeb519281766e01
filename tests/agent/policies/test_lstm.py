"""The policy at many steps at once, at single ones, and with PyTorch's own LSTM cell."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agent.nets.conv import pixels
from agent.policies.lstm import CnnLstmPolicy
from tests.agent.conftest import ACTIONS, SPACES, random_segment, small_config

HIDDEN, STEPS = 16, 6


@pytest.fixture
def policy() -> CnnLstmPolicy:
    torch.manual_seed(0)
    policy = CnnLstmPolicy(small_config().policy, SPACES.frame_shape, SPACES.actions)
    torch.nn.init.normal_(policy.critic.weight)
    return policy


@pytest.fixture
def frames() -> Tensor:
    return random_segment(3, STEPS).frames


@pytest.fixture
def state() -> Tensor:
    return torch.randn(3, 2 * HIDDEN, generator=torch.Generator().manual_seed(1)).tanh()


def test_all_steps_at_once_equal_single_steps(
    policy: CnnLstmPolicy, frames: Tensor, state: Tensor
) -> None:
    output, after = policy(frames, state)
    assert output.action_logits.shape == (3, STEPS, 2, ACTIONS) and output.value.shape == (
        3,
        STEPS,
        255,
    )
    for t in range(STEPS):
        single, state = policy(frames[:, t : t + 1], state)
        torch.testing.assert_close(single.action_logits[:, 0], output.action_logits[:, t])
        torch.testing.assert_close(single.value[:, 0], output.value[:, t])
    torch.testing.assert_close(state, after)


def test_the_lstm_is_pytorchs(policy: CnnLstmPolicy, frames: Tensor, state: Tensor) -> None:
    """On features flattened in the order row, column, channel; its gradient too."""
    state.requires_grad_()
    output, after = policy(frames, state)
    h, c = state.split(HIDDEN, dim=1)
    for t in range(STEPS):
        z = policy.encoder(pixels(frames[:, t]))
        x = torch.stack(
            [z[:, k, i, j] for i in range(4) for j in range(4) for k in range(4)], dim=1
        )
        h, c = policy.lstm(x, (h, c))
        torch.testing.assert_close(output.action_logits[:, t].flatten(1), policy.actor(h))
        torch.testing.assert_close(output.value[:, t], policy.critic(h))
    expected = torch.cat([h, c], dim=1)
    torch.testing.assert_close(after, expected)
    inputs = [state, *policy.lstm.parameters(), *policy.encoder.parameters()]
    gradients = (torch.autograd.grad(x.square().sum(), inputs) for x in (after, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_remember_equals_the_state_of_forward(
    policy: CnnLstmPolicy, frames: Tensor, state: Tensor
) -> None:
    assert torch.equal(policy.burn_in(frames, state), policy(frames, state)[1])
    assert torch.equal(policy.burn_in(frames[:, :0], state), state)


def test_the_gradient_reaches_every_step(policy: CnnLstmPolicy, frames: Tensor) -> None:
    start = torch.zeros(3, 2 * HIDDEN, requires_grad=True)
    output, _ = policy(frames, start)
    output.action_logits[:, -1].square().sum().backward()
    assert start.grad.abs().min() > 0
    assert all(p.grad.any() for n, p in policy.named_parameters() if not n.startswith("critic"))


@pytest.mark.parametrize(("value", "size"), [("two_hot", 255), ("scalar", 1)])
def test_values_start_at_zero(frames: Tensor, value: str, size: int) -> None:
    config = small_config().policy
    config.value = value
    policy = CnnLstmPolicy(config, SPACES.frame_shape, SPACES.actions)
    output, _ = policy(frames, policy.initial_state(3))
    assert output.value.shape == (3, STEPS, size) and not output.value.any()
    torch.testing.assert_close(
        policy.value_code.value(output.value), torch.zeros(3, STEPS), rtol=0, atol=1e-6
    )


def test_initial_state(policy: CnnLstmPolicy) -> None:
    state = policy.initial_state(7)
    assert state.shape == (7, 2 * HIDDEN) and not state.any() and not state.requires_grad
