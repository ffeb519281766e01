"""Aggregates against sums by hand, brute force, SciPy and the published numbers."""

import statistics

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.aggregates import (
    aggregate,
    estimate,
    interquartile_mean,
    mean,
    probability_of_improvement,
)
from envs.published import DELTA_IRIS_ATARI
from envs.scores import RANDOM_AND_HUMAN, human_normalized_score

PUBLISHED = {
    game: [human_normalized_score(game, score) for score in scores]
    for game, scores in DELTA_IRIS_ATARI.items()
}
# Three games of two, three and one runs.
RAGGED = {"a": [0.0, 0.5], "b": [1.0, 2.0, 3.0], "c": [0.25]}

scores_of_games = st.dictionaries(
    st.text(max_size=3), st.lists(st.floats(-5, 20), min_size=1, max_size=6), min_size=1, max_size=6
)


def brute_force(scores: dict[str, list[float]]) -> dict[str, float]:
    """The five aggregates, without NumPy and by other words."""
    means = [statistics.fmean(runs) for runs in scores.values()]
    pooled = sorted(run for runs in scores.values() for run in runs)
    quarter = len(pooled) // 4
    return {
        "mean": statistics.fmean(means),
        "median": statistics.median(means),
        "IQM": statistics.fmean(pooled[quarter : len(pooled) - quarter]),
        "optimality gap": statistics.fmean(1 - run if run < 1 else 0.0 for run in pooled),
        "games above human": len([value for value in means if value > 1]),
    }


def test_what_delta_iris_published():
    assert set(DELTA_IRIS_ATARI) == set(RANDOM_AND_HUMAN)
    found = aggregate(PUBLISHED)
    expected = {
        "mean": 1.383,
        "median": 0.594,
        "IQM": 0.682,
        "optimality gap": 0.443,
        "games above human": 12,
    }
    assert {name: round(float(e.value), 3) for name, e in found.items()} == expected
    for e in found.values():
        assert e.low <= e.value <= e.high


@settings(deadline=None, max_examples=30)
@given(scores_of_games)
def test_brute_force(scores):
    found = aggregate(scores, resamples=10)
    for name, value in brute_force(scores).items():
        assert found[name].value == pytest.approx(value, abs=1e-9), name


def test_the_interval_is_that_of_scipy():
    """Its samples are resampled independently, which makes games strata."""
    samples = [np.array(runs) for runs in PUBLISHED.values()]
    ours = estimate(interquartile_mean, PUBLISHED)
    theirs = scipy.stats.bootstrap(
        samples, lambda *rows, axis: interquartile_mean(rows), vectorized=True, paired=False, method="percentile",
        n_resamples=10_000, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_games_are_resampled_each_by_itself():
    """Between games there is a difference, within them none: so there is nothing to resample."""
    for e in aggregate({"a": [0.0, 0.0, 0.0], "b": [2.0, 2.0], "c": [0.5]}).values():
        assert e.low == e.value == e.high


def test_a_seed_decides_the_resamples():
    before = np.random.get_state()[1].tolist()
    first, again, other = (estimate(mean, RAGGED, seed=seed, resamples=50) for seed in (0, 0, 1))
    assert first == again != other
    assert np.random.get_state()[1].tolist() == before


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_improvement_is_mann_whitney(data):
    runs = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=6)
    ours, theirs = ({game: data.draw(runs) for game in "abc"} for _ in range(2))
    expected = [
        scipy.stats.mannwhitneyu(ours[game], theirs[game]).statistic
        / (len(ours[game]) * len(theirs[game]))
        for game in "abc"
    ]
    found = estimate(probability_of_improvement, ours, theirs, resamples=10).value
    assert found == pytest.approx(statistics.fmean(expected))


@pytest.mark.parametrize("scores", [{}, {"a": []}, {"a": [float("nan")]}])
def test_what_is_no_score_is_refused(scores):
    with pytest.raises(ValueError, match="one game and one run or more"):
        aggregate(scores)
