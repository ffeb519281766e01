"""What others published, to stand beside our results.

`atari_100k.csv` has a game a row: the scores of random play and of a human, between which Atari
100k normalizes, and the final scores of five seeds of Δ-IRIS.

Sources: random and human: Wang et al., "Dueling Network Architectures for Deep Reinforcement
Learning" (arXiv:1511.06581), by which SimPLe, IRIS and rliable measure. Δ-IRIS: Micheli, Alonso,
Fleuret, "Efficient World Models with Context-Aware Tokenization" (ICML 2024, arXiv:2406.19320), and
the scores of its runs as its authors published them. DART: Agarwal, Andrews, Ebrahimi Kahou,
"Learning to Play Atari in a World of Tokens" (ICML 2024, arXiv:2406.01361). IRIS: Micheli, Alonso,
Fleuret, "Transformers are Sample-Efficient World Models" (ICLR 2023).
"""

import csv
from pathlib import Path

with (Path(__file__).parent / "atari_100k.csv").open() as file:
    _SCORES = {game: tuple(map(float, scores)) for game, *scores in list(csv.reader(file))[1:]}

RANDOM_AND_HUMAN = {game: scores[:2] for game, scores in _SCORES.items()}
DELTA_IRIS_ATARI = {game: scores[2:] for game, scores in _SCORES.items()}

# How those were played.
DELTA_IRIS_ATARI_PROTOCOL = (
    "frame skip 4 with the maximum over the last two frames, 64×64 RGB, minimal action set, no "
    "sticky actions; in training up to 30 no-ops, 20,000 raw frames an episode, a lost life ends "
    "it; in evaluation one no-op, 108,000 raw frames, lives ignored"
)

# Atari 100k over all 26 games, by the names of `envs.aggregates.AGGREGATES`; what is left out was
# not printed. (Δ-IRIS's, 1.383 / 0.594 / 0.682 / 0.443 / 12, follow from its scores above.)
PRINTED_AGGREGATES: dict[str, dict[str, float]] = {
    "DART": {"mean": 1.022, "median": 0.790, "IQM": 0.575, "games above human": 9},
    "IRIS": {"mean": 1.046, "median": 0.289, "IQM": 0.501},
}

# Crafter: environment steps -> mean return; the score in percent where it was printed.
DELTA_IRIS_CRAFTER_RETURN = {1_000_000: 7.7, 5_000_000: 15.4, 10_000_000: 16.1}
DELTA_IRIS_CRAFTER_SCORE = {10_000_000: 42.5}
