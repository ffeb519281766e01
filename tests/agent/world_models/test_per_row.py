"""A batch whose rows begin at different steps: each is what the world imagines of it alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_map

from agent.agent import Agent
from agent.config.networks import ConvConfig
from agent.execution import Execution, autocast, compiled
from agent.nets.noise import KeyedGumbelMax, split
from agent.segment import Segment
from agent.world_models.base import World
from agent.world_models.per_row import Outcome, PerRowState, PerRowWorld
from envs.errors import BadInput
from tests.agent.conftest import ACTIONS, SIZE, SPACES, config_of, make_agent, random_segment

CONTEXT, STEPS = 5, 12


def make(kind: str, **changes) -> PerRowWorld:
    """Of noise."""
    return PerRowWorld(make_agent(kind, **{"context": CONTEXT, **changes}).world, SPACES)


@pytest.fixture(scope="module", params=["delta", "frame"])
def world(request) -> PerRowWorld:
    return make(request.param)


@pytest.fixture(params=["delta", "frame"])
def least(request) -> PerRowWorld:
    """As little to compile as can be."""
    config = config_of(request.param)
    config.dynamics.transformer.layers = 1
    if request.param == "delta":
        conv = ConvConfig(base=8, mult=[1], down=[0], patch=4, groups=4)
        config.tokenizer.conv = config.tokenizer.frame_conv = config.dynamics.conv = conv
        config.tokenizer.tokens = 1
    return PerRowWorld(Agent(config, SPACES).eval().world, SPACES)


def beginnings(lengths: list[int], steps: int = 4, seed: int = 0) -> Segment:
    """Real frames, so many a row, and behind them noise that must not be felt."""
    segment = random_segment(len(lengths), steps, seed=seed)
    segment.mask[:] = torch.arange(steps) < torch.tensor(lengths).unsqueeze(1) - 1
    return segment


def actions_of(rows: int, steps: int, seed: int = 1) -> Tensor:
    return torch.randint(ACTIONS, (rows, steps, 2), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def alone(world: World, segment: Segment, actions: Tensor, key: int) -> list[Outcome]:
    """What the world makes of one row, [1, T] without padding, under actions [H, F]."""
    state, outcomes = world.start(segment), []
    for clock, action in enumerate(actions):
        select = KeyedGumbelMax(split(torch.tensor([key]), clock))
        imagined, state = world.step(state, action[None], select)
        rewards, ends = world.outcome(imagined.action_features, select)
        outcomes.append(Outcome(world.frames(state.latent), imagined.tokens, rewards, ends))
    return outcomes


def check_same(ours: Outcome, row: int, theirs: Outcome) -> None:
    assert torch.equal(ours.tokens[row], theirs.tokens[0]) and ours.ends[row] == theirs.ends[0]
    torch.testing.assert_close(ours.rewards[row], theirs.rewards[0], rtol=1e-3, atol=1e-3)
    assert (ours.frames[row].int() - theirs.frames[0].int()).abs().max() <= 1


CASES = [
    ("delta", {}),
    ("delta", {"i_token": False, "reward": "sign"}),
    ("delta_light", {}),
    ("frame", {"reward": "two_hot"}),
    ("frame", {}),
]


@pytest.mark.parametrize(("kind", "changes"), CASES)
def test_each_row_is_imagined_as_if_alone(kind: str, changes: dict) -> None:
    """Rows with pasts of 1 to 4 frames, one of them begun again twice, beyond the context's end."""
    world, lengths, keys = make(kind, **changes), [1, 4, 2, 3], [5, 6, 7, 8]
    segment, actions, every = beginnings(lengths), actions_of(4, STEPS), torch.arange(4)
    state = world.empty(4)
    for layer in state.cache:  # whoever reads what was not written is found out
        layer.normal_(std=1e3)
    frames = world.start(state, every, segment, torch.tensor(keys))
    last = segment.frames[every, torch.tensor(lengths) - 1]
    assert torch.equal(frames, world.world.frames(world.world.look(last)))
    expected = [
        alone(world.world, segment[i : i + 1, :n], actions[i], keys[i])
        for i, n in enumerate(lengths)
    ]
    later, first = {3: 2, 5: 4}, 0  # step -> frames of row 1's next beginning
    for t in range(STEPS):
        if t in later:
            again, first = beginnings([later[t]], seed=t), t
            world.start(state, torch.tensor([1]), again, torch.tensor([50 + t]))
            expected[1] = alone(world.world, again[:, : later[t]], actions[1, t:], 50 + t)
        outcome = world.step(state, actions[:, t])
        assert torch.equal(outcome.frames, world.world.frames(state.latent))
        for row in range(4):
            theirs = expected[row][t - first if row == 1 else t]
            check_same(outcome, row, theirs)
            if kind != "frame":  # rounding grows from step to step: these networks are noise
                for own, new in zip(state.latent, world.world.look(theirs.frames)):
                    if new.shape[1] > 1:  # all but what is pending
                        own[row] = new[0]
    assert len({tuple(tokens.tolist()) for tokens in outcome.tokens}) > 1


