"""Every array of the published implementation, each a test of its own, named after the array."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from agent.actor_critic import actor_critic_loss, lambda_returns, until_first_end
from agent.agent import Agent
from agent.imagination import imagine
from agent.nets.heads import TwoHot, greedy, symlog
from agent.segment import Segment
from agent.tokenizers.delta import transitions
from agent.world_models.delta import DeltaWorld
from envs.spaces import Spaces
from tests.parity.published import DATA, described, our_config, our_state_dict

EXACT = {
    "tok/tokens", "imagine/actions", "imagine/ends", "ac/mask", "returns/mask_after_first_done",
}  # fmt: skip
ONE_GREY_LEVEL = {"tok/reconstruction": 1 / 255, "imagine/frames": 1}
# Inputs and the length of burn-in: what the arrays were computed from.
GIVEN = {
    "in/observations", "in/actions", "in/rewards", "in/ends", "in/mask_padding", "imagine/burn_in",
    "returns/in/rewards", "returns/in/values", "returns/in/ends", "returns/in/bootstrap", "twohot/in",
}  # fmt: skip
# Every NAME.npz in data/ beside a NAME.json is held against ours; more may be put there, of any
# size.
MODELS = {path.stem: path for path in sorted(DATA.glob("*.npz"))}
ARRAYS = [
    (model, name) for model, path in MODELS.items() for name in np.load(path) if name not in GIVEN
]


def formula_weights(layout: dict) -> dict[str, torch.Tensor]:
    """The parity data's weights by formula, for a published state dict's names and shapes."""
    weights = {}
    for name, (shape, dtype) in layout.items():
        if dtype != "float32":
            weights[name] = torch.zeros(shape, dtype=getattr(torch, dtype))
            continue
        generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        t = (0.05 * generator.standard_normal(shape)).astype(np.float32)
        if name.endswith("codebook"):
            t /= np.linalg.norm(t, axis=1, keepdims=True)
        if name.endswith("codewords_freqs"):
            t[:] = 1 / len(t)
        if name.endswith(".weight") and t.ndim == 1:
            t = 1 + t
        weights[name] = torch.from_numpy(np.asarray(t))
    return weights


def build_agent(description: dict) -> Agent:
    """The agent of a description (tiny.json, official_*.json), with the weights of the formula."""
    size = description["params"]["tokenizer"]["image_size"]
    spaces = Spaces(3, size, (description["num_actions"],))
    agent = Agent(our_config(description["params"]), spaces)
    agent.load_state_dict(our_state_dict(formula_weights(description["state_dict"])))
    return agent.eval()


class Guided(DeltaWorld):
    """The world; each step starts from the published frame of the step before.

    A pixel between two grey levels goes to one or the other by the order in which a CPU adds, and
    a rollout of an untrained network makes much of it.
    """

    def __init__(self, world: DeltaWorld, frames: torch.Tensor) -> None:
        super().__init__(world.tokenizer, world.dynamics)
        self.guide = iter(frames.to(torch.uint8).unbind(dim=1))
        self.dreamt: list[torch.Tensor] = []  # our own

    def step(self, *arguments):
        imagined, state = super().step(*arguments)
        self.dreamt.append(state.latent.frames)
        return imagined, state._replace(latent=state.latent._replace(frames=next(self.guide)))


@pytest.fixture(scope="module")
def computed() -> dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]]:
    """Model and array -> what was published, and what our code computes of the same inputs."""
    arrays = {}
    for model, path in MODELS.items():
        published = {name: torch.from_numpy(array) for name, array in np.load(path).items()}
        with torch.no_grad():
            for name, array in compute(described(model), published).items():
                if name in published:
                    arrays[model, name] = published[name], array
    return arrays


def compute(description: dict, p: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All arrays, of the published inputs with the published weights."""
    agent, ends = build_agent(description), p["in/ends"].bool()
    segment = Segment(
        frames=p["in/observations"],
        actions=p["in/actions"].unsqueeze(-1),
        rewards=p["in/rewards"],
        terminated=ends,
        truncated=torch.zeros_like(ends),
        mask=p["in/mask_padding"],
        batch_size=list(ends.shape),
    )
    by_step = lambda x: x.unflatten(0, (len(ends), -1))
    tokenizer, dynamics, policy = agent.tokenizer, agent.dynamics, agent.policy
    z = tokenizer.encode_map(*transitions(segment))
    quantized = tokenizer.quantizer(tokenizer.to_code(tokenizer.map_to_cells(z)))
    tokens, tokenizer_loss = by_step(quantized.tokens), tokenizer.loss(segment)
    trained = build_agent(description).tokenizer.train()
    trained.loss(segment)

    predicted = dynamics(segment.frames, segment.actions, F.pad(tokens, (0, 0, 0, 1)))
    dynamics_loss = dynamics.loss(segment, tokens)

    config = agent.config.actor_critic
    start = segment[:, : int(p["imagine/burn_in"])]
    past = start.frames[:, :-1]
    world = Guided(agent.world, p["imagine/frames"])
    rollout = imagine(world, policy, start, policy.burn_in(past), config.horizon, greedy)
    output, _ = policy(rollout.observations[:, :-1], policy.burn_in(past))
    target = agent.target_policy
    target_output, _ = target(rollout.observations, target.burn_in(past))
    values = policy.value_code.value(target_output.value)
    loss = actor_critic_loss(policy, output, values, rollout, config)
    arrays = {
        "tok/z": by_step(z),
        "tok/tokens": tokens,
        "tok/q": by_step(tokenizer.from_code(quantized.vectors)),
        "tok/embed_tokens": by_step(tokenizer.embed(quantized.tokens)),
        "tok/reconstruction": tokenizer.reconstruction(segment) / 255,
        "tok/loss/commitment_loss": tokenizer_loss["commitment"],
        "tok/loss/reconstruction_loss_l1": tokenizer_loss["reconstruction_l1"],
        "tok/loss/reconstruction_loss_l2": tokenizer_loss["reconstruction_l2"],
        "tok/loss/reconstruction_loss_l2_worst_pixel": tokenizer_loss["reconstruction_max"],
        "codebook/after": trained.quantizer.codebook,
        "codebook/freqs_after": trained.quantizer.usage,
        "codebook/entropy": trained.quantizer.usage_entropy(),
        "wm/frame_embedding": dynamics.embed_frames(segment.frames).unsqueeze(2),
        "wm/logits_latents": predicted.tokens.flatten(1, 2),
        "wm/logits_rewards": predicted.reward,
        "wm/logits_ends": predicted.end,
        "wm/loss/loss_latents": dynamics_loss["tokens"],
        "wm/loss/loss_rewards": dynamics_loss["reward"],
        "wm/loss/loss_ends": dynamics_loss["end"],
        "wm/latent_accuracy": dynamics_loss["token_accuracy"],
        "imagine/frames": torch.stack(world.dreamt, dim=1),
        "imagine/actions": rollout.actions.squeeze(-1),
        "imagine/rewards": rollout.rewards,
        "imagine/ends": rollout.ends,
        "imagine/logits_actions": output.action_logits.squeeze(-2),
        "imagine/logits_values": output.value,
        "imagine/target_logits_values": target_output.value[:, :-1],
        "imagine/bootstrap_logits": target_output.value[:, -1:],
        "ac/target_values": values[:, :-1],
        "ac/lambda_returns": lambda_returns(
            rollout.rewards, rollout.ends, values, config.discount, config.lambda_
        ),
        "ac/mask": until_first_end(rollout.ends),
        "ac/loss_actions": loss["actor"],
        "ac/loss_values": loss["critic"],
        "ac/loss_entropy": loss["entropy_bonus"],
    }
    if "twohot/in" in p:  # plain inputs, part of one model's arrays only
        rewards, ends = p["returns/in/rewards"], p["returns/in/ends"].bool()
        values = torch.cat([p["returns/in/values"], p["returns/in/bootstrap"][:, None]], dim=1)
        code = TwoHot().encode(p["twohot/in"])
        arrays |= {
            "returns/lambda_returns": lambda_returns(rewards, ends, values, 0.997, 0.95),
            "returns/mask_after_first_done": until_first_end(ends),
            "twohot/symlog": symlog(p["twohot/in"]),
            "twohot/two_hot": code,
            "twohot/roundtrip": TwoHot().value(code.log()),
        }
    return arrays


def test_no_array_is_left_out(computed):
    assert set(computed) == set(ARRAYS) and len(ARRAYS) >= 39


@pytest.mark.parametrize(("model", "name"), ARRAYS)
def test_parity(model, name, computed):
    expected, ours = computed[model, name]
    if ours.shape[-1:] == (1,):  # a critic that says its value plainly
        ours = ours.reshape(expected.shape)
    assert ours.shape == expected.shape
    if name in EXACT:
        assert torch.equal(ours, expected)
    else:
        # Values mapped back by symexp reach 5e8, where only a relative error means anything.
        relative = 1e-4 if name == "twohot/roundtrip" else 0.0
        absolute = ONE_GREY_LEVEL.get(name, 1e-4)
        torch.testing.assert_close(ours.double(), expected.double(), rtol=relative, atol=absolute)
