"""Dynamics over frames' tokens: who sees what, and what the loss counts.

World: one step at a time is one pass.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from agent.config import OptimizerConfig
from agent.config.networks import TransformerConfig
from agent.config.tokenizers import FrameTokenizerConfig
from agent.config.world_models import FrameDynamicsConfig
from agent.execution import Execution
from agent.nets.heads import Select, greedy, gumbel_max
from agent.segment import Segment
from agent.tokenizers.frame import FrameTokenizer
from agent.training.learner import Learner
from agent.world_models.frame import FrameDynamics, FrameWorld
from envs.errors import BadInput
from envs.spaces import Spaces
from tests.agent.conftest import ACTIONS, SPACES, random_segment
from tests.agent.prediction import WEIGHTS, expected_loss, padded_segment
from tests.agent.tokenizers.test_frame_tokenizer import small_config
from tests.agent.training.test_learner import tensors_of

CODES, K, STEPS, CONTEXT = 16, 4, 5, 5


def make_dynamics(dropout: float = 0.1, layers: int = 2, **changes) -> FrameDynamics:
    """In evaluation mode, with weights large enough that every input is felt."""
    tokenizer = FrameTokenizer(small_config(), SPACES)
    torch.manual_seed(0)
    transformer = TransformerConfig(layers, heads=2, width=32, dropout=dropout)
    config = FrameDynamicsConfig(**{"transformer": transformer, "context": CONTEXT, **changes})
    dynamics = FrameDynamics(config, SPACES, tokenizer).eval()
    for p in dynamics.parameters():
        if p.ndim == 2:
            torch.nn.init.normal_(p, std=0.2)
    return dynamics


def make_world(**changes) -> FrameWorld:
    torch.manual_seed(0)
    tokenizer = FrameTokenizer(small_config(), SPACES).eval()
    torch.nn.init.normal_(tokenizer.quantizer.codebook, std=0.3)
    return FrameWorld(
        tokenizer.requires_grad_(False), make_dynamics(**changes).requires_grad_(False)
    )


@pytest.fixture(scope="module")
def world() -> FrameWorld:
    return make_world()


@pytest.fixture(scope="module")
def dynamics(world: FrameWorld) -> FrameDynamics:
    return world.dynamics


def random_tokens(batch: int, steps: int, seed: int = 3) -> Tensor:
    return torch.randint(CODES, (batch, steps, K), generator=torch.Generator().manual_seed(seed))


def random_actions(batch: int, steps: int) -> Tensor:
    return torch.randint(ACTIONS, (batch, steps, 2), generator=torch.Generator().manual_seed(1))


def test_the_published_sizes() -> None:
    """20 frames of 16 tokens and an action: 340 positions; 10 layers of width 256.

    IRIS, appendix A; DART, appendix.
    """
    with torch.device("meta"):
        spaces = Spaces(3, 64, (6,))
        dynamics = FrameDynamics(
            FrameDynamicsConfig(), spaces, FrameTokenizer(FrameTokenizerConfig(), spaces)
        )
        output = dynamics(
            torch.zeros(2, 20, 16, dtype=torch.int64), torch.zeros(2, 20, 1, dtype=torch.int64)
        )
    assert dynamics.transformer.positions.num_embeddings == 340
    assert output.tokens.shape == (2, 19, 16, 512)
    assert output.reward.shape == (2, 20, 3) and output.end.shape == (2, 20, 2)
    w = 256
    layer = 4 * (w * w + w) + (w * 4 * w + 4 * w) + (4 * w * w + w) + 2 * 2 * w
    embeddings = (512 + 6 + 340) * w
    heads = 3 * (w * w + w) + (w + 1) * (512 + 3 + 2)
    assert (
        sum(p.numel() for p in dynamics.parameters())
        == 10 * layer + 2 * w + embeddings + heads
        == 8_448_005
    )


INPUTS = [*(("token", k) for k in range(K)), ("action", None)]  # their order within a step


@pytest.mark.parametrize(("kind", "k"), INPUTS)
@pytest.mark.parametrize("t", range(STEPS))
def test_causality(dynamics: FrameDynamics, t: int, kind: str, k: int | None) -> None:
    """An input is felt by all predictions made at it or after it, and by none made before."""
    tokens, actions = random_tokens(1, STEPS), random_actions(1, STEPS)
    before = dynamics(tokens, actions)
    if kind == "action":
        actions[:, t, 1] = (actions[:, t, 1] + 1) % ACTIONS
    else:
        tokens[:, t, k] = (tokens[:, t, k] + 1) % CODES
    after = dynamics(tokens, actions)
    changed = (K + 1) * t + INPUTS.index((kind, k))
    for step in range(STEPS):
        at_action = (
            K + 1
        ) * step + K  # where reward, end and the next z1 are predicted; z2 is at z1, ...
        felt = [(after.reward - before.reward, at_action), (after.end - before.end, at_action)]
        felt = [(difference[0, step], place) for difference, place in felt]
        if step < STEPS - 1:
            felt += [((after.tokens - before.tokens)[0, step, n], at_action + n) for n in range(K)]
        for difference, place in felt:
            assert difference.abs().max() > 1e-6 if place >= changed else not difference.any()


@pytest.mark.parametrize("reward", ["two_hot", "sign"])
def test_the_loss_against_a_loop_over_real_steps(reward: str) -> None:
    dynamics = make_dynamics(reward=reward, **WEIGHTS)
    segment, tokens = padded_segment(STEPS), random_tokens(3, STEPS)
    output = dynamics(tokens, segment.actions)
    expected = expected_loss(output, segment, tokens[:, 1:], reward)
    losses = dynamics.loss(segment, tokens)
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(
        expected, rel=1e-4
    )


def test_what_is_padded_is_no_target(dynamics: FrameDynamics) -> None:
    segment, tokens = padded_segment(STEPS), random_tokens(3, STEPS)
    before = dynamics.loss(segment, tokens)
    segment.rewards[~segment.mask] = 9.0
    segment.terminated[~segment.mask] = True
    segment.truncated[:] = True
    # Behind the last observation, frame 3 of row 1, no real step reads anything: the transformer is
    # causal.
    segment.actions[1, 3:], tokens[1, 4] = 2, 5
    assert dynamics.loss(segment, tokens) == before
    tokens[1, 3, K - 1] += 1 - 2 * (tokens[1, 3, K - 1] == CODES - 1).long()
    assert dynamics.loss(segment, tokens)["tokens"] != before["tokens"]


def test_every_parameter_learns() -> None:
    dynamics = make_dynamics()
    dynamics.loss(random_segment(4, STEPS), random_tokens(4, STEPS))["loss"].backward()
    assert [
        name for name, p in dynamics.named_parameters() if p.grad is None or not p.grad.any()
    ] == []


def test_it_learns_a_few_steps() -> None:
    """By heart: the tokens, the rewards and the ends of two segments."""
    dynamics = make_dynamics(dropout=0.0)
    segment, tokens = random_segment(2, 4), random_tokens(2, 4)
    learner = Learner(
        dynamics, lambda s: dynamics.loss(s, tokens), OptimizerConfig(learning_rate=3e-3)
    )
    start = dynamics.loss(segment, tokens)
    for _ in range(60):
        learner.update(segment)
    end = dynamics.loss(segment, tokens)
    assert start["tokens"] > 2 and start["token_accuracy"] < 0.5
    assert (
        end["token_accuracy"] == 1 and max(end[name] for name in ("tokens", "reward", "end")) < 0.05
    )


def test_misfits_are_refused(world: FrameWorld) -> None:
    with pytest.raises(BadInput, match="context=1 .* at least 2"):
        make_dynamics(context=1)
    with pytest.raises(BadInput, match="'scalar' .* two_hot, sign"):
        make_dynamics(reward="scalar")
    with pytest.raises(BadInput, match="6 past frames .* context of 5 frames"):
        world.start(random_segment(2, CONTEXT + 1))


def test_dropout_in_training_and_not_in_imagination() -> None:
    world = make_world()
    segment, tokens = random_segment(2, 3), random_tokens(2, 3)
    losses = {}
    for mode in (True, False):
        world.dynamics.train(mode)
        losses[mode] = [world.dynamics.loss(segment, tokens)["loss"].item() for _ in range(2)]
    assert losses[False][0] == losses[False][1]
    assert len({*losses[True], losses[False][0]}) == 3
    # As a learner leaves it.
    world.dynamics.requires_grad_(True)
    Learner(world.dynamics, lambda s: world.dynamics.loss(s, tokens), OptimizerConfig()).update(
        segment
    )
    with torch.no_grad():
        steps = [
            world.step(world.start(segment), segment.actions[:, -1], greedy)[0] for _ in range(2)
        ]
    assert all(map(torch.equal, *steps))


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
        return logits.argmax(dim=-1)


@pytest.mark.parametrize("past", [1, 3, CONTEXT])
def test_stepping_equals_the_forward_pass(world: FrameWorld, past: int) -> None:
    """Also across a full context, twice: what is then forgotten is all before the newest frame."""
    segment, steps = random_segment(2, past + 1)[:, :past], 2 * CONTEXT + 1
    imagined_actions, imagined_tokens = random_actions(2, steps), random_tokens(2, steps)
    state, forced, action_features = world.start(segment), Forced(imagined_tokens), []
    for t in range(steps):
        imagined, state = world.step(state, imagined_actions[:, t], forced)
        assert torch.equal(imagined.tokens, imagined_tokens[:, t]) and torch.equal(
            imagined.tokens, state.latent.tokens
        )
        action_features.append(imagined.action_features)
    token_logits = torch.stack(forced.token_logits, dim=1).unflatten(1, (steps, K))
    action_features = torch.stack(action_features, dim=1)
    rewards = world.dynamics.reward_head(action_features)

    seen = world.tokenizer.encode(segment.frames.flatten(0, 1)).unflatten(0, (2, past))
    tokens = torch.cat([seen, imagined_tokens], dim=1)
    actions = torch.cat([segment.actions[:, :-1], imagined_actions, imagined_actions[:, :1]], dim=1)
    assert token_logits.std() > 0.1
    for t in range(steps):
        newest = past - 1 + t
        first = (
            newest // (CONTEXT - 1) * (CONTEXT - 1)
        )  # of the frames that are remembered; the next is the last to fit
        window = slice(first, newest + 2)
        output = world.dynamics(tokens[:, window], actions[:, window])
        torch.testing.assert_close(token_logits[:, t], output.tokens[:, -1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(rewards[:, t], output.reward[:, -2], rtol=1e-4, atol=1e-5)
        p = output.end[:, -2].softmax(dim=-1)[:, 1]
        torch.testing.assert_close(
            world.end_probability(action_features)[:, t], p, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("steps", [1, CONTEXT, CONTEXT + 3])
def test_frames_of_one_token(steps: int) -> None:
    """As small as it gets; there is nothing to read before the first step."""
    conv = small_config().conv
    conv.patch = 8
    tokenizer = FrameTokenizer(small_config(conv=conv), SPACES).eval()
    dynamics = FrameDynamics(make_dynamics().config, SPACES, tokenizer).eval()
    world, segment = FrameWorld(tokenizer, dynamics), random_segment(2, 2)[:, :1]
    tokens, actions = torch.randint(CODES, (2, steps, 1)), random_actions(2, steps + 1)
    with torch.no_grad():
        state, forced = world.start(segment), Forced(tokens)
        for t in range(steps):
            _, state = world.step(state, actions[:, t], forced)
        first = (steps - 1) // (CONTEXT - 1) * (CONTEXT - 1)
        window = torch.cat([tokenizer.encode(segment.frames[:, 0]).unsqueeze(1), tokens], dim=1)[
            :, first:
        ]
        output = dynamics(window, actions[:, first:])
    torch.testing.assert_close(
        forced.token_logits[-1], output.tokens[:, -1, 0], rtol=1e-4, atol=1e-5
    )


def test_no_picture_is_made_that_nobody_asks_for() -> None:
    world, calls = make_world(), []
    world.tokenizer.decoder.register_forward_hook(lambda *_: calls.append(1))
    state = world.start(random_segment(2, 3))
    for _ in range(CONTEXT + 1):
        imagined, state = world.step(state, random_actions(2, 1)[:, 0], gumbel_max)
        codes = world.codes(state.latent)
        assert codes.shape == (2, K, 8) and torch.equal(
            codes, world.tokenizer.quantizer.codebook[imagined.tokens]
        )
    world.outcome(imagined.action_features)
    assert not calls
    frames = world.frames(state.latent)
    assert frames.shape == (2, 3, 16, 16) and torch.equal(
        frames, world.tokenizer.decode(state.latent.tokens)
    )


def test_the_start_is_the_last_frame(world: FrameWorld) -> None:
    segment = random_segment(2, 3)
    state = world.start(segment)
    assert torch.equal(state.latent.tokens, world.tokenizer.encode(segment.frames[:, -1]))
    assert torch.equal(world.codes(state.latent), world.codes_of(segment.frames)[:, -1])
    assert (
        world.start(random_segment(2, CONTEXT)).position == 0
    )  # of a full context nothing is read that the first step forgets
    other = segment.clone()
    other.actions[:, -1] += 1  # not taken yet
    assert all(
        torch.equal(a, b) for a, b in zip(state.cache, world.start(other).cache, strict=True)
    )
    other.actions[:, 0] = (other.actions[:, 0] + 1) % ACTIONS
    assert not torch.equal(state.cache[1], world.start(other).cache[1])


def test_the_sign_of_a_reward_is_sampled(world: FrameWorld) -> None:
    torch.manual_seed(0)
    imagined, _ = world.step(world.start(random_segment(200, 2)), random_actions(200, 1)[:, 0])
    rewards, ends = world.outcome(imagined.action_features)
    assert set(rewards.tolist()) == {-1, 0, 1} and ends.any() and not ends.all()


def rollout(world: FrameWorld, segment: Segment, select: Select = gumbel_max) -> tuple[Tensor, ...]:
    """Two steps, between which a context of three frames fills up, and the last picture."""
    with torch.no_grad():
        state, steps = world.start(segment), []
        for _ in range(2):
            imagined, state = world.step(state, segment.actions[:, -1], select)
            steps.append(imagined)
        rewards, ends = world.outcome(
            torch.stack([i.action_features for i in steps], dim=1), select
        )
        return (
            torch.stack([i.tokens for i in steps], dim=1),
            rewards,
            ends,
            world.frames(state.latent),
        )


def as_segment(tensors: tuple[Tensor, ...]) -> Segment:
    return Segment(*tensors, batch_size=list(tensors[-1].shape))


def test_a_rollout_can_be_captured() -> None:
    """It finishes on the meta device, and replays bit-equal on other inputs.

    As whole updates do in tests/agent/training/test_learner.py.
    """
    with torch.device("meta"):
        sketch = make_world(layers=1, context=3)
    assert all(x.is_meta for x in rollout(sketch, random_segment(2, 2).to("meta")))
    world, segments = (
        make_world(layers=1, context=3),
        [random_segment(2, 2, seed=seed) for seed in range(3)],
    )
    torch.manual_seed(7)
    recorded = make_fx(lambda *tensors: rollout(world, as_segment(tensors)))(
        *tensors_of(segments[0])
    )
    ours = [recorded(*tensors_of(segment)) for segment in segments[1:]]
    torch.manual_seed(7)
    theirs = [rollout(world, segment) for segment in segments][1:]
    for a, b in zip(ours, theirs, strict=True):
        assert all(map(torch.equal, a, b))


def counting_backend(graphs: list):
    """A compiler that keeps what it is given and runs it as it is."""

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    return backend


def test_the_compiler_takes_an_update_whole_and_once() -> None:
    tokens, dynamics, graphs = random_tokens(2, STEPS), make_dynamics(layers=1), []
    bf16 = Execution("eager", bf16=True)
    learner = Learner(dynamics, lambda s: dynamics.loss(s, tokens), OptimizerConfig(), None, bf16)
    backend = counting_backend(graphs)
    learner.forward = torch.compile(learner.forward, fullgraph=True, dynamic=False, backend=backend)
    learner.update(random_segment(2, STEPS))
    assert len(graphs) == 1
    with torch.compiler.set_stance("fail_on_recompile"):
        assert learner.update(random_segment(2, STEPS, seed=1))["loss"].isfinite()


@pytest.mark.slow
def test_the_compiler_takes_a_rollout_whole_and_once() -> None:
    """Its transformer passes are two graphs: over a token and the action, over a token."""
    world, graphs = make_world(layers=1, context=3), []
    run = torch.compile(
        lambda segment: rollout(world, segment),
        fullgraph=True,
        dynamic=False,
        backend=counting_backend(graphs),
    )
    run(random_segment(2, 2))
    assert len(graphs) == 1
    if torch.__version__ >= "2.13":
        assert len([m for m in graphs[0].children() if isinstance(m, torch.fx.GraphModule)]) == 2
    with torch.compiler.set_stance("fail_on_recompile"):
        run(random_segment(2, 2, seed=1))


@pytest.mark.slow
def test_a_compiled_rollout_equals_an_eager_one() -> None:
    world = make_world(layers=1, context=3)
    run = torch.compile(
        lambda segment: rollout(world, segment, greedy), fullgraph=True, dynamic=False
    )
    for seed in range(3):
        ours, theirs = (
            f(random_segment(2, 2, seed=seed)) for f in (run, lambda s: rollout(world, s, greedy))
        )
        assert all(
            torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(ours, theirs, strict=True)
        )
