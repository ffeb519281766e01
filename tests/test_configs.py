"""What the files in configs/ come to together."""

import pytest

from agent.config.compose import CONFIGS
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
    found = {
        name: experiment(name).env.id for name in ("catch", "crafter", "crafter_1m", "atari100k")
    }
    assert list(found.values()) == [
        f"deltadream/{i}" for i in ("Catch-v0", "Crafter-v1", "Crafter-v1", "Atari-v0")
    ]
    full, quick = experiment("atari100k").env, experiment("atari_quick").env
    assert full.kwargs == quick.kwargs and quick.game == "Pong"
    assert full.evaluation_kwargs | {"max_frames": 4000} == quick.evaluation_kwargs
