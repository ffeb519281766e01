"""What an agent's episodes are worth."""

from collections.abc import Mapping, Sequence

import numpy as np

from envs.published import RANDOM_AND_HUMAN

# The names, in the order in which the `crafter` package lists them.
CRAFTER_ACHIEVEMENTS = tuple(
    """
    collect_coal collect_diamond collect_drink collect_iron collect_sapling collect_stone
    collect_wood defeat_skeleton defeat_zombie eat_cow eat_plant make_iron_pickaxe make_iron_sword
    make_stone_pickaxe make_stone_sword make_wood_pickaxe make_wood_sword place_furnace place_plant
    place_stone place_table wake_up
    """.split()  # noqa: SIM905 (one a line is long)
)


def crafter_success_rates(episodes: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """Percentage of episodes in which each achievement was unlocked at least once.

    Args:
        episodes: `info["achievements"]` at the end of each; one or more.
    """
    return {
        name: 100.0 * float(np.mean([counts[name] > 0 for counts in episodes]))
        for name in CRAFTER_ACHIEVEMENTS
    }


def crafter_score(rates: Mapping[str, float]) -> float:
    """The Crafter score in percent: exp(mean over i of ln(1 + s_i)) - 1.

    Source: Hafner, "Benchmarking the Spectrum of Agent Capabilities" (arXiv:2109.06780), eq. 1:
    a geometric mean, in which a rare achievement weighs as much as a common one.

    Args:
        rates: s_i, percent in 0..100, for each of the 22 achievements.
    """
    percent = np.array([rates[name] for name in CRAFTER_ACHIEVEMENTS])
    return float(np.expm1(np.log1p(percent).mean()))


def human_normalized_score(game: str, score: float) -> float:
    """0 for an agent that plays at random, 1 for a human: (score - random) / (human - random).

    Source: Mnih et al., "Human-level control through deep reinforcement learning" (Nature 518,
    2015).

    Args:
        game: one of `RANDOM_AND_HUMAN`.
        score: sum of an episode's rewards, unclipped, or a mean of such sums.
    """
    random, human = RANDOM_AND_HUMAN[game]
    return (score - random) / (human - random)
