"""What goes wrong slowly while every number stays finite: said with the number and the remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping

LEAST_BITS = 1.0  # of the codebook's use; below it Δ-IRIS revives codes whatever else is said (appendix A)
LEAST_ENTROPY = 0.01  # of the policy, as a share of its maximum
BEYOND = 2.0  # times the largest return that the rewards seen so far allow for


def doubts(metrics: Mapping[str, float], num_codes: int, actions: tuple[int, ...], largest_reward: float, discount: float) -> dict[str, str]:
    """What an epoch's metrics say is going wrong: its name -> a sentence.

    actions: how many there are of each factor; largest_reward: the largest magnitude in the replay, as the dynamics codes it; 0: none yet
    """
    found = {}
    bits = metrics.get("tokenizer/codebook_entropy_bits", math.inf)
    if bits < LEAST_BITS < math.log2(num_codes):
        found["codebook"] = (
            f"The codebook has collapsed: its use has {bits:.2f} bits of {math.log2(num_codes):.1f}, {metrics['tokenizer/codes_in_use']:.0f} codes of "
            f"{num_codes}; try a lower tokenizer.learning_rate, or another quantizer (docs/quantizers.md)."
        )
    entropy, most = metrics.get("policy/entropy", math.inf), sum(map(math.log, actions))
    if entropy < LEAST_ENTROPY * most:
        found["entropy"] = (
            f"The policy hardly chooses any more: its entropy is {entropy:.4f} of at most {most:.2f}; "
            "try a larger agent.actor_critic.entropy_weight, or a lower policy.learning_rate."
        )
    limit = BEYOND * largest_reward / (1 - discount) if discount < 1 else math.inf
    value = metrics.get("policy/imagined_return", 0.0)
    if abs(value) > limit > 0:
        found["critic"] = (
            f"The critic runs away: the imagined return is {value:.4g}, and rewards of at most {largest_reward:.4g} with a discount of {discount} "
            f"cannot come to {limit / BEYOND:.4g}; try a lower policy.learning_rate, and look at dynamics/reward."
        )
    return found
