"""What goes wrong slowly while every number stays finite: said with the number and the remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping

from agent.nets.heads import TwoHot

LEAST_BITS = (
    1.0  # of the codebook's use; below it Δ-IRIS revives codes whatever else is said (appendix A)
)
LEAST_ENTROPY = 0.01  # of the policy, as a share of its maximum
BEYOND = 2.0  # times the largest return that the rewards seen so far allow for


def warnings(
    metrics: Mapping[str, float],
    num_codes: int,
    actions: tuple[int, ...],
    largest_reward: float,
    discount: float,
) -> dict[str, str]:
    """What an epoch's metrics say is going wrong.

    Args:
        metrics: of the epoch.
        num_codes: of the quantizer.
        actions: number of choices of each factor.
        largest_reward: the largest magnitude in the replay, as the dynamics codes it; 0: none yet.
        discount: γ.

    Returns:
        Name of what goes wrong -> a sentence.
    """
    found: dict[str, str] = {}
    bits = metrics.get("tokenizer/codebook_entropy_bits", math.inf)
    if bits < LEAST_BITS < math.log2(num_codes):
        found["codebook"] = (
            f"The codebook has collapsed: its use has {bits:.2f} bits of "
            f"{math.log2(num_codes):.1f}, {metrics['tokenizer/codes_in_use']:.0f} codes of "
            f"{num_codes}; try a lower tokenizer.learning_rate, or another quantizer "
            "(docs/quantizers.md)."
        )
    entropy, most = metrics.get("policy/entropy", math.inf), sum(map(math.log, actions))
    if entropy < LEAST_ENTROPY * most:
        found["entropy"] = (
            f"The policy hardly chooses any more: its entropy is {entropy:.4f} of at most "
            f"{most:.2f}; "
            "try a larger agent.actor_critic.entropy_weight, or a lower policy.learning_rate."
        )
    limit = BEYOND * largest_reward / (1 - discount) if discount < 1 else math.inf
    value = metrics.get("policy/imagined_return", 0.0)
    if abs(value) > limit > 0:
        found["critic"] = (
            f"The critic runs away: the imagined return is {value:.4g}, and rewards of at most "
            f"{largest_reward:.4g} with a discount of {discount} cannot come to "
            f"{limit / BEYOND:.4g}; try a lower policy.learning_rate, and look at dynamics/reward."
        )
    return found


def cut_rewards(sizes: tuple[float, float], code: str) -> str | None:
    """What is lost of rewards because the dynamics cannot say it, in a sentence; None: nothing.

    sizes: the least and the largest magnitude of those other than 0; (0, 0): there is none
    code:  agent.dynamics.reward
    """
    least, largest = sizes
    shown = f"{largest:.4g}" if least == largest else f"{least:.4g} to {largest:.4g}"
    limit = math.expm1(TwoHot.limit)
    if code == "sign" and sizes not in ((0, 0), (1, 1)):
        return (
            f"Rewards of size {shown} all count as 1, by their sign alone: "
            "agent.dynamics.reward=two_hot tells them apart."
        )
    if code == "two_hot" and largest > limit:
        return (
            f"Rewards of size {largest:.4g} all count as {limit:.2g}, "
            "the largest that is told apart: scale them."
        )
    return None
