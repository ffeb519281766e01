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
    """Of four episodes wood is collected in three (2, 1, 0 and 7 pieces), sleep ended in one."""
    none = dict.fromkeys(CRAFTER_ACHIEVEMENTS, 0)
    episodes = [none | {"collect_wood": wood} for wood in (2, 1, 0, 7)]
    episodes[2]["wake_up"] = 1
    rates = crafter_success_rates(episodes)
    assert rates == none | {"collect_wood": 75.0, "wake_up": 25.0}


def test_score_by_hand():
    """Half of the achievements at 0 %, half at 99 %: the mean of ln(1) and ln(100) is ln(10)."""
    rates = {name: 99.0 * (index % 2) for index, name in enumerate(CRAFTER_ACHIEVEMENTS)}
    assert crafter_score(rates) == pytest.approx(9.0)  # the arithmetic mean would be 49.5


@given(st.floats(0, 100))
def test_equal_rates_are_their_own_score(rate: float):
    assert crafter_score(dict.fromkeys(CRAFTER_ACHIEVEMENTS, rate)) == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize(
    ("game", "score", "normalized"), [("Boxing", 6.1, 0.5), ("Freeway", 59.2, 2.0)]
)
def test_human_normalized_score_by_hand(game, score, normalized):
    assert human_normalized_score(game, score) == pytest.approx(normalized)


def test_the_benchmark_has_26_games_in_which_humans_are_better_than_random():
    assert len(RANDOM_AND_HUMAN) == 26 and list(RANDOM_AND_HUMAN) == sorted(RANDOM_AND_HUMAN)
    assert all(human > random for random, human in RANDOM_AND_HUMAN.values())
