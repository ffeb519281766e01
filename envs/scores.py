"""What an agent's episodes are worth."""

from collections.abc import Mapping, Sequence

import numpy as np

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


# Game -> (random, human): the scores between which the Atari 100k benchmark normalizes.
RANDOM_AND_HUMAN = {
    "Alien": (227.8, 7127.7),
    "Amidar": (5.8, 1719.5),
    "Assault": (222.4, 742.0),
    "Asterix": (210.0, 8503.3),
    "BankHeist": (14.2, 753.1),
    "BattleZone": (2360.0, 37187.5),
    "Boxing": (0.1, 12.1),
    "Breakout": (1.7, 30.5),
    "ChopperCommand": (811.0, 7387.8),
    "CrazyClimber": (10780.5, 35829.4),
    "DemonAttack": (152.1, 1971.0),
    "Freeway": (0.0, 29.6),
    "Frostbite": (65.2, 4334.7),
    "Gopher": (257.6, 2412.5),
    "Hero": (1027.0, 30826.4),
    "Jamesbond": (29.0, 302.8),
    "Kangaroo": (52.0, 3035.0),
    "Krull": (1598.0, 2665.5),
    "KungFuMaster": (258.5, 22736.3),
    "MsPacman": (307.3, 6951.6),
    "Pong": (-20.7, 14.6),
    "PrivateEye": (24.9, 69571.3),
    "Qbert": (163.9, 13455.0),
    "RoadRunner": (11.5, 7845.0),
    "Seaquest": (68.4, 42054.7),
    "UpNDown": (533.4, 11693.2),
}


def human_normalized_score(game: str, score: float) -> float:
    """0 for an agent that plays at random, 1 for a human: (score - random) / (human - random).

    Source: the definition is Mnih et al., "Human-level control through deep reinforcement learning"
    (Nature 518, 2015); the 26 games' scores are those of Wang et al., "Dueling Network
    Architectures for Deep Reinforcement Learning" (arXiv:1511.06581), by which SimPLe, IRIS and
    rliable measure.

    Args:
        game: one of `RANDOM_AND_HUMAN`.
        score: sum of an episode's rewards, unclipped, or a mean of such sums.
    """
    random, human = RANDOM_AND_HUMAN[game]
    return (score - random) / (human - random)
