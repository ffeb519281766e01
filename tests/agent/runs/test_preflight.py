import numpy as np
import pytest

from agent.runs.preflight import contact_sheet, page, problems, seconds_of_updates
from agent.training.components import PARTS, sample_spec, total_updates
from envs.spaces import Spaces
from envs.trial import Trial
from tests.tiny import tiny

SPACES = Spaces(4, 32, (3,))
FRAMES = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 4)).astype(np.uint8)


def trial(**changes) -> Trial:
    seen = {
        "spaces": SPACES, "frames_text": "seen", "actions_text": "done", "frames": FRAMES,
        "lengths": (4, 6), "rewards": np.array([0.0] * 9 + [1.0]), "terminated": 1, "seconds": 0.01,
        "differs_at": None, "limit": None,
    }  # fmt: skip
    return Trial(**seen | changes)


def test_the_page(monkeypatch):
    monkeypatch.setattr("agent.runs.preflight.seconds_of_updates", lambda *_: 3600.0)
    schedule = ("collect.first_steps=1000", "collect.steps=500", "epochs=3", "replay.capacity=3000")
    lines = page(tiny(*schedule), trial())
    expected = {
        "frames": "seen",
        "actions": "done",
        "episodes": "2 ended in 10 random steps (1 terminated, 1 truncated), of 4 to 6 steps, "
        "5.0 on average",
        "rewards": "0 to 1, 10% of them not 0 (agent.dynamics.reward=two_hot)",
        "replay": "3,000 steps take 0.01 GB (replay.storage=memory)",
        "training": "2,000 frames, the first 1,000 by random actions; updates: tokenizer 7, "
        "dynamics 7, policy 6; 12 episodes of evaluation",
        "time": "about 60.0 minutes for updates on this CPU, within a factor of 2; "
        "2.0 seconds for the frames; evaluations and films on top",
    }
    assert lines == expected


def test_the_time_of_the_updates(monkeypatch):
    """An update takes as long as its batch is large; of a large one a part is timed."""
    config, batches = tiny("tokenizer.batch=400"), {}

    def second_a_sequence(agent, timed, part, learner):
        batches[part] = sample_spec(timed, part).batch
        return float(batches[part])

    monkeypatch.setattr("agent.runs.preflight.time_update", second_a_sequence)
    monkeypatch.setattr("agent.runs.preflight.TIMED", 5e8)
    work = [total_updates(config, part) * sample_spec(config, part).batch for part in PARTS]
    assert seconds_of_updates(config, SPACES) == sum(work)
    assert batches["tokenizer"] < config.tokenizer.batch == 400
    assert batches["policy"] == config.policy.batch


@pytest.mark.parametrize(
    ("overrides", "changes", "actions", "named"),
    [
        (["agent.dynamics.reward=sign"], {"rewards": np.array([0.5, -7])}, 3, "reward=two_hot"),
        (
            [],
            {"rewards": np.array([1.0, -1e10])},
            3,
            "size 1 to 1e\\+10 all count|size 1e\\+10 all",
        ),
        (["replay.capacity=1000000000000"], {}, 3, "replay.capacity=.* needs"),
        (["agent.policy.conv.patch=5"], {}, 3, "image size 32 is not divisible by 5"),
        ([], {}, 1, "only one action"),
        ([], {"lengths": (2000, 3000)}, 3, "2,000 steps or more.*plays 33 in the whole run"),
        ([], {"lengths": (), "limit": 34}, 3, "34 steps or more.* no end is ever seen"),
        (["experiment=tiny"], {}, 3, "short.*but not.*CartPole.*docs/laptop.md"),
    ],
)
def test_what_does_not_fit_the_experiment(overrides, changes, actions, named):
    (problem,) = problems(tiny(*overrides), trial(spaces=Spaces(4, 32, (actions,)), **changes))
    with pytest.raises(ValueError, match=named):
        raise ValueError(problem)


@pytest.mark.parametrize("changes", [{}, {"lengths": (1, 5000)}, {"lengths": (), "limit": 20}])
def test_what_fits(changes):
    assert problems(tiny(), trial(**changes)) == []


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (90, 4)])
def test_the_contact_sheet(count, channels):
    frames = np.zeros((count, 32, 32, channels), np.uint8)
    frames[-1] = 255
    sheet = contact_sheet(trial(frames=frames))
    assert sheet.ndim == 3 and sheet.dtype == np.uint8 and (sheet[-40, -40] > 0).any()
