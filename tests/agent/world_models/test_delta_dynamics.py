"""Dynamics: who sees what, what the loss counts. World: one step at a time is one pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agent.agent import Agent
from agent.config.world_models import DeltaDynamicsConfig
from agent.nets.heads import gumbel_max
from agent.segment import Segment
from agent.world_models.base import WorldState
from agent.world_models.delta import DeltaDynamics
from envs.errors import BadInput
from tests.agent.conftest import ACTIONS, SPACES, config_of, random_segment, small_config
from tests.agent.prediction import WEIGHTS, expected_loss, padded_segment

CODES, K, STEPS = 16, 4, 5
BLOCK = 2 + K


def make_agent(**changes) -> Agent:
    """In evaluation mode, with weights large enough that every input is felt."""
    torch.manual_seed(0)
    config = small_config()
    if changes.keys() & {"latent", "pushforward_from"}:
        config = config_of("delta_light", "cnn_lstm")
    for name, value in changes.items():
        setattr(config.dynamics, name, value)
    agent = Agent(config, SPACES).eval().requires_grad_(False)
    for p in agent.dynamics.parameters():
        if p.ndim == 2:
            p.normal_(std=0.2)
    return agent


def random_tokens(batch: int, steps: int) -> Tensor:
    return torch.randint(CODES, (batch, steps, K), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def agent() -> Agent:
    return make_agent()


@pytest.fixture(scope="module")
def dynamics(agent: Agent) -> DeltaDynamics:
    return agent.dynamics


def test_shapes_and_the_last_steps_tokens_are_optional(dynamics: DeltaDynamics) -> None:
    segment, tokens = random_segment(3, STEPS), random_tokens(3, STEPS)
    full = dynamics(segment.frames, segment.actions, tokens)
    short = dynamics(segment.frames, segment.actions, tokens[:, :-1])
    assert full.tokens.shape == (3, STEPS, K, CODES) and short.tokens.shape == (
        3,
        STEPS - 1,
        K,
        CODES,
    )
    assert full.reward.shape == short.reward.shape == (3, STEPS, 255)
    assert full.end.shape == short.end.shape == (3, STEPS, 2)
    torch.testing.assert_close(short.tokens, full.tokens[:, :-1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(short.reward, full.reward, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(short.end, full.end, rtol=1e-5, atol=1e-5)


INPUTS = [
    ("frame", None),
    ("action", None),
    *(("token", k) for k in range(K)),
]  # their order within a step


@pytest.mark.parametrize(("kind", "k"), INPUTS)
@pytest.mark.parametrize("t", range(STEPS))
def test_causality(dynamics: DeltaDynamics, t: int, kind: str, k: int | None) -> None:
    """An input is felt by all predictions made at it or after it, and by none made before."""
    segment, tokens = random_segment(1, STEPS), random_tokens(1, STEPS)
    before = dynamics(segment.frames, segment.actions, tokens)
    if kind == "frame":
        segment.frames[:, t] = 255 - segment.frames[:, t]
    elif kind == "action":
        segment.actions[:, t] = (segment.actions[:, t] + 1) % ACTIONS
    else:
        tokens[:, t, k] = (tokens[:, t, k] + 1) % CODES
    after = dynamics(segment.frames, segment.actions, tokens)
    changed = BLOCK * t + INPUTS.index((kind, k))
    for step in range(STEPS):
        at_action = BLOCK * step + 1  # where reward, end and Δ1 are predicted; Δ2 is at Δ1, ...
        felt = [(after.reward - before.reward, at_action), (after.end - before.end, at_action)]
        felt = [(difference[0, step], place) for difference, place in felt]
        felt += [((after.tokens - before.tokens)[0, step, n], at_action + n) for n in range(K)]
        for difference, place in felt:
            assert difference.abs().max() > 1e-6 if place >= changed else not difference.any()


@pytest.mark.parametrize("reward", ["two_hot", "sign"])
def test_the_loss_against_a_loop_over_real_steps(reward: str) -> None:
    dynamics = make_agent(reward=reward, **WEIGHTS).dynamics
    segment, tokens = padded_segment(STEPS), random_tokens(3, STEPS - 1)
    output = dynamics(segment.frames, segment.actions, tokens)
    expected = expected_loss(output, segment, tokens, reward)
    losses = dynamics.loss(segment, tokens)
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(
        expected, rel=1e-4
    )


def test_what_is_padded_is_no_target(dynamics: DeltaDynamics) -> None:
    segment, tokens = padded_segment(STEPS), random_tokens(3, STEPS - 1)
    before = dynamics.loss(segment, tokens)
    segment.rewards[~segment.mask] = 9.0
    segment.terminated[~segment.mask] = True
    # Behind the last observation nothing is read by a real step: the transformer is causal.
    segment.frames[1, 4], segment.actions[1, 3:], tokens[1, 3] = 7, 2, 5
    assert dynamics.loss(segment, tokens) == before


def test_padding_before_an_episode_is_attended_to(dynamics: DeltaDynamics) -> None:
    """As in imagination, whose burn-in may start with it: no mask, and positions as they are."""
    segment, tokens = padded_segment(STEPS), random_tokens(3, STEPS - 1)
    before = dynamics.loss(segment, tokens)
    segment.frames[0, 0] = 255 - segment.frames[0, 0]
    after = dynamics.loss(segment, tokens)
    assert all(after[name] != before[name] for name in ("tokens", "reward", "end"))


def test_the_end_is_terminated_and_not_truncated(dynamics: DeltaDynamics) -> None:
    segment, tokens = padded_segment(STEPS), random_tokens(3, STEPS - 1)
    before = dynamics.loss(segment, tokens)
    segment.truncated[:] = True
    assert dynamics.loss(segment, tokens) == before
    segment.terminated[2, 4] = True
    assert dynamics.loss(segment, tokens)["end"] != before["end"]


KINDS = [{}, {"latent": 4}]  # the published dynamics, and delta_light


@pytest.mark.parametrize("kind", [*KINDS, {"pushforward_from": 2}])
def test_every_parameter_learns_and_the_tokenizer_does_not(kind: dict) -> None:
    agent = make_agent(**kind).requires_grad_(True)
    agent.dynamics_loss(random_segment(4, STEPS))["loss"].backward()
    assert [
        name for name, p in agent.dynamics.named_parameters() if p.grad is None or not p.grad.any()
    ] == []
    assert all(p.grad is None for p in agent.tokenizer.parameters())


def test_misfits_are_refused(agent: Agent) -> None:
    config = small_config().dynamics
    config.transformer.width = 12
    with pytest.raises(BadInput, match="width 12 is less than the 16 cells"):
        DeltaDynamics(config, SPACES, agent.tokenizer)
    with pytest.raises(BadInput, match="agent.dynamics.latent=1 was given; give 4 or more"):
        make_agent(latent=1)
    with pytest.raises(BadInput, match="'scalar' .* two_hot, sign"):
        DeltaDynamics(DeltaDynamicsConfig(reward="scalar"), SPACES, agent.tokenizer)


class Forced:
    """A `select` that returns given tokens and never ends, and keeps the logits it saw."""

    def __init__(self, tokens: Tensor) -> None:
        """tokens: [B, H, K]"""
        self.tokens = iter(tokens.flatten(1).unbind(dim=1))
        self.token_logits: list[Tensor] = []

    def __call__(self, logits: Tensor) -> Tensor:
        if logits.shape[-1] == CODES:
            self.token_logits.append(logits)
            return next(self.tokens)
        assert logits.shape[-1] == 2
        self.end_logits = logits
        return torch.zeros(logits.shape[:-1], dtype=torch.int64)


def run(agent: Agent, state: WorldState, actions: Tensor, tokens: Tensor):
    """Step under actions [B, H, F] and tokens [B, H, K].

    Returns:
        Frames, token logits, end logits and rewards, each [B, H, ...]; the last state.
    """
    forced, imagined, frames = Forced(tokens), [], []
    for action in actions.unbind(dim=1):
        step, state = agent.world.step(state, action, forced)
        imagined.append(step)
        frames.append(state.latent.frames)
    rewards, _ = agent.world.outcome(
        torch.stack([i.action_features for i in imagined], dim=1), forced
    )
    return (
        torch.stack(frames, dim=1),
        torch.stack(forced.token_logits, dim=1).unflatten(1, (-1, K)),
        forced.end_logits,
        rewards,
        state,
    )


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", [{"i_token": False}, *KINDS])
@pytest.mark.parametrize(("past", "steps"), [(1, 8), (3, 6), (8, 1)])
def test_stepping_equals_the_forward_pass(past: int, steps: int, change: dict) -> None:
    """Up to the whole context of 8 steps: the last of them still remembers the first frame."""
    agent = make_agent(**change)
    segment = random_segment(2, past + 1)[:, :past]
    actions = torch.randint(ACTIONS, (2, steps, 2), generator=torch.Generator().manual_seed(1))
    tokens = random_tokens(2, steps)
    frames, token_logits, end_logits, rewards, _ = run(
        agent, agent.world.start(segment), actions, tokens
    )

    seen = (
        segment.frames[:, :-1].flatten(0, 1),
        segment.actions[:, :-1].flatten(0, 1),
        segment.frames[:, 1:].flatten(0, 1),
    )
    past_tokens = (
        agent.tokenizer.encode(*seen).unflatten(0, (2, past - 1)) if past > 1 else tokens[:, :0]
    )
    every = torch.cat([segment.frames, frames[:, :-1]], dim=1)
    output = agent.dynamics(
        agent.world.dynamics_frames(every),
        torch.cat([segment.actions[:, :-1], actions], dim=1),
        torch.cat([past_tokens, tokens], dim=1),
    )
    assert token_logits.std() > 0.1
    assert close(token_logits, output.tokens[:, past - 1 :])
    assert close(end_logits, output.end[:, past - 1 :])
    assert close(rewards, agent.dynamics.reward_code.value(output.reward[:, past - 1 :]))
    newest = segment.frames[:, -1]
    for t in range(steps):
        newest = agent.tokenizer.decode(newest, actions[:, t], tokens[:, t])
        assert torch.equal(frames[:, t], newest)


def test_shared_features_are_the_tokenizers_and_what_a_policy_reads_of_codes() -> None:
    """A code for each cell of the map; an imagined frame has those of the same real frame."""
    agent = make_agent(latent=4)
    segment, actions = (
        random_segment(2, 3),
        torch.randint(ACTIONS, (2, 4, 2), generator=torch.Generator().manual_seed(1)),
    )
    state = agent.world.start(segment)
    for action in actions.unbind(dim=1):
        _, state = agent.world.step(state, action)
        frames = agent.world.frames(state.latent)
        assert close(state.latent.features, agent.tokenizer.frame_features(frames))
        codes = agent.world.codes(state.latent)
        assert codes.shape == (2, *agent.world.code_shape) and close(
            codes, agent.world.codes_of(frames)
        )
        assert close(codes[:, 5], state.latent.features.flatten(2)[:, :, 5])


def pushed(agent: Agent, segment: Segment, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The frames that the dynamics learns from, and their features."""
    return agent.tokenizer.pushforward(segment, tokens, agent.dynamics.config.pushforward_from)


