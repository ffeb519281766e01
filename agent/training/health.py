"""What goes wrong slowly while every number stays finite, with the number and what to try."""

from __future__ import annotations

import math
from collections.abc import Mapping

from agent.config import AgentConfig
from agent.nets.heads import TwoHot

LEAST_BITS = 1.0  # of the codebook's use; below it Δ-IRIS revives codes (appendix A)
LEAST_ENTROPY = 0.01  # of the policy, as a share of its maximum
BEYOND = 2.0  # times the largest return that the rewards in the replay allow for


def warnings(
    metrics: Mapping[str, float],
    config: AgentConfig,
    actions: tuple[int, ...],
    sizes: tuple[float, float],
) -> dict[str, str]:
    """What an epoch's metrics show to go wrong: name -> a sentence.

    Args:
        actions: Number of choices of each factor.
        sizes: Of rewards, as for `cut_rewards`.
    """
    found: dict[str, str] = {}
    codes = config.tokenizer.quantizer.num_codes
    bits = metrics.get("tokenizer/codebook_entropy_bits", math.inf)
    if bits < LEAST_BITS < math.log2(codes):
        found["codebook"] = (
            f"The codebook has collapsed: its use has {bits:.2f} bits of {math.log2(codes):.1f}; "
            "try a lower tokenizer.learning_rate, or another quantizer (docs/quantizers.md)."
        )
    entropy, most = metrics.get("policy/entropy", math.inf), sum(map(math.log, actions))
    if entropy < LEAST_ENTROPY * most:
        found["entropy"] = (
            f"The policy hardly chooses any more: its entropy is {entropy:.4f} of {most:.2f}; try "
            "a larger agent.actor_critic.entropy_weight, or a lower policy.learning_rate."
        )
    largest = float(sizes[1] > 0) if config.dynamics.reward == "sign" else sizes[1]
    discount, value = config.actor_critic.discount, metrics.get("policy/imagined_return", 0.0)
    limit = largest / (1 - discount) if discount < 1 else math.inf
    if abs(value) > BEYOND * limit > 0:
        found["critic"] = (
            f"The critic runs away: the imagined return is {value:.4g}, and rewards of "
            f"{largest:.4g} with a discount of {discount} come to {limit:.4g}; try a lower "
            "policy.learning_rate, and look at dynamics/reward."
        )
    if cut := cut_rewards(sizes, config.dynamics.reward):
        found["rewards"] = cut
    return found


def cut_rewards(sizes: tuple[float, float], code: str) -> str | None:
    """What the dynamics cannot tell apart of rewards, in a sentence.

    Args:
        sizes: The least and the largest magnitude other than 0; (0, 0): there is none.
        code: agent.dynamics.reward.
    """
    least, largest = sizes
    if code == "sign" and sizes not in ((0, 0), (1, 1)):
        shown = f"{largest:.4g}" if least == largest else f"{least:.4g} to {largest:.4g}"
        return (
            f"Rewards of size {shown} all count as 1, by their sign alone: "
            "agent.dynamics.reward=two_hot tells them apart."
        )
    if code == "two_hot" and largest > (limit := math.expm1(TwoHot.limit)):
        return f"Rewards of size {largest:.4g} all count as {limit:.2g}, the most: scale them."
    return None
