"""Every array of the published implementation, each a test of its own, named after the array."""

from __future__ import annotations

import pytest
import torch

from agent.actor_critic import lambda_returns, until_first_end
from agent.nets.heads import TwoHot, symlog

EXACT = {
    "tok/tokens", "imagine/actions", "imagine/ends", "ac/mask", "returns/mask_after_first_done",
}  # fmt: skip
ONE_GREY_LEVEL = {"tok/reconstruction": 1 / 255, "imagine/frames": 1}
# Inputs and the length of burn-in: what the arrays were computed from.
GIVEN = {
    "in/observations", "in/actions", "in/rewards", "in/ends", "in/mask_padding", "imagine/burn_in",
    "returns/in/rewards", "returns/in/values", "returns/in/ends", "returns/in/bootstrap", "twohot/in",
}  # fmt: skip


def returns_on_plain_inputs(p):
    values = torch.cat([p["returns/in/values"], p["returns/in/bootstrap"][:, None]], dim=1)
    return lambda_returns(p["returns/in/rewards"], p["returns/in/ends"].bool(), values, 0.997, 0.95)


def returns_on_rollout(o):
    c, t = o.agent.config.actor_critic, o.trajectory
    return lambda_returns(t.rewards, t.ends, o.target_values, c.discount, c.lambda_)


COMPUTED = {
    "tok/z": lambda o, p: o.z,
    "tok/tokens": lambda o, p: o.tokens,
    "tok/q": lambda o, p: o.q,
    "tok/embed_tokens": lambda o, p: o.embedded,
    "tok/reconstruction": lambda o, p: o.reconstruction / 255,
    "tok/loss/commitment_loss": lambda o, p: o.tokenizer_loss["commitment"],
    "tok/loss/reconstruction_loss_l1": lambda o, p: o.tokenizer_loss["reconstruction_l1"],
    "tok/loss/reconstruction_loss_l2": lambda o, p: o.tokenizer_loss["reconstruction_l2"],
    "tok/loss/reconstruction_loss_l2_worst_pixel": lambda o, p: o.tokenizer_loss[
        "reconstruction_max"
    ],
    "codebook/after": lambda o, p: o.quantizer_after.codebook,
    "codebook/freqs_after": lambda o, p: o.quantizer_after.usage,
    "codebook/entropy": lambda o, p: o.quantizer_after.usage_entropy(),
    "wm/frame_embedding": lambda o, p: o.frame_embedding.unsqueeze(2),
    "wm/logits_latents": lambda o, p: o.dynamics.tokens.flatten(1, 2),
    "wm/logits_rewards": lambda o, p: o.dynamics.reward,
    "wm/logits_ends": lambda o, p: o.dynamics.end,
    "wm/loss/loss_latents": lambda o, p: o.dynamics_loss["tokens"],
    "wm/loss/loss_rewards": lambda o, p: o.dynamics_loss["reward"],
    "wm/loss/loss_ends": lambda o, p: o.dynamics_loss["end"],
    "wm/latent_accuracy": lambda o, p: o.dynamics_loss["token_accuracy"],
    "imagine/frames": lambda o, p: o.imagined_frames,
    "imagine/actions": lambda o, p: o.trajectory.actions.squeeze(-1),
    "imagine/rewards": lambda o, p: o.trajectory.rewards,
    "imagine/ends": lambda o, p: o.trajectory.ends,
    "imagine/logits_actions": lambda o, p: o.output.action_logits.squeeze(-2),
    "imagine/logits_values": lambda o, p: o.output.value,
    "imagine/target_logits_values": lambda o, p: o.target_output.value[:, :-1],
    "imagine/bootstrap_logits": lambda o, p: o.target_output.value[:, -1:],
    "returns/lambda_returns": lambda o, p: returns_on_plain_inputs(p),
    "returns/mask_after_first_done": lambda o, p: until_first_end(p["returns/in/ends"].bool()),
    "twohot/symlog": lambda o, p: symlog(p["twohot/in"]),
    "twohot/two_hot": lambda o, p: TwoHot().encode(p["twohot/in"]),
    "twohot/roundtrip": lambda o, p: TwoHot().value(TwoHot().encode(p["twohot/in"]).log()),
    "ac/target_values": lambda o, p: o.target_values[:, :-1],
    "ac/lambda_returns": lambda o, p: returns_on_rollout(o),
    "ac/mask": lambda o, p: until_first_end(o.trajectory.ends),
    "ac/loss_actions": lambda o, p: o.actor_critic_loss["actor"],
    "ac/loss_values": lambda o, p: o.actor_critic_loss["critic"],
    "ac/loss_entropy": lambda o, p: o.actor_critic_loss["entropy_bonus"],
}


def test_no_array_is_left_out(published):
    assert set(published) <= GIVEN | set(COMPUTED)
    assert {name for name in COMPUTED if not name.startswith(("returns/", "twohot/"))} <= set(
        published
    )


@pytest.mark.parametrize("name", COMPUTED)
def test_parity(name, ours, published):
    if name not in published:
        pytest.skip("the plain inputs are part of one model's arrays only")
    expected, computed = published[name], COMPUTED[name](ours, published)
    if computed.shape[-1:] == (1,):  # a critic that says its value plainly
        computed = computed.reshape(expected.shape)
    assert computed.shape == expected.shape
    if name in EXACT:
        assert torch.equal(computed, expected)
    else:
        # Values mapped back by symexp reach 5e8, where only a relative error means anything.
        tolerance = {
            "rtol": 1e-4 if name == "twohot/roundtrip" else 0.0,
            "atol": ONE_GREY_LEVEL.get(name, 1e-4),
        }
        torch.testing.assert_close(computed.double(), expected.double(), **tolerance)