def test_the_noise_is_the_keys(world: PerRowWorld) -> None:
    """The same start and actions: the same key, the same dream; another key, another."""
    actions, state = actions_of(1, 6).expand(3, 6, 2), world.empty(3)
    segment = beginnings([2])
    world.start(state, torch.arange(3), torch.cat([segment] * 3), torch.tensor([1, 1, 2]))
    tokens = torch.stack([world.step(state, actions[:, t]).tokens for t in range(6)], dim=1)
    assert torch.equal(tokens[0], tokens[1]) and not torch.equal(tokens[0], tokens[2])


def test_too_many_frames_are_refused(world: PerRowWorld) -> None:
    with pytest.raises(BadInput, match="6 past frames .* context of 5"):
        world.start(world.empty(1), torch.tensor([0]), beginnings([6], steps=6), torch.tensor([0]))


@pytest.mark.parametrize("kind", ["delta", "frame"])
def test_a_step_finishes_on_the_meta_device(kind: str) -> None:
    """There, whatever reads a value back raises."""
    with torch.device("meta"):
        world = make(kind)
        outcome = world.step(world.empty(3), torch.zeros(3, 2, dtype=torch.int64))
    assert outcome.frames.shape == (3, 3, SIZE, SIZE) and outcome.ends.is_meta


def started(world: PerRowWorld) -> tuple[PerRowState, PerRowState]:
    """Four rows of different ages, and a copy."""
    state = world.empty(4)
    world.start(state, torch.arange(4), beginnings([1, 4, 2, 3]), torch.arange(4))
    return state, tree_map(torch.clone, state)


def test_a_recorded_step_replays_bit_equal(world: PerRowWorld) -> None:
    """Recorded once, it replays without the Python, past the context's end and new starts."""
    actions, (state, twin) = actions_of(4, STEPS), started(world)
    recorded = make_fx(lambda a: world.step(state, a))(actions[:, 0])
    world.step(twin, actions[:, 0])
    for t in range(1, STEPS):
        if t == 6:
            for each in (state, twin):
                world.start(each, torch.tensor([2]), beginnings([3], seed=t), torch.tensor([9]))
        replayed, eager = recorded(actions[:, t]), world.step(twin, actions[:, t])
        assert all(map(torch.equal, replayed, eager))
    assert all(map(torch.equal, state.cache, twin.cache))


@pytest.mark.slow
def test_the_compiler_takes_a_step_whole_and_once(least: PerRowWorld) -> None:
    """Under autocast, too; and rows that begin again change nothing."""
    graphs, execution, device = [], Execution("eager", bf16=True), torch.device("cpu")

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    with autocast(execution, device):
        state, _ = started(least)

    def step(actions: Tensor) -> Outcome:
        with autocast(execution, device):
            return least.step(state, actions)

    torch._dynamo.reset()
    step = torch.compile(step, fullgraph=True, dynamic=False, backend=backend)
    actions = actions_of(4, 6)
    step(actions[:, 0])
    with torch.compiler.set_stance("fail_on_recompile"):
        for t in range(1, 6):
            with autocast(execution, device):
                again = beginnings([3], seed=t)
                least.start(state, torch.tensor([t % 4]), again, torch.tensor([t]))
            assert step(actions[:, t]).rewards.isfinite().all()
    assert len(graphs) == 1


@pytest.mark.slow
def test_a_compiled_step_equals_an_eager_one(least: PerRowWorld) -> None:
    actions, (state, twin) = actions_of(4, STEPS), started(least)
    step = compiled(least.step, Execution("compiled"))
    for t in range(STEPS):
        ours, theirs = step(state, actions[:, t]), least.step(twin, actions[:, t])
        for row in range(4):
            check_same(ours, row, Outcome(*(x[row : row + 1] for x in theirs)))
        for own, other in zip(twin.latent, state.latent):
            own.copy_(other)
