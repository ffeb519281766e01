"""The policy at many steps at once, at single ones, and with PyTorch's own LSTM cell."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from agent.nets.conv import pixels
from agent.policies.lstm import CnnLstmPolicy
from tests.agent.conftest import ACTIONS, POLICIES, SPACES, random_segment

HIDDEN, STEPS = 16, 6
FRAMES = random_segment(3, STEPS).frames


def make(**changes) -> CnnLstmPolicy:
    torch.manual_seed(0)
    config = replace(POLICIES["cnn_lstm"], **changes)
    return CnnLstmPolicy(config, SPACES.frame_shape, SPACES.actions)


def test_all_steps_at_once_are_single_steps_of_pytorchs_lstm() -> None:
    """On features flattened in the order row, column, channel; its gradient too."""
    policy = make()
    torch.nn.init.normal_(policy.critic.weight)
    state = torch.randn(3, 2 * HIDDEN, generator=torch.Generator().manual_seed(1)).tanh()
    state.requires_grad_()
    output, after = policy(FRAMES, state)
    assert output.action_logits.shape == (3, STEPS, 2, ACTIONS)
    assert output.value.shape == (3, STEPS, 255)
    h, c = state.split(HIDDEN, dim=1)
    single = state
    for t in range(STEPS):
        z = policy.encoder(pixels(FRAMES[:, t]))
        h, c = policy.lstm(z.permute(0, 2, 3, 1).flatten(1), (h, c))
        torch.testing.assert_close(output.action_logits[:, t].flatten(1), policy.actor(h))
        torch.testing.assert_close(output.value[:, t], policy.critic(h))
        logits, single = policy.act(FRAMES[:, t], single)
        torch.testing.assert_close(logits, output.action_logits[:, t])
    expected = torch.cat([h, c], dim=1)
    torch.testing.assert_close(after, expected)
    torch.testing.assert_close(single, expected)
    assert torch.equal(policy.burn_in(FRAMES, state), after)
    assert torch.equal(policy.burn_in(FRAMES[:, :0], state), state)
    inputs = [state, *policy.lstm.parameters(), *policy.encoder.parameters()]
    gradients = (torch.autograd.grad(x.square().sum(), inputs) for x in (after, expected))
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_gradient_reaches_every_step() -> None:
    policy, start = make(), torch.zeros(3, 2 * HIDDEN, requires_grad=True)
    output, _ = policy(FRAMES, start)
    output.action_logits[:, -1].square().sum().backward()
    assert start.grad.abs().min() > 0
    assert all(p.grad.any() for n, p in policy.named_parameters() if not n.startswith("critic"))


@pytest.mark.parametrize(("value", "size"), [("two_hot", 255), ("scalar", 1)])
def test_states_and_values_start_at_zero(value: str, size: int) -> None:
    policy = make(value=value)
    state = policy.initial_state(3)
    assert state.shape == (3, 2 * HIDDEN) and not state.any() and not state.requires_grad
    output, _ = policy(FRAMES, state)
    assert output.value.shape == (3, STEPS, size) and not output.value.any()
    assert policy.value_code.value(output.value).abs().max() < 1e-6