@pytest.mark.parametrize("real", [1, 3])
def test_decoded_frames_are_learned_from_as_a_dream_shows_them(real: int) -> None:
    """What it predicts there is what it predicts in the dream of what happened."""
    agent, steps = make_agent(pushforward_from=real), 6
    segment = random_segment(3, steps)[1:2]
    tokens = agent.tokenizer.tokens_of(segment)
    output = agent.dynamics(pushed(agent, segment, tokens)[1], segment.actions, tokens)
    dreamt = run(
        agent,
        agent.world.start(segment[:, :real]),
        segment.actions[:, real - 1 : -1],
        tokens[:, real - 1 :],
    )
    _, token_logits, end_logits, rewards, _ = dreamt
    assert close(token_logits, output.tokens[:, real - 1 :])
    assert close(end_logits, output.end[:, real - 1 : -1])
    assert close(rewards, agent.dynamics.reward_code.value(output.reward[:, real - 1 : -1]))


def test_an_episode_that_begins_later_is_decoded_from_its_first_frame() -> None:
    """No frame comes from the padding before it; a segment that is too short is all real."""
    agent = make_agent(pushforward_from=1)
    segment = random_segment(2, 4)
    segment.mask[0] = torch.tensor([False, False, True, True])
    tokens = agent.tokenizer.tokens_of(segment)
    seen, _ = pushed(agent, segment, tokens)
    assert torch.equal(seen[0, 2], segment.frames[0, 2])
    assert torch.equal(
        seen[0, 3],
        agent.tokenizer.decode(segment.frames[:1, 2], segment.actions[:1, 2], tokens[:1, 2])[0],
    )
    assert torch.equal(pushed(agent, segment[:, :1], tokens[:, :0])[0], segment.frames[:, :1])
    agent.dynamics.config.pushforward_from = 4
    assert torch.equal(pushed(agent, segment, tokens)[0], segment.frames)


