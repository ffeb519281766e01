"""What the replay, the figures and an evaluation have of episodes that broke off."""

from functools import partial

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.config import EvaluationConfig, ReplayConfig
from agent.data.collect import Collector
from agent.data.replay import Replay
from agent.data.sampler import SampleSpec
from agent.evaluation.evaluate import evaluate
from agent.runs.train import train
from agent.storage import checkpoint
from agent.storage.metrics import read_metrics
from envs.config import EnvConfig
from envs.errors import EnvironmentFailed
from envs.spaces import Spaces
from envs.vector import make_vector
from tests.agent.runs.test_run import check_equal, resume
from tests.envs.misbehaving import Misbehaving
from tests.envs.test_failures import config
from tests.tiny import tiny

SPACES = Spaces(3, 32, (3,))
RESTART = ("env.id=Misbehaving-v0", "env.on_error=restart")


@pytest.fixture(scope="module")
def agent() -> Agent:
    torch.manual_seed(0)
    return Agent(tiny().agent, SPACES).eval()


def collector(agent: Agent, env: EnvConfig, seeds=(0,)) -> Collector:
    replay = Replay(ReplayConfig(capacity=1000), len(seeds), SPACES, seed=0)
    return Collector(make_vector(env, list(seeds)), agent, replay, 0.0)


def test_the_step_that_failed_is_in_no_episode(agent, capsys):
    """Failing at every fourth step of the second episode: of 7 + 3 steps, then 7 + 3 again."""
    own = collector(agent, config("raise", on_error="restart"))
    progress = []
    episodes = own.collect(35, random=True, progress=progress.append)
    assert [(e.length, e.total_reward, e.is_broken) for e in episodes[:4]] == [
        (7, 7.0, False),
        (3, 3.0, True),
    ] * 2
    assert sum(progress) == own.replay.steps_added
    columns = own.replay.table.columns
    steps = own.replay.table.usable()[1]
    assert steps[:4].tolist() == [7, 3, 7, 3]
    assert columns["terminated"][:4].tolist() == [True, False, True, False]
    assert columns["truncated"][:4].tolist() == [False, True, False, True]
    assert (
        own.restarts == 3
        and capsys.readouterr().out.count("KeyError: 'level 4'; it is restarted.") == 3
    )

    own.replay.alpha = 0.0
    segments = own.replay.sample("test", SampleSpec(400, 12, "around"))
    rewards, mask = segments.rewards, segments.mask
    assert (rewards[mask] == 1).all()  # that of the step that failed is none
    # Within an episode each frame's black line is one further down: no frame of another episode is
    # among them, and none comes twice.
    lines = (segments.frames[:, :, 0, :, 0] == 0).float().argmax(-1)
    follows = mask[:, :-1]
    assert (lines[:, 1:] - lines[:, :-1] == 1)[follows].all()
    colors = segments.frames[:, :, 0, 31, 31].int()
    assert (colors[:, 1:] == colors[:, :-1])[follows].all()
    assert segments.truncated.any() and (lines[segments.truncated] == 2).all()  # the third step's


@pytest.mark.parametrize("steps", range(9, 14))
def test_resumed_around_a_failure(agent, steps):
    torch.manual_seed(steps)
    env = config("raise", on_error="restart")
    own, other = collector(agent, env, (0, 1)), collector(agent, config(None), (0, 1))
    own.collect(2 * steps, random=True)
    tensors, rest = own.state_dict()
    other.replay.load_state_dict(own.replay.state_dict())
    other.replay.load_rows(0, own.replay.rows(0, own.replay.table.vector_steps))
    assert other.load_state_dict(tensors, rest)
    assert torch.equal(other.player.frames, own.player.frames)
    for env in (*own.player.envs.envs, *other.player.envs.envs):
        env.unwrapped.left = 1000
    for one in (own, other):
        torch.manual_seed(1)
        one.collect(30, random=True)
    for name, column in own.replay.table.columns.items():
        np.testing.assert_array_equal(column, other.replay.table.columns[name])
    for name, rows in own.replay.rows(0, own.replay.table.vector_steps).items():
        assert torch.equal(rows, other.replay.rows(0, other.replay.table.vector_steps)[name])


def test_one_that_was_lost_unsaid_is_cut(agent):
    """Its position says that its episode is over, and its step has not said so yet."""
    own, other = collector(agent, config(None)), collector(agent, config(None))
    own.collect(4, random=True)
    tensors, _ = own.state_dict()
    other.replay.load_state_dict(own.replay.state_dict())
    assert not other.load_state_dict(tensors, {"positions": [[1, 0, []]]})
    assert other.replay.table.columns["truncated"].tolist() == [True]


def test_evaluation_plays_others_for_those_that_broke_off(agent):
    env = config("raise", after=10, on_error="restart")
    result = evaluate(agent, env, EvaluationConfig(episodes=3, num_envs=1))
    assert result.lengths.tolist() == [7, 7, 7] and result.returns.tolist() == [7.0] * 3
    assert [played.position[:2] for played in result.played] == [(0, 0), (2, 2), (4, 4)]
    assert len(result.failures) == 2 and result.cut == 0
    assert "restarted 2 times" in result.remarks()[-1]


