"""Many games' runs -> few numbers, each with its interval.

Source: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(arXiv:2108.13264). The numbers are those of its library `rliable`, which wants equally many runs of
every game. Here every game may have its own number.

A statistic takes one array a game, `[..., runs of the game]`, and returns `[...]`. The same lines
compute a value and, with the resamples in front, its interval. What pools the runs (IQM,
optimality gap) weighs each run alike, so a game with more of them weighs more.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import trim_mean

# Game -> one human-normalized score a run; 1 is a human's.
Scores = Mapping[str, Sequence[float]]


class Estimate(NamedTuple):
    """A statistic and the bounds of its 95 % interval: numbers, or arrays of one shape."""

    value: np.ndarray | float
    low: np.ndarray | float
    high: np.ndarray | float


def game_means(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Each game's mean over its runs, `[..., games]`."""
    return np.stack([runs.mean(axis=-1) for runs in scores], axis=-1)


def mean(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of the games' means."""
    return game_means(scores).mean(axis=-1)


def median(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Median of the games' means."""
    return np.median(game_means(scores), axis=-1)


def interquartile_mean(scores: Sequence[np.ndarray]) -> np.ndarray:
    """IQM: mean of all runs of all games without the lowest and the highest quarter of them."""
    return trim_mean(np.concatenate(scores, axis=-1), 0.25, axis=-1)


def optimality_gap(scores: Sequence[np.ndarray]) -> np.ndarray:
    """By how much a run falls short of 1 on average; what exceeds 1 does not make up for it."""
    return 1.0 - np.minimum(np.concatenate(scores, axis=-1), 1.0).mean(axis=-1)


def games_above_human(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Number of games whose mean exceeds 1."""
    return (game_means(scores) > 1.0).sum(axis=-1)


def probability_of_improvement(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]
) -> np.ndarray:
    """P(one of our runs exceeds one of theirs), a tie counting half, averaged over games.

    Within a game it is the Mann-Whitney U statistic over the number of pairs.
    """
    pairs = [(x[..., :, None], y[..., None, :]) for x, y in zip(ours, theirs, strict=True)]
    games = [((x > y) + 0.5 * (x == y)).mean(axis=(-2, -1)) for x, y in pairs]
    return np.stack(games, axis=-1).mean(axis=-1)


AGGREGATES: dict[str, Callable[[Sequence[np.ndarray]], np.ndarray]] = {
    "mean": mean,
    "median": median,
    "IQM": interquartile_mean,
    "optimality gap": optimality_gap,
    "games above human": games_above_human,
}


def estimate(
    statistic: Callable[..., np.ndarray], *samples: Scores, resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """A statistic of the samples with the 95 % interval of a stratified percentile bootstrap.

    A resample draws each game's runs anew from that game's runs, with replacement. Several samples
    are resampled independently. A game with one run contributes no spread: `scipy.stats.bootstrap`
    refuses it, and a partial sweep has such games.

    Args:
        statistic: One of those above, of as many arguments as there are samples.
        samples: Each with the same games, in the same order.

    Raises:
        ValueError: There is no game, a game has no run, or a score is not finite.
    """
    rows = [[np.asarray(runs, np.float64) for runs in scores.values()] for scores in samples]
    for games in rows:
        if not games or not all(len(runs) and np.isfinite(runs).all() for runs in games):
            raise ValueError("Give game -> finite scores, one game and one run or more.")
    generator = np.random.default_rng(seed)
    drawn = [
        [runs[generator.integers(len(runs), size=(resamples, len(runs)))] for runs in games]
        for games in rows
    ]
    low, high = np.quantile(statistic(*drawn), (0.025, 0.975), axis=0)
    return Estimate(statistic(*rows), low, high)


def aggregate(scores: Scores, resamples: int = 10_000) -> dict[str, Estimate]:
    """All of `AGGREGATES`, as `estimate` computes them."""
    return {name: estimate(how, scores, resamples=resamples) for name, how in AGGREGATES.items()}
