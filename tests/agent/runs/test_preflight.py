import numpy as np
import pytest

from agent.runs.preflight import (
    contact_sheet,
    episodes,
    minutes,
    page,
    problems,
    rewards,
    seconds_of_updates,
)
from agent.training.components import PARTS, sample_spec, steps_to_collect, total_updates
from envs.preflight import Trial
from envs.spaces import Spaces
from tests.tiny import tiny

SPACES = Spaces(4, 32, (3,))


def trial(**changes) -> Trial:
    return Trial(
        **{
            "frames_text": "seen", "actions_text": "done", "frames": np.random.default_rng(0).integers(0, 256, (12, 32, 32, 4)).astype(np.uint8),
            "rewards": np.array([0.0] * 9 + [1.0]), "lengths": (4, 6), "terminated": 1, "seconds": 0.01, "differs_at": None, "limit": None,
            "rendered": False, "can_render": False,
        } | changes
    )  # fmt: skip


def test_the_page():
    config = tiny(
        "collect.first_steps=1000", "collect.steps=500", "epochs=3", "replay.capacity=30_000"
    )
    lines = dict(page(config, trial(), SPACES))
    assert (lines["frames"], lines["actions"]) == ("seen", "done")
    assert lines["speed"].startswith(
        "1,000 steps a second, so 2.0 seconds for the 2,000 steps of experiment=catch"
    )
    assert (
        lines["replay"] == f"30,000 steps take {30_000 * (4 * 32 * 32 + 12) / 1e9:.2f} GB of memory"
    )
    assert problems(config, trial(), SPACES) == []
    assert lines["training"] == (
        "3 epochs: 2,000 frames, the first 1,000 by random actions; updates: tokenizer 7, "
        "dynamics 7, policy 6; 12 episodes of evaluation"
    )
    assert (
        lines["time"].startswith("about ")
        and "on this CPU: updates " in lines["time"]
        and "within a factor of 2" in lines["time"]
    )
    assert lines["results"].startswith("experiment=catch has learned Catch (0.98")
    config.collect.epochs = 2
    assert steps_to_collect(config) == 1500


def test_lines():
    assert (
        episodes(trial())
        == "2 ended in 10 random steps (1 terminated, 1 truncated), of 4 to 6 steps, 5.0 on average"
    )
    assert (
        episodes(trial(lengths=(), limit=99))
        == "none ended in 10 random steps; a limit truncates them after 99"
    )
    assert rewards(trial(), "sign").startswith("0 to 1, 10% of them not 0; learned as −1, 0 or +1")
    alike = rewards(trial(rewards=np.full(9, -1.0)), "two_hot")
    assert alike.startswith(
        "-1 to -1, 100% of them not 0, all alike: only how long an episode lasts can be learned; "
    )


@pytest.mark.parametrize(
    ("overrides", "spaces", "named"),
    [
        (["agent.dynamics.reward=sign"], SPACES, "agent.dynamics.reward=two_hot"),
        (["replay.capacity=1000000000000"], SPACES, "lower replay.capacity"),
        (
            ["agent.policy.conv.patch=5"],
            SPACES,
            "agent.policy.conv does not fit: image size 32 is not divisible by 5",
        ),
    ],
)
def test_what_does_not_fit_the_experiment(overrides, spaces, named):
    (problem,) = problems(tiny(*overrides), trial(rewards=np.array([0.0, 0.5, -7])), spaces)
    assert named in problem


@pytest.mark.parametrize(
    ("overrides", "whole"),
    [([], True), (["tokenizer.batch=400"], False), (["epochs=1", "policy.start_epoch=1"], True)],
)
def test_the_time_of_the_updates(monkeypatch, overrides, whole):
    """An update takes as long as its batch is large; of a large one a part is timed."""
    config, batches = tiny(*overrides), {}

    def second_a_sequence(agent, timed, part, learner):
        batches[part] = sample_spec(timed, part).batch
        return float(batches[part])

    monkeypatch.setattr("agent.runs.preflight.time_update", second_a_sequence)
    monkeypatch.setattr("agent.runs.preflight.TIMED", 5e8)
    seconds, compiles = seconds_of_updates(config, SPACES)
    assert (
        seconds
        == sum(total_updates(config, part) * sample_spec(config, part).batch for part in PARTS)
        and not compiles
    )
    assert (batches["tokenizer"] == config.tokenizer.batch) == whole
    assert config.tokenizer.batch in (2, 400)  # what was given stays