def test_a_recording_is_of_one_episode(agent, monkeypatch):
    """The first breaks off, and the second is whole."""
    after, make = iter([3, 1000]), Misbehaving.__init__
    monkeypatch.setattr(Misbehaving, "__init__", lambda self, fault: make(self, fault, next(after)))
    env = EnvConfig(id="Misbehaving-v0", kwargs={"fault": "raise"}, on_error="restart")
    recording = evaluate(agent, env, EvaluationConfig(episodes=1, num_envs=1)).recording
    assert recording.mask.tolist() == [True] * 7 + [False]
    lines = (recording.frames[:, 0, :, 0] == 0).int().argmax(-1)
    assert lines.tolist() == list(range(8))


def test_an_evaluation_always_ends(agent):
    result = evaluate(
        agent, config("endless"), EvaluationConfig(episodes=3, num_envs=2, max_steps=50)
    )
    assert result.lengths.tolist() == [50] * 3 and result.cut == 3
    assert result.remarks() == [
        "3 of 3 episodes had not ended after evaluation.max_steps=50 steps, and count as they "
        "stood then."
    ]
    assert (
        evaluate(agent, config(None), EvaluationConfig(episodes=3, num_envs=2, max_steps=7)).cut
        == 0
    )  # just ended


@pytest.mark.usefixtures("without_films")
class TestRun:
    def run(self, folder, *overrides: str) -> None:
        train(tiny(f"run={folder}", *overrides), [])

    @pytest.mark.slow
    def test_resumed_to_the_bit(self, tmp_path, capsys):
        """Failures among the episodes before, in the running ones, and after."""
        env = (*RESTART, "env.kwargs.fault=by seed", "env.max_restarts=100", "keep=9")
        whole, halves = tmp_path / "whole", tmp_path / "halves"
        self.run(whole, *env, "epochs=3")
        self.run(halves, *env, "epochs=2")
        resume(halves, "epochs=3")
        check_equal(whole, halves)
        restarts = sum(row["collect/restarts"] for row in read_metrics(halves / "metrics.csv"))
        assert restarts >= 3 and capsys.readouterr().out.count("it is restarted") >= restarts

    @pytest.mark.slow
    def test_stopped_it_keeps_what_was_played(self, tmp_path):
        """It goes on, each time, with the episodes after those that broke off, to the end."""
        env = (
            "env.id=Misbehaving-v0",
            "env.kwargs.fault=raise",
            "env.kwargs.after=38",
            "collect.first_steps=200",
            "epochs=2",
        )
        go, played = partial(self.run, tmp_path / "run", *env), [0]
        while True:
            try:
                go()
                break
            except EnvironmentFailed as error:
                saved = checkpoint.load(tmp_path / "run")
                assert saved.paused and f"{saved.folder.name} (go on with" in str(error)
                played.append(saved.state["replay"]["steps_added"])
                assert played[-1] >= played[-2] + 60
                go = partial(resume, tmp_path / "run")
        assert len(played) >= 3
        saved = checkpoint.load(tmp_path / "run")
        episodes = saved.tensors["replay"]
        rows = torch.cat([saved.rows(chunk)["frames"] for chunk in saved.chunks])
        assert episodes["truncated"].sum() >= 2 * (len(played) - 1)
        log = read_metrics(tmp_path / "run" / "metrics.csv")
        # Those too that ended before a failure in the same epoch.
        assert sum(row["collect/episodes"] for row in log) == episodes["terminated"].sum() > 0
        # The black line is at the top of an episode's first frame. Were the episodes of 230 colors
        # the first ones again each time, a third of them would be new.
        firsts = rows[(rows[..., 0, 0, 0] == 0) & (rows[..., 0, 1, 0] != 0)]
        colors = [int(frame[0, 31, 31]) for frame in firsts]
        assert len(set(colors)) > 0.8 * len(colors)

    @pytest.mark.slow
    def test_stopped_in_an_evaluation(self, tmp_path, monkeypatch):
        """A resumed run evaluates anew: it stops again until the environment is mended."""
        run, env = (
            tmp_path / "run",
            ("env.id=Misbehaving-v0", "env.evaluation_kwargs.fault=raise", "env.kwargs.after=35"),
        )
        go = partial(
            self.run, run, *env, "checkpoint_every=9", "evaluate_every=2", "evaluation.episodes=16"
        )
        for _ in range(2):
            with pytest.raises(EnvironmentFailed, match=r"KeyError.*epoch_000002_paused \(go on"):
                go()
            go = partial(resume, run)
        monkeypatch.setattr(Misbehaving, "misbehave", lambda self: None)
        go()
        assert checkpoint.load(run).epoch == 2 and not checkpoint.load(run).paused

    def test_the_first_reset_fails(self, tmp_path, monkeypatch):
        """Nothing is left of the run."""
        resets = iter(range(100))
        reset = Misbehaving.reset
        monkeypatch.setattr(
            Misbehaving,
            "reset",
            lambda self, **kwargs: reset(self, **kwargs) if next(resets) < 12 else 1 / 0,
        )
        with pytest.raises(EnvironmentFailed, match="begins its episode 1: ZeroDivisionError"):
            self.run(tmp_path / "run", "env.id=Misbehaving-v0")
        assert not (tmp_path / "run").exists()
