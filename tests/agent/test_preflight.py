import numpy as np
import pytest

from agent.parts import steps_to_collect
from agent.preflight import contact_sheet, episodes, page, problems, rewards
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
    config = tiny("collect.first_steps=1000", "collect.steps=500", "epochs=3", "replay.capacity=30_000")
    lines = dict(page(config, trial(), SPACES))
    assert (lines["frames"], lines["actions"]) == ("seen", "done")
    assert lines["speed"].startswith("1,000 steps a second, so 2.0 seconds for the 2,000 steps of experiment=catch")
    assert lines["replay"] == f"30,000 steps take {30_000 * (4 * 32 * 32 + 12) / 1e9:.2f} GB of memory"
    assert problems(config, trial(), SPACES) == []
    config.collect.epochs = 2
    assert steps_to_collect(config) == 1500


def test_lines():
    assert episodes(trial()) == "2 ended in 10 random steps (1 terminated, 1 truncated), of 4 to 6 steps, 5.0 on average"
    assert episodes(trial(lengths=(), limit=99)) == "none ended in 10 random steps; a limit truncates them after 99"
    assert rewards(trial(), "sign").startswith("0 to 1, 10% of them not 0; learned as −1, 0 or +1")


@pytest.mark.parametrize(
    ("overrides", "spaces", "named"),
    [
        (["agent.dynamics.reward=sign"], SPACES, "agent.dynamics.reward=two_hot"),
        (["replay.capacity=1000000000000"], SPACES, "lower replay.capacity"),
        (["agent.policy.conv.patch=5"], SPACES, "agent.policy.conv does not fit: image size 32 is not divisible by 5"),
    ],
)
def test_what_does_not_fit_the_experiment(overrides, spaces, named):
    (problem,) = problems(tiny(*overrides), trial(rewards=np.array([0.0, 0.5, -7])), spaces)
    assert named in problem


def test_nothing_to_learn():
    (problem,) = problems(tiny(), trial(), Spaces(3, 32, (1,)))
    assert "only one action" in problem
    (problem,) = problems(tiny(), trial(rewards=np.array([1.0, -1e10])), SPACES)
    assert "size 1e+10 all count as 4.9e+08" in problem


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (5, 3), (90, 4)])
def test_the_contact_sheet(count, channels):
    frames = np.zeros((count, 32, 32, channels), np.uint8)
    frames[-1] = 255
    sheet = contact_sheet(trial(frames=frames))
    assert sheet.ndim == 3 and sheet.dtype == np.uint8 and (sheet[-40, -40] > 0).any()
