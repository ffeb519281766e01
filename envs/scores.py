"""What an agent's episodes are worth."""

from collections.abc import Mapping, Sequence

import numpy as np

# The names, in the order in which the `crafter` package lists them.
CRAFTER_ACHIEVEMENTS = (
    "collect_coal",
    "collect_diamond",
    "collect_drink",
    "collect_iron",
    "collect_sapling",
    "collect_stone",
    "collect_wood",
    "defeat_skeleton",
    "defeat_zombie",
    "eat_cow",
    "eat_plant",
    "make_iron_pickaxe",
    "make_iron_sword",
    "make_stone_pickaxe",
    "make_stone_sword",
    "make_wood_pickaxe",
    "make_wood_sword",
    "place_furnace",
    "place_plant",
    "place_stone",
    "place_table",
    "wake_up",
)


def crafter_success_rates(
    counts: np.ndarray | Sequence[Mapping[str, int]],
) -> dict[str, float]:
    """Percentage of episodes in which each achievement was unlocked at least once.

    Args:
        counts: `[episodes, 22]` counts in the order of `CRAFTER_ACHIEVEMENTS`, or one
            `info["achievements"]` per episode.

    Raises:
        ValueError: there is no episode, or the array has another shape.
        KeyError: a dictionary lacks an achievement.
    """
    if not isinstance(counts, np.ndarray):
        counts = np.array([[episode[name] for name in CRAFTER_ACHIEVEMENTS] for episode in counts])
    if counts.ndim != 2 or counts.shape[1] != len(CRAFTER_ACHIEVEMENTS) or len(counts) == 0:
        raise ValueError(
            f"counts have shape {counts.shape}, but [episodes, 22] with one episode or more is "
            "accepted: give the counts of finished episodes."
        )
    percent = 100.0 * (counts > 0).mean(axis=0)
    return dict(zip(CRAFTER_ACHIEVEMENTS, percent.tolist(), strict=True))


def crafter_score(rates: Mapping[str, float]) -> float:
    """The Crafter score in percent: exp(mean over i of ln(1 + s_i)) - 1.

    Source: Hafner, "Benchmarking the Spectrum of Agent Capabilities" (arXiv:2109.06780), eq. 1:
    a geometric mean, in which a rare achievement weighs as much as a common one.

    Args:
        rates: s_i, percent in 0..100, for each of the 22 achievements.

    Raises:
        KeyError: an achievement is missing.
    """
    percent = np.array([rates[name] for name in CRAFTER_ACHIEVEMENTS])
    return float(np.expm1(np.log1p(percent).mean()))
