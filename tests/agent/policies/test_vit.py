"""DART's policy against PyTorch's own encoder; what positions, memory and dropout do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from agent.policies.vit import VitPolicy
from envs.errors import BadInput
from tests.agent.conftest import POLICIES, SPACES

CODES = torch.randn(3, 5, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
STATE = torch.randn(3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def make(**changes) -> VitPolicy:
    torch.manual_seed(0)
    policy = VitPolicy(replace(POLICIES["vit"], **changes), (4, 8), SPACES.actions).double().eval()
    nn.init.normal_(policy.critic.weight)
    return policy


def brute_force(policy: VitPolicy, codes: Tensor, state: Tensor) -> Tensor:
    """One step by PyTorch's own pre-LN encoder, in float64."""
    c, cls = policy.config, policy.cls.expand(len(codes), 1, -1)
    layer = nn.TransformerEncoderLayer(
        c.width, c.heads, c.mlp, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    x = torch.cat([cls, policy.project(codes), state[:, None]], dim=1) + policy.positions
    for block in policy.blocks:
        weights = {
            "self_attn.in_proj_weight": block.attention.query_key_value.weight, "self_attn.in_proj_bias": block.attention.query_key_value.bias,
            "self_attn.out_proj.weight": block.attention.out.weight, "self_attn.out_proj.bias": block.attention.out.bias,
            "linear1.weight": block.expand.weight, "linear1.bias": block.expand.bias,
            "linear2.weight": block.contract.weight, "linear2.bias": block.contract.bias,
            **{f"norm{i}.{n}": p for i, norm in ((1, block.norm1), (2, block.norm2)) for n, p in norm.named_parameters()},
        }  # fmt: skip
        layer.load_state_dict(weights)
        x = layer.double().train()(x)  # in evaluation it would take a fused path
    return policy.norm(x[:, 0])


@torch.no_grad()
def test_against_pytorchs_encoder() -> None:
    policy, state = make(), STATE
    output, after = policy(CODES, state)
    for t in range(5):
        state = brute_force(policy, CODES[:, t], state)
        torch.testing.assert_close(output.value[:, t], policy.critic(state))
        torch.testing.assert_close(output.action_logits[:, t].flatten(1), policy.actor(state))
    torch.testing.assert_close(after, state)


def test_the_gradient_flows_through_the_memory() -> None:
    codes, state = CODES.clone().requires_grad_(), STATE.clone().requires_grad_()
    make()(codes, state)[0].value[:, -1].sum().backward()
    assert (codes.grad.abs().amax(dim=(0, 2, 3)) > 0).all() and state.grad.abs().min() > 0


@torch.no_grad()
@pytest.mark.parametrize("there", [True, False])
def test_what_positions_and_memory_are_for(there: bool) -> None:
    """Without positions the order of codes says nothing; without memory, the past."""
    shuffled, other_past = CODES[:, :, [2, 0, 3, 1]], CODES.clone()
    other_past[:, :4] *= -1
    for part, other in (("positions", shuffled), ("memory", other_past)):
        policy = make(**{part: there})
        same = torch.allclose(policy(CODES, STATE)[1], policy(other, STATE)[1])
        assert same != there


def test_dropout_is_for_what_it_learns_from() -> None:
    """In training it plays without; only forward() drops."""
    policy = make().train()
    assert not torch.equal(policy(CODES, STATE)[1], policy(CODES, STATE)[1])
    after = policy.burn_in(CODES, STATE)
    assert torch.equal(policy.burn_in(CODES, STATE), after)
    assert torch.equal(policy.eval()(CODES, STATE)[1], after)
    played = [policy.train().act(CODES[:, 0], STATE)[0] for _ in range(2)]
    assert torch.equal(*played)


def test_misfits_are_refused() -> None:
    with pytest.raises(BadInput, match="width=16 .* heads=3"):
        make(heads=3)