def test_the_time_that_cannot_be_told():
    assert "evaluations not included" in minutes(tiny(), trial(lengths=()), SPACES)
    assert minutes(tiny("agent.policy.conv.patch=5"), trial(), SPACES).startswith(
        "unknown: agent.policy.conv does not fit"
    )


@pytest.mark.parametrize(
    ("changes", "overrides", "named"),
    [
        ({"lengths": (2000, 3000)}, [], ["takes 2,000 steps or more", "3 environments plays 33 in the whole run", "no end is ever seen"]),
        ({"lengths": (), "limit": 34}, [], ["takes 34 steps, unless it ends before", "no end is ever seen"]),
        ({"lengths": (21, 40)}, [], ["plays 20 before the first updates", "collect.first_steps=63 "]),
        ({"lengths": (9, 40)}, ["evaluation.max_steps=30"], ["cut episodes after evaluation.max_steps=30", "give evaluation.max_steps=40."]),
        ({"lengths": (), "limit": 19}, ["evaluation.max_steps=18"], ["give evaluation.max_steps=19."]),
    ],
)  # fmt: skip
def test_an_episode_that_is_too_long(changes, overrides, named):
    (problem,) = problems(tiny(*overrides), trial(**{"limit": None} | changes), SPACES)
    assert all(part in problem for part in named), problem


@pytest.mark.parametrize(
    "changes", [{"lengths": (20, 33)}, {"lengths": (1, 5000)}, {"lengths": (), "limit": 20}]
)
def test_an_episode_that_is_not(changes):
    assert problems(tiny("collect.steps=4000"), trial(**{"limit": None} | changes), SPACES) == []


@pytest.mark.parametrize(
    ("experiment", "changes", "said"),
    [
        ("tiny", {"rendered": True}, "CartPole"), ("tiny", {"modules": ("mine", "ale_py.env")}, "Pong"), ("tiny", {"modules": ("minatar.gym",)}, "MinAtar"),
        ("tiny", {"modules": ("gymnasium.envs.box2d.car_racing",), "rendered": True}, "CarRacing"), ("crafter_quick", {"modules": ("mine",)}, "Crafter (1.6"),
        ("atari_quick", {"modules": ("envs.games.atari",)}, "Pong (−21"), ("tiny", {"modules": ("minigrid.envs.empty", "minigrid.minigrid_env")}, None),
        ("catch", {"rendered": True}, None), ("crafter_laptop", {"modules": ("minatar.gym",)}, None), ("base", {"rendered": True}, None),
    ],
)  # fmt: skip
def test_a_preset_that_is_known_not_to_learn_this(experiment, changes, said):
    config = tiny()
    config.experiment = experiment
    found = problems(config, trial(**changes), SPACES)
    assert [
        f"experiment={experiment} is known not to learn this kind of game" in problem
        for problem in found
    ] == [True] * (said is not None)
    assert said is None or said in found[0]


def test_nothing_to_learn():
    (problem,) = problems(tiny(), trial(), Spaces(3, 32, (1,)))
    assert "only one action" in problem
    (problem,) = problems(tiny(), trial(rewards=np.array([1.0, -1e10])), SPACES)
    assert "size 1e+10 all count as 4.9e+08" in problem


def test_a_reward_that_is_always_the_same():
    """As MountainCar's, whose goal is never met by chance.

    Where episodes terminate, their length still says something.
    """
    (problem,) = problems(tiny(), trial(rewards=np.full(9, -1.0), terminated=0), SPACES)
    assert (
        "Each of 9 random steps had the reward -1, and none terminated" in problem
        and "trial=1000" in problem
    )
    for changes in (
        {"rewards": np.full(9, -1.0)},
        {"rewards": np.array([-1.0, -2.0]), "terminated": 0},
    ):
        assert problems(tiny(), trial(**changes), SPACES) == []


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (5, 3), (90, 4)])
def test_the_contact_sheet(count, channels):
    frames = np.zeros((count, 32, 32, channels), np.uint8)
    frames[-1] = 255
    sheet = contact_sheet(trial(frames=frames))
    assert sheet.ndim == 3 and sheet.dtype == np.uint8 and (sheet[-40, -40] > 0).any()
