"""What every world promises: who sees what, what the loss counts, a rollout is one pass."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from agent.agent import Agent
from agent.config.networks import TransformerConfig
from agent.config.tokenizers import FrameTokenizerConfig
from agent.config.world_models import FrameDynamicsConfig
from agent.nets.heads import gumbel_max, symlog
from agent.segment import Segment
from agent.tokenizers.frame import FrameTokenizer
from agent.world_models.base import DynamicsOutput, World, WorldState
from agent.world_models.frame import FrameDynamics
from envs.errors import BadInput
from envs.spaces import Spaces
from tests.agent.conftest import (
    ACTIONS,
    SPACES,
    config_of,
    floats,
    make_agent,
    padded_segment,
    random_segment,
    unlearned,
)

CODES, CONTEXT, STEPS = 16, 5, 5
KINDS = ("delta", "delta_light", "frame")


def make(kind: str, **changes) -> Agent:
    return make_agent(kind, **{"context": CONTEXT, **changes})


@pytest.fixture(scope="module", params=KINDS)
def agent(request) -> Agent:
    return make(request.param)


def random_tokens(agent: Agent, batch: int, steps: int) -> Tensor:
    g = torch.Generator().manual_seed(3)
    return torch.randint(CODES, (batch, steps, agent.tokenizer.tokens), generator=g)


def random_actions(batch: int, steps: int) -> Tensor:
    return torch.randint(ACTIONS, (batch, steps, 2), generator=torch.Generator().manual_seed(1))


def of_frames(agent: Agent) -> bool:
    """Whether tokens are a frame's own, or say what changed."""
    return agent.config.dynamics.kind == "frame"


def tokens_for(agent: Agent, batch: int, steps: int) -> Tensor:
    """Random ones in the place of `tokens_of`."""
    return random_tokens(agent, batch, steps if of_frames(agent) else steps - 1)


def forward(agent: Agent, frames: Tensor, actions: Tensor, tokens: Tensor) -> DynamicsOutput:
    if of_frames(agent):
        return agent.dynamics(tokens, actions)
    return agent.dynamics(agent.world.dynamics_frames(frames), actions, tokens)


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("t", [0, 2, STEPS - 1])
def test_causality(agent: Agent, t: int) -> None:
    """An input is felt by all predictions made at it or after it, and by none made before."""
    k = agent.tokenizer.tokens
    order = {  # of the inputs within a step; those of one position stand together
        "delta": [["frame"], ["action"], *[[n] for n in range(k)]],
        "delta_light": [["frame", "action"], *[[n] for n in range(k)]],
        "frame": [*[[n] for n in range(k)], ["action"]],
    }[agent.config.dynamics.kind]
    per_step, at_action = len(order), [("action" in inputs) for inputs in order].index(True)
    segment, tokens = random_segment(1, STEPS), random_tokens(agent, 1, STEPS)
    before = forward(agent, segment.frames, segment.actions, tokens)
    for place, inputs in enumerate(order):
        for changed in inputs:
            frames, actions, other = segment.frames.clone(), segment.actions.clone(), tokens.clone()
            if changed == "frame":
                frames[:, t] = 255 - frames[:, t]
            elif changed == "action":
                actions[:, t] = (actions[:, t] + 1) % ACTIONS
            else:
                other[:, t, changed] = (other[:, t, changed] + 1) % CODES
            after = forward(agent, frames, actions, other)
            for step in range(STEPS):
                here = per_step * step + at_action  # reward, end, the first token; then one by one
                felt = [(x[0, step] - y[0, step], here) for x, y in zip(after[1:], before[1:])]
                if step < before.tokens.shape[1]:
                    difference = (after.tokens - before.tokens)[0, step]
                    felt += [(difference[n], here + n) for n in range(k)]
                for difference, position in felt:
                    if position >= per_step * t + place:
                        assert difference.abs().max() > 1e-6
                    else:
                        assert not difference.any()


def test_the_last_steps_tokens_are_optional(agent: Agent) -> None:
    if of_frames(agent):
        pytest.skip("its tokens are those of the frames")
    segment, tokens = random_segment(3, STEPS), random_tokens(agent, 3, STEPS)
    full = forward(agent, segment.frames, segment.actions, tokens)
    short = forward(agent, segment.frames, segment.actions, tokens[:, :-1])
    assert full.tokens.shape == (3, STEPS, 4, CODES) and full.reward.shape == (3, STEPS, 255)
    assert close(short.tokens, full.tokens[:, :-1])
    assert close(short.reward, full.reward) and close(short.end, full.end)


