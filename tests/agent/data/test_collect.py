import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, MultiDiscrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agent.agent import Agent
from agent.config import ReplayConfig
from agent.data.collect import Collector, Player, achievements_of, to_frames
from agent.data.replay import Replay
from envs.actions import ChooseActions
from envs.config import EnvConfig
from envs.spaces import Spaces
from envs.vector import make_vector
from envs.wrappers import SeededEpisodes
from tests.agent.conftest import ACTIONS, SIZE, SPACES
from tests.tiny import OF_AGENT, tiny_of


class Counter(gymnasium.Env):
    """Frames show the step, rewards are 1, and an episode has as many steps as it is told."""

    observation_space = Box(0, 255, (SIZE, SIZE, 3), np.uint8)
    action_space = MultiDiscrete([ACTIONS, ACTIONS])

    def __init__(self, length: int) -> None:
        self.length = length

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self._frame(), {}

    def step(self, action):
        self.steps += 1
        return self._frame(), 1.0, self.steps == self.length, False, {"steps": self.steps}

    def _frame(self):
        return np.full((SIZE, SIZE, 3), self.steps, np.uint8)


def counters(*lengths: int) -> SyncVectorEnv:
    makers = [lambda n=n: SeededEpisodes(lambda: ChooseActions(Counter(n)), 0) for n in lengths]
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)


def collector(agent: Agent, *lengths: int, epsilon: float = 0.0) -> Collector:
    replay = Replay(ReplayConfig(capacity=10_000), len(lengths), SPACES, seed=0)
    return Collector(counters(*lengths), agent, replay, epsilon)


def test_no_environment_waits_for_another(agent):
    """Beside a long episode a short one is played again and again."""
    own = collector(agent, 2, 50)
    episodes = own.collect(80, random=True)
    # Of 49 rows of the first environment 33 are steps (the third row of each episode is a reset).
    ended = [(e.env, e.length, e.total_reward) for e in episodes]
    assert ended.count((0, 2, 2.0)) == 16 and len(ended) == 16
    frames = own.replay.rows(0, 6)["frames"][:, :, 0, 0, 0]
    assert frames[:, 0].tolist() == [0, 1, 2, 0, 1, 2]
    assert frames[:, 1].tolist() == [0, 1, 2, 3, 4, 5]


def test_exactly_the_steps_are_counted(agent):
    own, seen = collector(agent, 2, 3, 50), []
    for expected in (7, 14):
        own.collect(7, random=False, progress=seen.append)
        assert sum(seen) == own.replay.steps_added
        assert expected <= sum(seen) < expected + 5  # no vector step more than needed


def test_what_the_replay_gets(agent):
    """The frame before a step, its action and reward, and the flags of that step."""
    own = collector(agent, 3)
    own.collect(7, random=False)
    columns = own.replay.table.columns
    assert columns["start"].tolist() == [0, 4, 8]
    assert columns["terminated"].tolist() == [True, True, False]
    rows = own.replay.rows(0, 8)
    assert rows["frames"][:8, 0, 0, 0, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert rows["rewards"][:8, 0].tolist() == [1, 1, 1, 0, 1, 1, 1, 0]


def test_exploration_rate(agent, monkeypatch):
    """A share ε of the actions is uniformly random, the policy's own among them."""
    monkeypatch.setattr(
        agent, "act", lambda frames, state: (torch.zeros(len(frames), 1, dtype=torch.int64), state)
    )
    torch.manual_seed(0)
    own = collector(agent, *[50] * 20, epsilon=0.2)
    own.collect(6000, random=False)
    actions = own.replay.rows(0, own.replay.table.vector_steps)["actions"]
    share = (actions != 0).float().mean().item()
    expected = 0.2 * (ACTIONS - 1) / ACTIONS
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / actions.numel())


def test_first_steps_are_uniformly_random(agent, monkeypatch):
    monkeypatch.setattr(agent, "act", None)
    torch.manual_seed(0)
    own = collector(agent, *[50] * 20)
    own.collect(4000, random=True)
    counts = (
        own.replay.rows(0, own.replay.table.vector_steps)["actions"]
        .flatten()
        .bincount(minlength=ACTIONS)
    )
    assert (counts / counts.sum() - 1 / ACTIONS).abs().max() < 0.04


def test_the_policy_remembers_an_episode_and_nothing_before_it(agent):
    """What the policy carries along equals its state after this episode's frames alone."""
    player = Player(counters(3, 5), agent)
    own = [[], []]
    for _ in range(12):
        for env in range(2):
            if player.done[env]:
                own[env] = []
            else:
                own[env].append(player.frames[env])
        was_done = player.done.copy()
        player.step(agent.act)
        for env in range(2):
            alone = agent.policy.initial_state(1)
            if not was_done[env]:
                alone = agent.policy.burn_in(torch.stack(own[env])[None], alone)
            torch.testing.assert_close(player.state[env], alone[0])


def test_an_array_that_is_used_again():
    """Of one channel too, where there is nothing to put in order."""
    array = np.zeros((2, 4, 4, 1), np.uint8)
    frames = to_frames(array)
    array[:] = 7
    assert not frames.any()


def test_achievements(agent):
    """Crafter's are counted, what others call so is not."""
    envs = make_vector(EnvConfig(kwargs={"length": 2}), [0, 1])
    envs.reset()
    *_, info = [envs.step(np.zeros((2, 1), np.int64)) for _ in range(2)][-1]
    player = Player(counters(2, 3), agent)
    first, second = (player._episode(env, info) for env in range(2))
    assert len(first.achievements) == 22
    assert achievements_of([first, second]) == [first.achievements, second.achievements]
    assert achievements_of([]) is None
    others = collector(agent, 2).collect(4, random=True)
    assert others and achievements_of([first, *others]) is None


@pytest.mark.parametrize(
    ("name", "parallel"), [*((name, False) for name in OF_AGENT), ("delta_iris", True)]
)
def test_resumed_where_it_stood(name, parallel):
    """Every number of steps of Catch, so that environments stand at an episode's end too."""
    env, spaces = EnvConfig(id="deltadream/Catch-v0", parallel=parallel), Spaces(3, 32, (3,))
    agent = Agent(tiny_of(name).agent, spaces).eval()
    for steps in range(16, 24) if name == "delta_iris" and not parallel else (18, 20):
        torch.manual_seed(steps)
        envs = make_vector(env, [0, 1]), make_vector(env, [0, 1])
        own, other = [
            Collector(e, agent, Replay(ReplayConfig(capacity=200), 2, spaces, seed=0), 0.5)
            for e in envs
        ]
        own.collect(steps, random=True)
        tensors, rest = own.state_dict()
        assert other.load_state_dict(tensors, rest)
        rows, again = [], []
        for receiver, player in ((rows, own.player), (again, other.player)):
            torch.manual_seed(1)
            for _ in range(25):
                row, episodes = player.step(lambda f, s: (torch.randint(3, (2, 1)), s))
                receiver.append((row, [(e.env, e.length, e.total_reward) for e in episodes]))
        for (row, episodes), (row_again, episodes_again) in zip(rows, again, strict=True):
            assert episodes == episodes_again
            for column, column_again in zip(row, row_again, strict=True):
                np.testing.assert_array_equal(column, column_again)
        for e in envs:
            e.close()
