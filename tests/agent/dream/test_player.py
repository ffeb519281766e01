"""What is played and seen: the same actions in reality and in the dream."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.dream.player import Dream, PlayerStep, Side, Stage, View, by_agent, draw, play, values
from agent.media.pictures import Panel
from agent.nets.heads import greedy
from agent.segment import Segment
from envs.config import EnvConfig
from envs.make import make_rendered, make_single
from envs.spaces import Spaces
from tests.tiny import OF_AGENT, tiny_of

CATCH = EnvConfig(id="deltadream/Catch-v0")
ACTIONS = [0, 2, 1, 0, 2, 2, 1, 0, 1]


def label(action: np.ndarray) -> str:
    return ("left", "stay", "right")[action[0]]


@pytest.fixture(scope="module", params=OF_AGENT)
def agent(request) -> Agent:
    """Four tokens a step, burn-in 2, context 6; weights so large that actions matter."""
    torch.manual_seed(0)
    agent = Agent(
        tiny_of(
            request.param, *["agent.tokenizer.tokens=4"] * (request.param == "delta_iris")
        ).agent,
        Spaces(3, 32, (3,)),
    ).eval()
    with torch.no_grad():
        for p in [*agent.tokenizer.parameters(), *agent.dynamics.parameters()]:
            if p.ndim == 2:
                p.normal_(std=0.3)
        agent.policy.actor.weight.normal_()
    return agent


def scripted(frames: list | None = None):
    """Plays ACTIONS over and over; what it sees is added to `frames`."""
    turn = iter(ACTIONS * 10)

    def choose(frame: torch.Tensor, begins: bool) -> np.ndarray:
        if frames is not None:
            frames.append((frame.clone(), begins))
        return np.array([next(turn)])

    return choose


def by_hand(episodes: int) -> list[tuple[np.ndarray, float, bool]]:
    """(observation, reward, terminated) of Catch under ACTIONS, episode after episode."""
    env, seen = make_single(CATCH, 3), []
    for _ in range(episodes):
        seen.append((env.reset()[0], 0.0, False))
        seen.extend(env.step(action)[:3] for action in ACTIONS)
    return seen


def test_reality():
    seen: list = []
    moments = list(play(Stage(make_rendered(CATCH, 3)), scripted(seen), 20))
    expected = by_hand(3)[: len(moments)]
    assert len(moments) == 20 + 3  # and three first frames
    assert [moment.action for moment in moments[:11]] == [None, *ACTIONS, None]
    assert [(m.episode, m.step) for m in moments[8:13]] == [
        (1, 8),
        (1, 9),
        (2, 9),
        (2, 10),
        (2, 11),
    ]
    assert [moment.view.over for moment in moments] == [terminated for _, _, terminated in expected]
    total = 0.0
    for moment, (observation, reward, terminated) in zip(moments, expected, strict=True):
        side, first = moment.view.real, moment.action is None
        total = 0.0 if first else total + reward
        assert moment.view.dream is None and moment.view.error is None
        assert np.array_equal(
            side.picture, observation.repeat(8, 0).repeat(8, 1)
        )  # as the environment renders it
        assert (side.reward, side.end) == ((None, None) if first else (reward, float(terminated)))
        assert side.total == total
    # The player sees observations, before each of its actions.
    before = [observation for observation, _, terminated in expected[:-1] if not terminated]
    assert [begins for _, begins in seen] == [i % 9 == 0 for i in range(20)]
    for (frame, _), observation in zip(seen, before, strict=True):
        assert np.array_equal(frame[0].permute(1, 2, 0).numpy(), observation)


def start(frames: list[np.ndarray], actions: list[int]) -> Segment:
    """What a world starts from, built by hand."""
    n = len(frames)
    no = torch.zeros(1, n, dtype=torch.bool)
    return Segment(
        frames=torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None], actions=torch.tensor([[*actions, 0]])[..., None],
        rewards=torch.zeros(1, n), terminated=no, truncated=no, mask=~no, batch_size=[1, n],
    )  # fmt: skip


@torch.no_grad()
def expected_dream(agent: Agent, wake_every: int | None) -> list[tuple]:
    """An episode of `both` as the world alone imagines it.

    Returns:
        For each step: frame, tokens, reward, end probability, steps from reality.
    """
    frames = [observation for observation, _, _ in by_hand(1)]
    world, state, alone, result = agent.world, agent.world.start(start(frames[:1], [])), 0, []
    for t, action in enumerate(ACTIONS):
        imagined, state = world.step(state, torch.tensor([[action]]))
        alone += 1
        reward, _ = world.outcome(imagined.action_features)
        end = agent.dynamics.end_head(imagined.action_features).softmax(-1)[0, 1]
        result.append(
            (world.frames(state.latent)[0], imagined.tokens[0], float(reward), float(end), alone)
        )
        if t + 2 <= 2 or alone == wake_every:  # burn-in 2
            state, alone = world.start(start(frames[t : t + 2], ACTIONS[t : t + 1])), 0
    return result


@pytest.mark.parametrize("wake_every", [None, 1, 3])
def test_both(agent: Agent, wake_every: int | None):
    seen: list = []
    torch.manual_seed(5)
    moments = list(play(Stage(make_single(CATCH, 3), agent, "both", wake_every), scripted(seen), 9))
    torch.manual_seed(5)
    expected, real = expected_dream(agent, wake_every), by_hand(1)

    first = moments[0].view
    assert np.array_equal(first.dream.picture, first.real.picture) and np.array_equal(
        first.real.picture, real[0][0]
    )
    assert (
        first.error == 0
        and first.alone == 0
        and (first.tokens == -1).all()
        and len(first.tokens) == 4
    )
    total = 0.0
    for moment, (frame, tokens, reward, end, alone), (observation, real_reward, terminated) in zip(
        moments[1:], expected, real[1:], strict=True
    ):
        view = moment.view
        assert np.array_equal(view.real.picture, observation)
        assert (view.real.reward, view.real.end) == (real_reward, float(terminated))
        total += reward
        assert np.array_equal(view.dream.picture, frame.permute(1, 2, 0).numpy())
        assert np.array_equal(view.tokens, tokens.numpy())
        assert view.dream[1:] == pytest.approx((total, reward, end), abs=1e-6)
        assert view.alone == alone
        difference = view.real.picture.astype(float) - view.dream.picture
        assert view.error == pytest.approx(np.abs(difference).mean(), rel=1e-5) and view.error > 0
    assert [moment.view.over for moment in moments] == [False] * 9 + [True]  # reality decides
    steps = [moment.view.alone for moment in moments]
    assert (
        steps
        == {None: [0, 1, *range(1, 9)], 1: [0] + [1] * 9, 3: [0, 1, 1, 2, 3, 1, 2, 3, 1, 2]}[
            wake_every
        ]
    )
    for frame, moment in zip((frame for frame, _ in seen), moments, strict=False):
        assert np.array_equal(
            frame[0].permute(1, 2, 0).numpy(), moment.view.real.picture
        )  # what the player sees


def test_the_dream_alone(agent: Agent, monkeypatch):
    """It begins with real first frames, follows the world, and ends when the world says so."""
    ends = iter([False, False, True] * 5)
    outcome = agent.world.outcome
    monkeypatch.setattr(
        type(agent.world), "outcome", lambda self, x: (outcome(x)[0], torch.tensor([next(ends)]))
    )
    seen: list = []
    moments = list(play(Stage(make_single(CATCH, 3), agent, "dream"), scripted(seen), 7))
    assert [moment.view.over for moment in moments] == ([False] * 3 + [True]) * 2 + [False] * 2
    assert all(moment.view.real is None and moment.view.error is None for moment in moments)
    env = make_single(CATCH, 3)
    for moment in (m for m in moments if m.action is None):
        assert np.array_equal(moment.view.dream.picture, env.reset()[0])
    assert [moment.view.alone for moment in moments] == [0, 1, 2, 3] * 2 + [0, 1]
    before = [moment for moment in moments[:-1] if not moment.view.over]
    for (frame, begins), moment in zip(seen, before, strict=True):
        assert begins == (moment.action is None)
        assert np.array_equal(frame[0].permute(1, 2, 0).numpy(), moment.view.dream.picture)


@torch.no_grad()
def test_the_agent_remembers_an_episode_and_no_other(agent: Agent):
    seen: list = []
    choose, chosen = by_agent(agent, 0.0), []

    def noted(frame: torch.Tensor, begins: bool) -> int:
        seen.append((frame, begins))
        chosen.append(choose(frame, begins))
        return chosen[-1]

    list(play(Stage(make_single(CATCH, 3)), noted, 20))
    state, expected = None, []
    for frame, begins in seen:
        state = agent.policy.initial_state(1) if begins else state
        action, state = agent.act(frame, state, greedy)
        expected.append(int(action))
    assert chosen == expected


def test_the_context_may_run_full(agent: Agent):
    """Of 6 steps: the dream goes on."""
    dream = Dream(agent)
    dream.begin(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert (
        all(np.isfinite(dream.step(np.array([t % 3])).total) for t in range(20))
        and dream.alone == 20
    )


def test_end_probability_is_that_by_which_ends_are_sampled(agent: Agent):
    torch.manual_seed(0)
    action_features = torch.randn(5, 32).repeat(20_000, 1, 1)
    with torch.no_grad():
        _, ends = agent.world.outcome(action_features)
        probability = agent.world.end_probability(action_features[0])
    assert probability.shape == (5,) and probability.dtype == torch.float32
    assert (ends.float().mean(dim=0) - probability).abs().max() < 0.02


def test_what_is_written_below_a_frame():
    picture = np.zeros((4, 4, 3), np.uint8)
    assert values(Side(picture, 0.0)) == {"reward": "–", "return": "+0.00", "end": "–"}
    assert values(Side(picture, 3.14159, -1.0, 0.0345)) == {
        "reward": "-1.00",
        "return": "+3.14",
        "end": "3.5 %",
    }
    assert values(Side(picture, -0.001, -0.0, 1.0)) == {
        "reward": "+0.00",
        "return": "+0.00",
        "end": "100.0 %",
    }


def test_a_drawn_moment(agent: Agent, monkeypatch):
    """Each number stands where it belongs."""
    given = []
    monkeypatch.setattr("agent.dream.player.scene", lambda *arguments: given.append(arguments))
    real, dream = (
        Side(np.full((32, 32, 3), shade, np.uint8), 2.0, 1.0, end)
        for shade, end in ((9, 0.0), (99, 0.25))
    )
    view = View(real, dream, over=False, tokens=np.arange(4), alone=1, error=90.0)
    draw(PlayerStep(7, 2, np.array([1]), view), label, [("x", "left"), ("y", "stay")])
    draw(PlayerStep(8, 2, np.array([2]), View(real, None, over=True)), label)
    (panels, title, note, keys, marked, scale), (after_end, *_) = given
    assert (title, note, keys, marked, scale) == (
        "episode 2, step 7",
        "stay",
        [("x", "left"), ("y", "stay")],
        1,
        12,
    )
    assert panels[0] == Panel(
        real.picture, "reality", "", {"reward": "+1.00", "return": "+2.00", "end": "0.0 %"}
    )
    assert panels[1][1:4] == ("dream", "1 step from reality", {
        "reward": "+1.00", "return": "+2.00", "end": "25.0 %", "error of 255": "90.0"
    })  # fmt: skip
    assert panels[1].frame is dream.picture and panels[1].tokens is view.tokens
    assert after_end[0].note == "over"  # by a limit of steps: nothing ended


def test_reality_and_dream_are_shown_at_the_same_size(agent: Agent):
    """Also where frames are rendered, larger than the agent sees them."""
    config = EnvConfig(id=CATCH.id, pixels="render", size=32)
    assert next(play(Stage(make_rendered(config, 3)), scripted(), 1)).view.real.picture.shape == (
        256,
        256,
        3,
    )
    for moment in play(Stage(make_single(config, 3), agent, "both", None), scripted(), 12):
        assert moment.view.real.picture.shape == moment.view.dream.picture.shape == (32, 32, 3)


def test_all_pictures_of_a_stage_have_one_size(agent: Agent):
    env = make_single(CATCH, 3)
    for stage in (
        Stage(make_rendered(CATCH, 3)),
        Stage(env, agent, "dream"),
        Stage(env, agent, "both", 2),
    ):
        pictures = [draw(moment, label) for moment in play(stage, scripted(), 12)]
        assert len({picture.shape for picture in pictures}) == 1 and pictures[0].dtype == np.uint8
        assert pictures[0].shape[0] % 2 == pictures[0].shape[1] % 2 == 0
        assert len({picture.tobytes() for picture in pictures}) == len(
            pictures
        )  # the step is counted
