import gymnasium
import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec

from agent.agent import Agent
from agent.config import EvaluationConfig
from agent.evaluation.evaluate import evaluate, selection
from agent.media.previews import write_best_and_median
from envs.config import EnvConfig
from envs.games.catch import CatchEnv
from envs.make import make_single
from envs.scores import CRAFTER_ACHIEVEMENTS
from envs.spaces import Spaces
from tests.agent.conftest import SIZE
from tests.agent.data.test_collect import counters
from tests.tiny import TINY_CRAFTER, tiny

CATCH = EnvConfig(id="deltadream/Catch-v0")


@pytest.fixture(scope="module")
def catcher() -> Agent:
    torch.manual_seed(0)
    return Agent(tiny().agent, Spaces(3, 32, (3,))).eval()


def test_each_environment_plays_its_share(agent, monkeypatch):
    """So that short episodes are not favoured: whoever is quick does not play more of them."""
    monkeypatch.setattr(
        "agent.evaluation.evaluate.make_vector",
        lambda env, seeds, max_steps: counters(*[1, 2, 30][: len(seeds)]),
    )
    progress: list[int] = []
    result = evaluate(agent, EnvConfig(), EvaluationConfig(episodes=8, num_envs=3), progress.append)
    assert result.lengths.tolist() == [1] * 3 + [2] * 3 + [30] * 2
    assert result.returns.tolist() == [1.0] * 3 + [2.0] * 3 + [30.0] * 2
    assert progress == [1] * 8
    assert result.achievements is None

    recording = result.recording  # the first environment's first episode, with its last observation
    assert recording.frames.shape == (2, 3, SIZE, SIZE)
    assert recording.frames[:, 0, 0, 0].tolist() == [0, 1]
    assert recording.mask.tolist() == [True, False]
    assert recording.terminated.tolist() == [True, False]
    assert recording.rewards.tolist() == [1, 0]

    few = evaluate(agent, EnvConfig(), EvaluationConfig(episodes=2, num_envs=16))
    assert few.lengths.tolist() == [1, 2]


def test_two_evaluations_agree(catcher):
    config = EvaluationConfig(episodes=12, num_envs=4)
    torch.manual_seed(1)
    first = evaluate(catcher, CATCH, config)
    torch.manual_seed(2)
    second = evaluate(catcher, CATCH, config)
    assert first.summary() == second.summary()
    np.testing.assert_array_equal(first.returns, second.returns)
    assert (first.recording == second.recording).all()
    parallel = evaluate(catcher, EnvConfig(id=CATCH.id, parallel=True), config)
    np.testing.assert_array_equal(first.returns, parallel.returns)
    other = evaluate(catcher, CATCH, EvaluationConfig(episodes=12, num_envs=4, seed=5))
    assert not torch.equal(first.recording.frames, other.recording.frames)


def test_temperature():
    """Logits are divided by it; at 0 the likeliest action is taken."""
    logits = torch.tensor([0.0, 1.0, -1.0]).repeat(20_000, 1)
    for temperature in (0.5, 1.0, 2.0):
        torch.manual_seed(0)
        chosen = selection(temperature)(logits)
        expected = (logits[0] / temperature).softmax(dim=0)
        assert (chosen.bincount(minlength=3) / 20_000 - expected).abs().max() < 0.02
    assert (selection(0)(logits) == 1).all()


