"""Aggregates against sums by hand, brute force, SciPy, the published numbers and rliable."""

from __future__ import annotations

import itertools
import random
import statistics

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.aggregates import (
    AGGREGATES,
    aggregate,
    estimate,
    interquartile_mean,
    mean,
    performance_profile,
    probability_of_improvement,
)
from envs.published import DELTA_IRIS_ATARI
from envs.scores import RANDOM_AND_HUMAN, human_normalized_score

PUBLISHED = {
    game: [human_normalized_score(game, score) for score in scores] for game, scores in DELTA_IRIS_ATARI.items()
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
    expected = {"mean": 1.383, "median": 0.594, "IQM": 0.682, "optimality gap": 0.443, "games above human": 12}
    assert {name: round(float(e.value), 3) for name, e in found.items()} == expected
    for e in found.values():
        assert e.low <= e.value <= e.high


def test_by_hand():
    # Means of games: 0.25, 2, 0.25. Of the six runs 0, 0.25, 0.5, 1, 2, 3 the IQM leaves out 0 and 3.
    found = aggregate(RAGGED)
    assert list(found) == list(AGGREGATES)
    assert found["mean"].value == pytest.approx(2.5 / 3)
    assert found["median"].value == pytest.approx(0.25)
    assert found["IQM"].value == pytest.approx(3.75 / 4)
    assert found["optimality gap"].value == pytest.approx((1 + 0.75 + 0.5) / 6)
    assert found["games above human"].value == 1


@settings(deadline=None)
@given(scores_of_games)
def test_brute_force(scores):
    found = aggregate(scores, resamples=10)
    for name, value in brute_force(scores).items():
        assert found[name].value == pytest.approx(value, abs=1e-9), name


def test_the_interval_is_that_of_all_resamples():
    """Two games of three runs have 3^3 · 3^3 resamples, each as likely."""
    a, b = [0.0, 1.0, 4.0], [2.0, 2.5, 9.0]
    means = [
        (sum(first) / 3 + sum(second) / 3) / 2
        for first in itertools.product(a, repeat=3)
        for second in itertools.product(b, repeat=3)
    ]
    found = aggregate({"a": a, "b": b}, resamples=20_000)["mean"]
    assert np.quantile(means, 0.02) <= found.low <= np.quantile(means, 0.03)
    assert np.quantile(means, 0.97) <= found.high <= np.quantile(means, 0.98)


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


def test_profile_by_hand():
    # Of the six runs 0, 0.25, 0.5, 1, 2, 3: a run at the threshold is not above it.
    found = performance_profile(RAGGED, np.array([-1.0, 0.0, 0.4, 1.0, 3.0]), resamples=200)
    assert found.value.tolist() == pytest.approx([1, 5 / 6, 4 / 6, 2 / 6, 0])
    assert (found.low <= found.value).all() and (found.value <= found.high).all()
    assert found.low.shape == found.high.shape == (5,)


def test_improvement_by_hand():
    # On a, of the four pairs (0, 0.5) × (0, 1): 0 ties with 0, 0.5 exceeds 0. On b all are above.
    theirs = {"a": [0.0, 1.0], "b": [0.5], "c": [7.0]}
    assert probability_of_improvement({"a": RAGGED["a"]}, theirs).value == pytest.approx(1.5 / 4)
    both = probability_of_improvement({"b": RAGGED["b"], "a": RAGGED["a"]}, theirs)
    assert both.value == pytest.approx((1.5 / 4 + 1) / 2)
    assert both.low < both.value < both.high


@settings(deadline=None)
@given(st.data())
def test_improvement_is_mann_whitney(data):
    runs = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=6)
    ours, theirs = ({game: data.draw(runs) for game in "abc"} for _ in range(2))
    expected = [
        scipy.stats.mannwhitneyu(ours[game], theirs[game]).statistic / (len(ours[game]) * len(theirs[game]))
        for game in "abc"
    ]
    found = probability_of_improvement(ours, theirs, resamples=10).value
    assert found == pytest.approx(statistics.fmean(expected))
    assert found + probability_of_improvement(theirs, ours, resamples=10).value == pytest.approx(1)


def test_improvement_resamples_both():
    """The interval of a loop that draws with Python's generator."""
    ours, theirs = [1.0, 2.0, 5.0, 6.0], [0.0, 3.0, 4.0]
    draw = random.Random(0).choices
    values = []
    for _ in range(20_000):
        x, y = draw(ours, k=4), draw(theirs, k=3)
        values.append(sum(a > b for a in x for b in y) / 12)
    found = probability_of_improvement({"a": ours}, {"a": theirs})
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, (0.025, 0.975))), abs=0.09)


@pytest.mark.parametrize("scores", [{}, {"a": []}, {"a": [1.0], "b": []}, {"a": [float("nan")]}, {"a": [[1.0]]}])
def test_what_is_no_score_is_refused(scores):
    with pytest.raises(ValueError, match="one game and one run or more"):
        aggregate(scores)
    with pytest.raises(ValueError, match="one game and one run or more"):
        performance_profile(scores, np.zeros(1))


def test_a_game_that_the_others_lack_is_refused():
    with pytest.raises(KeyError, match="b"):
        probability_of_improvement({"a": [1.0], "b": [1.0]}, {"a": [1.0]})


def test_rliable():
    """The library of the paper, where it can be imported, on as many runs of every game."""
    try:
        from rliable import library, metrics
    except Exception as error:  # beside pandas 3 it raises a TypeError
        pytest.skip(f"rliable cannot be imported: {error}")
    theirs = np.array(list(PUBLISHED.values())).T  # [runs, games]
    found = aggregate(PUBLISHED)
    functions = {
        "mean": metrics.aggregate_mean,
        "median": metrics.aggregate_median,
        "IQM": metrics.aggregate_iqm,
        "optimality gap": metrics.aggregate_optimality_gap,
    }
    for name, function in functions.items():
        values, bounds = library.get_interval_estimates(
            {"x": theirs}, lambda x, function=function: np.array([function(x)]), reps=5_000
        )
        assert found[name].value == pytest.approx(values["x"][0], abs=1e-12), name
        assert (found[name].low, found[name].high) == pytest.approx(tuple(bounds["x"][:, 0]), abs=0.02), name
    worse = {game: [0.9 * score for score in scores] for game, scores in PUBLISHED.items()}
    expected = metrics.probability_of_improvement(theirs, 0.9 * theirs)
    assert probability_of_improvement(PUBLISHED, worse).value == pytest.approx(expected, abs=1e-12)
    thresholds = np.linspace(0, 8, 81)
    profile = performance_profile(PUBLISHED, thresholds).value
    assert profile == pytest.approx(library.score_distributions(theirs, thresholds), abs=1e-12)
