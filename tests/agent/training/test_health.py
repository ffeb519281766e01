import math

import pytest

from agent.training.health import cut_rewards, warnings

ABOUT = {"num_codes": 1024, "actions": (4, 3), "largest_reward": 2.0, "discount": 0.9}
WELL = {
    "tokenizer/codebook_entropy_bits": 6.0,
    "tokenizer/codes_in_use": 200.0,
    "policy/entropy": 1.2,
    "policy/imagined_return": -19.0,
}


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        (
            {"tokenizer/codebook_entropy_bits": 0.9, "tokenizer/codes_in_use": 2.0},
            "codebook",
            "0.90 bits of 10.0, 2 codes of 1024",
        ),
        ({"policy/entropy": 0.009 * math.log(12)}, "entropy", "entropy is 0.0224 of at most 2.48"),
        (
            {"policy/imagined_return": 41.0},
            "critic",
            "return is 41, and rewards of at most 2 with a discount of 0.9 cannot come to 20;",
        ),
        ({"policy/imagined_return": -41.0}, "critic", "return is -41"),
    ],
)
def test_each_is_told_by_itself(change, name, said):
    found = warnings(WELL | change, **ABOUT)
    assert list(found) == [name] and said in found[name] and "try " in found[name]


@pytest.mark.parametrize("metrics", [WELL, {}, {"policy/imagined_return": 39.9}])
def test_nothing_is_wrong(metrics):
    assert warnings(metrics, **ABOUT) == {}


@pytest.mark.parametrize("about", [{"largest_reward": 0.0}, {"discount": 1.0}])
def test_no_reward_was_seen_yet_and_no_sum_is_too_large(about):
    assert warnings(WELL | {"policy/imagined_return": 1e9}, **ABOUT | about) == {}


def test_a_codebook_too_small_to_have_a_bit():
    assert (
        warnings(WELL | {"tokenizer/codebook_entropy_bits": 0.5}, **ABOUT | {"num_codes": 2}) == {}
    )


@pytest.mark.parametrize(
    ("sizes", "code", "said"),
    [
        ((0.5, 1e10), "two_hot", "size 1e+10 all count as 4.9e+08"),
        ((0.5, 7.0), "sign", "size 0.5 to 7 all count as 1, by their sign"),
        ((3.0, 3.0), "sign", "size 3 all count as 1"),
        ((0.0, 0.0), "sign", None), ((1.0, 1.0), "sign", None), ((1e-9, 4e8), "two_hot", None),
    ],
)  # fmt: skip
def test_rewards_that_the_dynamics_cannot_say(sizes, code, said):
    cut = cut_rewards(sizes, code)
    assert cut is None if said is None else said in cut