class Bonus(CatchEnv):
    """Gives a reward more at each step."""

    def __init__(self, bonus: float = 0.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.bonus = bonus

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, reward + self.bonus, *rest


def test_an_environment_may_differ_in_evaluation(catcher, monkeypatch):
    monkeypatch.setitem(gymnasium.registry, "Bonus-v0", EnvSpec("Bonus-v0", Bonus))
    env = EnvConfig(id="Bonus-v0", kwargs={"bonus": 1.0}, evaluation_kwargs={"bonus": 10.0})
    result = evaluate(catcher, env, EvaluationConfig(episodes=3, num_envs=2))
    assert (result.returns > 80).all()


def test_every_episode_can_be_seen_again(catcher, tmp_path):
    """Best and median, played once more to the same return, as the environment renders them."""
    result = evaluate(catcher, CATCH, EvaluationConfig(episodes=9, num_envs=4), random=True)
    for played, value in zip(result.played, result.returns, strict=True):
        env = make_single(CATCH, played.seed)
        assert sum(reward for _, reward, _ in env.go_to(played.position)) == value
    result.returns += 1e-9  # as if rewards of 0.1 had been summed up and rounded in another way
    films = write_best_and_median(tmp_path / "result", CATCH, result)
    assert [film.name for film in films] == ["result_best.mp4", "result_median.mp4"]
    lengths = result.lengths[np.argsort(result.returns, kind="stable")[[-1, 4]]]
    assert [len(imageio.mimread(film)) for film in films] == [length + 1 for length in lengths]


def test_an_episode_that_is_one_life_of_a_game(catcher, tmp_path):
    env = EnvConfig(id="deltadream/Atari-v0", game="Breakout", kwargs={"size": 32})
    result = evaluate(catcher, env, EvaluationConfig(episodes=4, num_envs=1), random=True)
    films = write_best_and_median(tmp_path / "result", env, result)
    lengths = result.lengths[np.argsort(result.returns, kind="stable")[[-1, 1]]]
    assert [len(imageio.mimread(film)) for film in films] == [length + 1 for length in lengths]


def test_a_film_is_optional(catcher, tmp_path, capsys):
    """Of an episode that does not come back, or where nothing can be written, there is none."""
    result = evaluate(catcher, CATCH, EvaluationConfig(episodes=3, num_envs=3), random=True)
    result.returns = result.returns + 0.5
    assert write_best_and_median(tmp_path / "result", CATCH, result) == []
    assert list(tmp_path.iterdir()) == []
    result.returns = result.returns - 0.5
    (tmp_path / "result_best.mp4").mkdir()
    films = write_best_and_median(tmp_path / "result", CATCH, result)
    assert [film.name for film in films] == ["result_median.mp4"]
    assert "result_best.mp4 was not made: IsADirectoryError" in capsys.readouterr().err


def test_random_states_outside_stay(catcher):
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    weights = {name: value.clone() for name, value in catcher.state_dict().items()}
    evaluate(catcher, CATCH, EvaluationConfig(episodes=3, num_envs=2))
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert all(torch.equal(value, weights[name]) for name, value in catcher.state_dict().items())


def test_random_play(catcher, monkeypatch):
    monkeypatch.setattr(catcher, "act", None)
    result = evaluate(catcher, CATCH, EvaluationConfig(episodes=200, num_envs=50), random=True)
    # The paddle's column after 8 uniform moves from the middle, against a uniform ball: it catches
    # 0.2 of the balls.
    assert abs(result.returns.mean() - (-0.6)) < 5 * 0.8 / np.sqrt(200)
    assert (result.lengths == 9).all()


def test_summary(agent, monkeypatch):
    monkeypatch.setattr(
        "agent.evaluation.evaluate.make_vector",
        lambda env, seeds, max_steps: counters(*[2, 4, 9][: len(seeds)]),
    )
    summary = evaluate(agent, EnvConfig(), EvaluationConfig(episodes=3, num_envs=3)).summary()
    assert (
        summary["return_mean"] == 5
        and summary["return_median"] == 4
        and summary["length_mean"] == 5
    )
    assert summary["return_standard_error"] == pytest.approx(np.sqrt((9 + 1 + 16) / 2 / 3))
    # Of 27 equally likely resamples one comes to a mean of 2 and one to 9: more than 2.5 % of them.
    assert summary["return_95_low"] == 2 and summary["return_95_high"] == 9
    one = evaluate(agent, EnvConfig(), EvaluationConfig(episodes=1)).summary()
    assert all(
        np.isnan(one[name]) for name in ("return_95_low", "return_95_high", "return_standard_error")
    )


def test_crafter_score():
    torch.manual_seed(0)
    config = tiny(base=TINY_CRAFTER)
    agent = Agent(config.agent, Spaces(3, 64, (17,))).eval()
    result = evaluate(agent, config.env, EvaluationConfig(episodes=3, num_envs=2))
    assert (result.lengths <= 60).all() and len(result.achievements) == 3
    summary = result.summary()
    rates = [summary[f"success_rate/{name}"] for name in CRAFTER_ACHIEVEMENTS]
    for name, rate in zip(CRAFTER_ACHIEVEMENTS, rates, strict=True):
        assert rate == pytest.approx(
            100 / 3 * sum(episode[name] > 0 for episode in result.achievements)
        )
    assert summary["crafter_score"] == pytest.approx(np.exp(np.mean(np.log1p(rates))) - 1)
    assert max(rates) > 0