def expected_loss(
    output: DynamicsOutput, segment: Segment, targets: Tensor, reward: str
) -> dict[str, float]:
    """By a loop over real steps, with weights 0.5, 3 and 0.1. targets: [B, T − 1, K]"""
    errors, correct, reward_errors, end_errors = [], [], [], []
    rows, steps = segment.mask.shape
    for b, t in product(range(rows), range(steps)):
        if not segment.mask[b, t]:
            continue
        log_p = output.end[b, t].double().log_softmax(-1)
        end_errors.append(-log_p[int(segment.terminated[b, t])].item())
        log_p, r = output.reward[b, t].double().log_softmax(-1), segment.rewards[b, t].double()
        if reward == "sign":
            reward_errors.append(-log_p[int(r.sign()) + 1].item())
        else:
            place = (symlog(r).item() + 20) / (40 / 254)
            low, share = int(place), place - int(place)
            reward_errors.append(-((1 - share) * log_p[low] + share * log_p[low + 1]).item())
        if t < steps - 1:
            for k, target in enumerate(targets[b, t]):
                log_p = output.tokens[b, t, k].double().log_softmax(-1)
                errors.append(-log_p[target].item())
                correct.append(log_p.argmax() == target)
    mean = lambda terms: float(sum(terms)) / len(terms)
    expected = {
        "tokens": 0.5 * mean(errors),
        "reward": 3.0 * mean(reward_errors),
        "end": 0.1 * mean(end_errors),
    }
    return expected | {"loss": sum(expected.values()), "token_accuracy": mean(correct)}


@pytest.mark.parametrize(("kind", "reward"), product(("delta", "frame"), ("two_hot", "sign")))
def test_the_loss_against_a_loop_over_real_steps(kind: str, reward: str) -> None:
    weights = {"tokens_weight": 0.5, "reward_weight": 3.0, "end_weight": 0.1}
    agent = make(kind, reward=reward, **weights)
    segment, tokens = padded_segment(STEPS), tokens_for(agent, 3, STEPS)
    output = forward(agent, segment.frames, segment.actions, tokens)
    expected = expected_loss(output, segment, tokens[:, 1 - STEPS :], reward)
    assert floats(agent.dynamics.loss(segment, tokens)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["delta", "frame"])
