"""What the files in configs/ come to together."""

import pytest

from agent.config.compose import CONFIGS
from agent.runs.sweep import name_of
from envs.config import EnvConfig
from tests.tiny import experiment

EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_any_environment_in_any_experiment(name: str):
    """Nothing of the experiment's own environment is left behind."""
    overrides = ["env=gym", "env.id=CartPole-v1", "env.kwargs.sutton_barto_reward=true"]
    assert experiment(name, *overrides).env == EnvConfig(
        id="CartPole-v1", kwargs={"sutton_barto_reward": True}
    )


def test_experiments_have_their_environments():
    assert {name: experiment(name).env.id for name in EXPERIMENTS if name.startswith(("c", "atari"))} == {
        "atari100k": "deltadream/Atari-v0", "atari_quick": "deltadream/Atari-v0", "catch": "deltadream/Catch-v0",
        "crafter": "deltadream/Crafter-v1", "crafter_1m": "deltadream/Crafter-v1", "crafter_quick": "deltadream/Crafter-v1",
        "crafter_laptop": "deltadream/Crafter-v1", "crafter_overnight": "deltadream/Crafter-v1", "crafter_gpu": "deltadream/Crafter-v1",
    }  # fmt: skip
    full, quick = experiment("atari100k").env, experiment("atari_quick").env
    assert full.kwargs == quick.kwargs and quick.game == "Pong"
    assert full.evaluation_kwargs | {"max_frames": 4000} == quick.evaluation_kwargs


def test_a_run_is_named_alike_with_and_without_pluses():
    assert name_of(["env.kwargs.size=5"]) == name_of(["++env.kwargs.size=5"]) == "env.kwargs.size-5"
