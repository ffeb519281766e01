"""Warnings: each with its number and what to try, and none where nothing is wrong."""

import math

import pytest

from agent.config import AgentConfig
from agent.training.health import cut_rewards, warnings

WELL = {
    "tokenizer/codebook_entropy_bits": 6.0,
    "policy/entropy": 1.2,
    "policy/imagined_return": -19.0,
}


def found(metrics, largest=2.0, codes=1024, discount=0.9):
    config = AgentConfig()
    config.tokenizer.quantizer.size, config.actor_critic.discount = codes, discount
    return warnings(metrics, config, (4, 3), (min(largest, 1.0), largest))


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        ({"tokenizer/codebook_entropy_bits": 0.9}, "codebook", "0.90 bits of 10.0"),
        ({"policy/entropy": 0.009 * math.log(12)}, "entropy", "entropy is 0.0224 of 2.48"),
        ({"policy/imagined_return": 41.0}, "critic", "return is 41, and rewards of 2 with a discount of 0.9 come to 20;"),
        ({"policy/imagined_return": -41.0}, "critic", "return is -41"),
    ],
)  # fmt: skip
def test_each_comes_by_itself(change, name, said):
    warned = found(WELL | change)
    assert list(warned) == [name] and said in warned[name] and "try " in warned[name]


def test_nothing_is_wrong():
    for metrics in (WELL, {}, {"policy/imagined_return": 39.9}):
        assert found(metrics) == {}
    assert found({"policy/imagined_return": 1e9}, largest=0.0) == {}  # no reward was seen yet
    assert found({"policy/imagined_return": 1e9}, discount=1.0) == {}
    assert found(WELL | {"tokenizer/codebook_entropy_bits": 0.5}, codes=2) == {}


@pytest.mark.parametrize(
    ("sizes", "code", "said"),
    [
        ((0.5, 1e10), "two_hot", "size 1e+10 all count as 4.9e+08"),
        ((0.5, 7.0), "sign", "size 0.5 to 7 all count as 1, by their sign"),
        ((3.0, 3.0), "sign", "size 3 all count as 1"),
        ((0.0, 0.0), "sign", None), ((1.0, 1.0), "sign", None), ((1e-9, 4e8), "two_hot", None),
    ],
)  # fmt: skip
def test_rewards_that_the_dynamics_cannot_tell_apart(sizes, code, said):
    cut = cut_rewards(sizes, code)
    assert cut is None if said is None else said in cut
