import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.scores import (
    CRAFTER_ACHIEVEMENTS,
    RANDOM_AND_HUMAN,
    crafter_score,
    crafter_success_rates,
    human_normalized_score,
)


def test_rates_by_hand():
    # Four episodes: wood is collected in three of them (2, 1, 0 and 7 pieces), sleep ended in one.
    counts = np.zeros((4, 22), np.int64)
    counts[:, CRAFTER_ACHIEVEMENTS.index("collect_wood")] = 2, 1, 0, 7
    counts[2, CRAFTER_ACHIEVEMENTS.index("wake_up")] = 1
    rates = crafter_success_rates(counts)
    assert tuple(rates) == CRAFTER_ACHIEVEMENTS
    assert rates["collect_wood"] == 75.0
    assert rates["wake_up"] == 25.0
    assert sum(rates.values()) == 100.0


def test_dictionaries_and_arrays_give_the_same():
    counts = np.random.default_rng(0).integers(0, 3, (5, 22))
    # Entries in reverse: names decide, not their order.
    episodes = [dict(reversed(list(zip(CRAFTER_ACHIEVEMENTS, row)))) for row in counts.tolist()]
    assert crafter_success_rates(episodes) == crafter_success_rates(counts)


def test_score_by_hand():
    # Eleven achievements at 0 % and eleven at 99 %: the mean of ln(1) = 0 and ln(100) is ln(10),
    # so the score is 10 - 1 = 9 (the arithmetic mean would be 49.5).
    rates = {name: 99.0 * (index % 2) for index, name in enumerate(CRAFTER_ACHIEVEMENTS)}
    assert crafter_score(rates) == pytest.approx(9.0)


@given(st.floats(0, 100))
def test_equal_rates_are_their_own_score(rate: float):
    assert crafter_score(dict.fromkeys(CRAFTER_ACHIEVEMENTS, rate)) == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize("shape", [(0, 22), (3, 21), (22,)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="episodes, 22"):
        crafter_success_rates(np.zeros(shape))


@pytest.mark.parametrize(
    ("game", "score", "normalized"),
    [("Boxing", 0.1, 0.0), ("Boxing", 6.1, 0.5), ("Freeway", 59.2, 2.0), ("Pong", -20.7, 0.0)],
)
def test_human_normalized_score_by_hand(game, score, normalized):
    assert human_normalized_score(game, score) == pytest.approx(normalized)


def test_the_benchmark_has_26_games_in_which_humans_are_better_than_random():
    assert len(RANDOM_AND_HUMAN) == 26 and list(RANDOM_AND_HUMAN) == sorted(RANDOM_AND_HUMAN)
    assert all(human > random for random, human in RANDOM_AND_HUMAN.values())