def test_a_full_context_is_dropped_and_goes_on_from_the_newest_frame(agent: Agent) -> None:
    segment = random_segment(2, 3)
    actions = torch.randint(ACTIONS, (2, 12, 2), generator=torch.Generator().manual_seed(1))
    tokens = random_tokens(2, 12)
    _, _, _, _, full = run(
        agent, agent.world.start(segment), actions[:, :6], tokens[:, :6]
    )  # 2 + 6 = 8 steps
    fresh = agent.world.start(random_segment(2, 2)[:, :1])
    fresh = fresh._replace(latent=fresh.latent._replace(frames=full.latent.frames))
    continued = run(agent, full, actions[:, 6:], tokens[:, 6:])
    restarted = run(agent, fresh, actions[:, 6:], tokens[:, 6:])
    for a, b in zip(continued[:4], restarted[:4], strict=True):
        assert torch.equal(a, b)
    # One step earlier the memory is still there, and felt.
    _, _, _, _, almost = run(agent, agent.world.start(segment), actions[:, :5], tokens[:, :5])
    fresh = fresh._replace(latent=fresh.latent._replace(frames=almost.latent.frames))
    remembering, forgetful = (
        run(agent, s, actions[:, 5:6], tokens[:, 5:6])[1] for s in (almost, fresh)
    )
    assert not close(remembering, forgetful)


def test_more_frames_than_the_context_are_refused(agent: Agent) -> None:
    with pytest.raises(BadInput, match="9 past frames .* context of 8 steps"):
        agent.world.start(random_segment(2, 9))


def test_the_sign_of_a_reward_is_sampled() -> None:
    torch.manual_seed(0)
    agent = make_agent(reward="sign")
    state = agent.world.start(random_segment(200, 2))
    imagined, _ = agent.world.step(state, torch.zeros(200, 2, dtype=torch.int64), gumbel_max)
    reward, end = agent.world.outcome(imagined.action_features, gumbel_max)
    assert set(reward.tolist()) == {-1, 0, 1}
    assert end.any() and not end.all()
