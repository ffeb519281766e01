"""What is played and seen: the same actions in reality and in the dream."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.dream.player import Stage, by_agent, play
from agent.nets.heads import greedy
from agent.segment import unlabelled_segment
from envs.config import EnvConfig
from envs.make import make_rendered, make_single
from envs.spaces import Spaces
from tests.tiny import OF_AGENT, tiny_of

CATCH = EnvConfig(id="deltadream/Catch-v0")
ACTIONS = [0, 2, 1, 0, 2, 2, 1, 0, 1]


@pytest.fixture(scope="module", params=OF_AGENT)
def agent(request) -> Agent:
    """Burn-in 2, context 6; weights so large that actions matter."""
    torch.manual_seed(0)
    agent = Agent(tiny_of(request.param).agent, Spaces(3, 32, (3,))).eval()
    with torch.no_grad():
        for p in [*agent.tokenizer.parameters(), *agent.dynamics.parameters()]:
            if p.ndim == 2:
                p.normal_(std=0.3)
        agent.policy.actor.weight.normal_()
    return agent


def scripted(seen: list):
    """Plays ACTIONS over and over; what it sees is added to `seen`."""

    def choose(frame: torch.Tensor, begins: bool) -> np.ndarray:
        seen.append((frame[0].permute(1, 2, 0).numpy(), begins))
        return np.array([ACTIONS[(len(seen) - 1) % len(ACTIONS)]])

    return choose


def by_hand(episodes: int) -> list[tuple[np.ndarray, float, bool]]:
    """(observation, reward, terminated) of Catch under ACTIONS, episode after episode."""
    env, seen = make_single(CATCH, 3), []
    for _ in range(episodes):
        seen.append((env.reset()[0], 0.0, False))
        seen.extend(env.step(action)[:3] for action in ACTIONS)
    return seen


def played(stage: Stage, choose, steps: int) -> list[tuple]:
    """(picture, panels, over) of each step."""
    return [(picture, dict(stage.panels), stage.over) for picture in play(stage, choose, steps)]


def test_reality(capsys):
    """As the environment renders it; the player sees observations."""
    seen: list = []
    steps, expected = played(Stage(make_rendered(CATCH, 3)), scripted(seen), 20), by_hand(3)
    assert len(steps) == 20 + 3  # and three first frames
    total = 0.0
    for i, ((_, panels, over), (observation, reward, end)) in enumerate(
        zip(steps, expected, strict=False)
    ):
        first, panel = i % 10 == 0, panels["reality"]
        total = 0.0 if first else total + reward
        assert list(panels) == ["reality"] and over == end
        assert np.array_equal(panel.frame, observation.repeat(8, 0).repeat(8, 1))
        assert panel.values == {
            "reward": "–" if first else f"{reward:+.4g}",
            "return": f"{total:+.4g}",
            "end": "–" if first else f"{end:.1%}",
        }
    before = [observation for observation, _, end in expected if not end]
    for i, ((frame, begins), observation) in enumerate(zip(seen, before, strict=False)):
        assert begins == (i % 9 == 0) and np.array_equal(frame, observation)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("episode 1 ended at step 9 with return ")
    assert first.endswith(" in reality") and "at step 18" in second


@torch.no_grad()
def expected_dream(agent: Agent, wake_every: int | None) -> list[tuple]:
    """(frame, tokens, reward, end probability, steps from reality) of an episode of `both`."""

    def start(t: int) -> object:
        """The world as it wakes from the newest frames after t steps, at most two."""
        first = max(0, t - 1)
        shown = torch.from_numpy(np.stack(frames[first : t + 1])).permute(0, 3, 1, 2)[None]
        actions = torch.tensor([*ACTIONS[first:t], 0])[None, :, None]
        mask = torch.ones(1, t + 1 - first, dtype=torch.bool)
        return agent.world.start(unlabelled_segment(shown, actions, mask))

    frames = [observation for observation, _, _ in by_hand(1)]
    world, state, alone, result = agent.world, start(0), 0, []
    for t, action in enumerate(ACTIONS, start=1):
        imagined, state = world.step(state, torch.tensor([[action]]))
        alone += 1
        reward, _ = world.outcome(imagined.action_features)
        end = agent.dynamics.end_head(imagined.action_features).softmax(-1)[0, 1]
        frame = world.frames(state.latent)[0].permute(1, 2, 0).numpy()
        result.append((frame, imagined.tokens[0].tolist(), float(reward), float(end), alone))
        if t == 1 or alone == wake_every:
            state, alone = start(t), 0
    return result


@pytest.mark.parametrize("wake_every", [None, 3])
def test_both(agent: Agent, wake_every: int | None):
    """Under the same actions; the player sees reality, which decides the end."""
    seen: list = []
    torch.manual_seed(5)
    steps = played(Stage(make_single(CATCH, 3), agent, "both", wake_every), scripted(seen), 9)
    torch.manual_seed(5)
    expected, real = expected_dream(agent, wake_every), by_hand(1)

    first = steps[0][1]
    assert np.array_equal(first["dream"].frame, first["reality"].frame)
    assert first["dream"].values["error of 255"] == "0.0" and set(first["dream"].tokens) == {-1}
    total = 0.0
    for (_, panels, over), (frame, tokens, reward, end, alone), (observation, _, ended) in zip(
        steps[1:], expected, real[1:], strict=True
    ):
        total += reward
        dream = panels["dream"]
        assert np.array_equal(panels["reality"].frame, observation) and over == ended
        assert np.array_equal(dream.frame, frame) and list(dream.tokens) == tokens
        assert dream.values == {
            "reward": f"{reward:+.4g}",
            "return": f"{total:+.4g}",
            "end": f"{end:.1%}",
            "error of 255": f"{np.abs(observation.astype(float) - frame).mean():.1f}",
        }
        assert dream.note == f"{alone} from reality"
    assert all(np.array_equal(a, b) for (a, _), (b, _, _) in zip(seen, real, strict=False))


def test_the_dream_alone(agent: Agent, monkeypatch):
    """It begins with real first frames, and ends when the world says so, or never."""
    ends = iter([False, False, True] + [False] * 20)
    outcome = agent.world.outcome
    monkeypatch.setattr(
        type(agent.world), "outcome", lambda self, x: (outcome(x)[0], torch.tensor([next(ends)]))
    )
    seen: list = []
    steps = played(Stage(make_single(CATCH, 3), agent, "dream"), scripted(seen), 20)
    assert [over for _, _, over in steps] == [False] * 3 + [True] + [False] * 18
    assert all(list(panels) == ["dream"] for _, panels, _ in steps)
    env = make_single(CATCH, 3)
    for i in (0, 4):
        assert np.array_equal(steps[i][1]["dream"].frame, env.reset()[0])
    assert steps[-1][1]["dream"].note == "17 from reality"  # of a context of 6
    before = [panels["dream"].frame for _, panels, over in steps[:-1] if not over]
    assert all(np.array_equal(a, b) for (a, _), b in zip(seen, before, strict=True))


@torch.no_grad()
def test_the_agent_remembers_an_episode_and_no_other(agent: Agent):
    seen, chosen, state = [], [], None
    choose = by_agent(agent, 0.0)

    def noted(frame: torch.Tensor, begins: bool) -> np.ndarray:
        seen.append((frame, begins))
        chosen.append(choose(frame, begins))
        return chosen[-1]

    list(play(Stage(make_single(CATCH, 3)), noted, 12))
    for (frame, begins), action in zip(seen, chosen, strict=True):
        state = agent.policy.initial_state(1) if begins else state
        expected, state = agent.act(frame, state, greedy)
        assert action == expected.numpy()


def test_end_probability_is_that_by_which_ends_are_sampled(agent: Agent):
    torch.manual_seed(0)
    action_features = torch.randn(5, 32).repeat(20_000, 1, 1)
    with torch.no_grad():
        _, ends = agent.world.outcome(action_features)
        probability = agent.world.end_probability(action_features[0])
    assert (ends.float().mean(dim=0) - probability).abs().max() < 0.02


def test_pictures_have_one_size_and_say_what_is_done(agent: Agent):
    """Also where frames are rendered, larger than the agent sees them."""
    config = EnvConfig(id=CATCH.id, pixels="render", size=32)
    for stage in (
        Stage(make_rendered(config, 3)),
        Stage(make_single(config, 3), agent, "dream"),
        Stage(make_single(config, 3), agent, "both", 2),
    ):
        pictures = [picture for picture, _, _ in played(stage, scripted([]), 12)]
        assert len({picture.shape for picture in pictures}) == 1 and pictures[0].dtype == np.uint8
        assert len({picture.tobytes() for picture in pictures}) == len(pictures)