def test_what_is_padded_or_truncated_is_no_target(kind: str) -> None:
    agent = make(kind)
    segment, tokens = padded_segment(STEPS), tokens_for(agent, 3, STEPS)
    before = agent.dynamics.loss(segment, tokens)
    segment.rewards[~segment.mask] = 9.0
    segment.terminated[~segment.mask] = True
    segment.truncated[:] = True
    # Behind the last observation, frame 3 of row 1, no real step reads anything.
    segment.frames[1, 4], segment.actions[1, 3:], tokens[1, -1] = 7, 2, 5
    assert agent.dynamics.loss(segment, tokens) == before
    segment.terminated[2, 4] = True
    assert agent.dynamics.loss(segment, tokens)["end"] != before["end"]
    if kind == "delta":  # padding before an episode is attended to, as imagination begins with it
        segment.frames[0, 0] = 255 - segment.frames[0, 0]
        assert agent.dynamics.loss(segment, tokens)["reward"] != before["reward"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns_and_the_tokenizer_does_not(kind: str) -> None:
    agent = make(kind).requires_grad_(True)
    agent.dynamics_loss(random_segment(4, STEPS))["loss"].backward()
    assert unlearned(agent.dynamics) == []
    assert all(p.grad is None for p in agent.tokenizer.parameters())


class Forced:
    """A `select` that returns given tokens [B, H, K], and keeps the logits it saw."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = iter(tokens.flatten(1).unbind(dim=1))
        self.logits: list[Tensor] = []

    def __call__(self, logits: Tensor) -> Tensor:
        self.logits.append(logits)
        return next(self.tokens)


def run(
    world: World, state: WorldState, actions: Tensor, tokens: Tensor
) -> tuple[Tensor, Tensor, list[WorldState]]:
    """Step under actions [B, H, F] and tokens [B, H, K].

    Returns:
        Token logits [B, H, K, codes], action features [B, H, width], and the state after each step.
    """
    forced, features, states = Forced(tokens), [], []
    for t, action in enumerate(actions.unbind(dim=1)):
        imagined, state = world.step(state, action, forced)
        assert torch.equal(imagined.tokens, tokens[:, t])
        features.append(imagined.action_features)
        states.append(state)
    logits = torch.stack(forced.logits, dim=1).unflatten(1, tokens.shape[1:])
    return logits, torch.stack(features, dim=1), states


CASES = [
    *((kind, {}) for kind in KINDS),
    ("delta", {"i_token": False}),
    ("frame", {"patch": 4}),  # a frame of one token: nothing to read before the first step
]


@pytest.mark.parametrize(("kind", "changes"), CASES)
@pytest.mark.parametrize("past", [1, 3, CONTEXT])
def test_stepping_equals_the_forward_pass(past: int, kind: str, changes: dict) -> None:
    """Across a full context, twice: then all before the newest frame is forgotten."""
    agent = make(kind, **changes)
    world, dynamics, steps = agent.world, agent.dynamics, 2 * CONTEXT + 1
    segment = random_segment(2, past + 1)[:, :past]
    new_actions, new_tokens = random_actions(2, steps), random_tokens(agent, 2, steps)
    with torch.no_grad():
        logits, features, states = run(world, world.start(segment), new_actions, new_tokens)
    pictures = [world.frames(state.latent) for state in states]
    frames = torch.cat([segment.frames, torch.stack(pictures, dim=1)], dim=1)
    seen = agent.tokenizer.tokens_of(segment) if past > 1 or of_frames(agent) else new_tokens[:, :0]
    tokens = torch.cat([seen, new_tokens], dim=1)
    actions = torch.cat([segment.actions[:, :-1], new_actions, new_actions[:, :1]], dim=1)
    for t in range(steps):
        newest = past - 1 + t
        fits = CONTEXT - of_frames(agent)  # steps; the next frame must fit too
        window = slice(newest // fits * fits, newest + 1 + of_frames(agent))
        output = forward(agent, frames[:, window], actions[:, window], tokens[:, window])
        at_action = -1 - of_frames(agent)
        assert close(logits[:, t], output.tokens[:, -1])
        assert close(dynamics.reward_head(features[:, t]), output.reward[:, at_action])
        ends = output.end[:, at_action].softmax(dim=-1)[:, 1]
        assert close(world.end_probability(features[:, t]), ends)
        if of_frames(agent):
            assert torch.equal(states[t].latent.tokens, new_tokens[:, t])
        else:
            decoded = agent.tokenizer.decode(
                frames[:, newest], actions[:, newest], tokens[:, newest]
            )
            assert torch.equal(pictures[t], decoded)
            if agent.config.dynamics.i_token:  # an imagined frame has the codes of a real one
                codes = world.codes(states[t].latent)
                assert codes.shape == (2, *world.code_shape)
                assert close(codes, world.codes(world.look(pictures[t])))
    assert logits.std() > 0.02


def test_the_start(agent: Agent) -> None:
    """It is the last frame; the past is felt, and the last action, not taken yet, is not."""
    segment = random_segment(2, 3)
    state = agent.world.start(segment)
    assert torch.equal(agent.world.frames(state.latent), agent.world.observe(segment.frames[:, -1]))
    other = segment.clone()
    other.actions[:, -1] += 1
    assert all(map(torch.equal, state.cache, agent.world.start(other).cache))
    other.actions[:, 0] = (other.actions[:, 0] + 1) % ACTIONS
    assert not torch.equal(state.cache[1], agent.world.start(other).cache[1])
    with pytest.raises(BadInput, match="6 past frames .* context of 5"):
        agent.world.start(random_segment(2, CONTEXT + 1))


@pytest.mark.parametrize("kind", ["delta", "frame"])
def test_the_sign_of_a_reward_is_sampled(kind: str) -> None:
    torch.manual_seed(0)
    world = make(kind, reward="sign").world
    state = world.start(random_segment(200, 2))
    imagined, _ = world.step(state, torch.zeros(200, 2, dtype=torch.int64), gumbel_max)
    reward, end = world.outcome(imagined.action_features, gumbel_max)
    assert set(reward.tolist()) == {-1, 0, 1}
    assert end.any() and not end.all()


def pushed(agent: Agent, segment: Segment, tokens: Tensor, first: int) -> Tensor:
    return agent.tokenizer.pushforward(segment, tokens, first)[0]


@pytest.mark.parametrize("real", [1, 3])
def test_decoded_frames_are_learned_from_as_a_dream_shows_them(real: int) -> None:
    """What the dynamics predicts there is what it predicts in the dream of what happened."""
    agent = make("delta_light", pushforward_from=real)
    segment = random_segment(3, STEPS)[1:2]
    tokens = agent.tokenizer.tokens_of(segment)
    _, features = agent.tokenizer.pushforward(segment, tokens, real)
    output = agent.dynamics(features, segment.actions, tokens)
    start = agent.world.start(segment[:, :real])
    logits, _, _ = run(agent.world, start, segment.actions[:, real - 1 : -1], tokens[:, real - 1 :])
    assert close(logits, output.tokens[:, real - 1 :])


def test_an_episode_that_begins_later_is_decoded_from_its_first_frame() -> None:
    """No frame comes from the padding before it; a segment that is too short is all real."""
    agent, segment = make("delta_light"), random_segment(2, 4)
    segment.mask[0] = torch.tensor([False, False, True, True])
    tokens = agent.tokenizer.tokens_of(segment)
    seen = pushed(agent, segment, tokens, 1)
    assert torch.equal(seen[0, 2], segment.frames[0, 2])
    before = segment.frames[:1, 2], segment.actions[:1, 2], tokens[:1, 2]
    assert torch.equal(seen[0, 3], agent.tokenizer.decode(*before)[0])
    assert torch.equal(pushed(agent, segment[:, :1], tokens[:, :0], 1), segment.frames[:, :1])
    assert torch.equal(pushed(agent, segment, tokens, 4), segment.frames)


def test_no_picture_is_made_that_nobody_asks_for() -> None:
    agent, calls = make("frame"), []
    agent.tokenizer.decoder.register_forward_hook(lambda *_: calls.append(1))
    state = agent.world.start(random_segment(2, 3))
    for _ in range(CONTEXT + 1):
        imagined, state = agent.world.step(state, random_actions(2, 1)[:, 0])
        codes = agent.tokenizer.quantizer.codebook[imagined.tokens]
        assert torch.equal(agent.world.codes(state.latent), codes)
    agent.world.outcome(imagined.action_features)
    assert not calls
    agent.world.frames(state.latent)
    assert calls


def test_misfits_are_refused() -> None:
    config = config_of("delta")
    config.dynamics.transformer.width = 12
    with pytest.raises(BadInput, match="width 12 is less than the 16 cells"):
        Agent(config, SPACES)
    with pytest.raises(BadInput, match="agent.dynamics.latent=1 was given; give 4 or more"):
        make("delta_light", latent=1)
    with pytest.raises(BadInput, match="context=1 .* at least 2"):
        make("frame", context=1)


def test_the_published_sizes_of_iris() -> None:
    """20 frames of 16 tokens and an action: 340 positions; 10 layers of width 256.

    IRIS, appendix A; DART, appendix.
    """
    with torch.device("meta"):
        spaces = Spaces(3, 64, (6,))
        tokenizer = FrameTokenizer(FrameTokenizerConfig(), spaces)
        dynamics = FrameDynamics(FrameDynamicsConfig(), spaces, tokenizer)
        tokens, actions = torch.zeros(2, 20, 16).long(), torch.zeros(2, 20, 1).long()
        output = dynamics(tokens, actions)
    assert dynamics.transformer.positions.num_embeddings == 340
    assert output.tokens.shape == (2, 19, 16, 512)
    assert output.reward.shape == (2, 20, 3) and output.end.shape == (2, 20, 2)
    w = 256
    layer = 4 * (w * w + w) + (w * 4 * w + 4 * w) + (4 * w * w + w) + 2 * 2 * w
    heads = 3 * (w * w + w) + (w + 1) * (512 + 3 + 2)
    count = 10 * layer + 2 * w + (512 + 6 + 340) * w + heads
    assert sum(p.numel() for p in dynamics.parameters()) == count == 8_448_005


@pytest.mark.slow
def test_the_compiler_takes_a_rollout_whole_and_once() -> None:
    """IRIS's transformer passes are two graphs: over a token and the action, over a token."""
    transformer = TransformerConfig(layers=1, heads=2, width=32)
    agent, graphs = make("frame", context=3, transformer=transformer), []

    def rollout(segment: Segment) -> tuple[Tensor, ...]:
        with torch.no_grad():
            state, features = agent.world.start(segment), []
            for _ in range(2):  # between them the context fills up
                imagined, state = agent.world.step(state, segment.actions[:, -1])
                features.append(imagined.action_features)
            return agent.world.outcome(torch.stack(features, dim=1))

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(rollout, fullgraph=True, dynamic=False, backend=backend)
    compiled(random_segment(2, 2))
    assert len(graphs) == 1
    if torch.__version__ >= "2.13":
        assert sum(isinstance(m, torch.fx.GraphModule) for m in graphs[0].children()) == 2
    with torch.compiler.set_stance("fail_on_recompile"):
        compiled(random_segment(2, 2, seed=1))
