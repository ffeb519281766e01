"""Where the runs of a sweep lie, and which are to be done.

tests/scripts/test_sweep.py has the commands.
"""

import shutil

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from agent.runs.sweep import LONGEST, NOT_IN_THE_NAME, expand, name_of, train_in_sweep
from agent.storage import checkpoint
from agent.storage.metrics import read_metrics
from envs.errors import BadInput
from tests.tiny import tiny


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (["seed=1", "experiment=atari100k", "env.game=Pong", "device=cuda:1"], "env.game-Pong+seed-1"),
        (["experiment=catch"], "default"),
        (["++env.kwargs.path=a/b", "epochs=3"], "env.kwargs.path-a%2Fb+epochs-3"),
        # With the backslashes that a sweep of Hydra's puts into them.
        ([r"env.id=minigrid\:MiniGrid-Empty-5x5-v0"], "env.id-minigrid:MiniGrid-Empty-5x5-v0"),
        ([r"env.kwargs.text=a\ b\=c"], "env.kwargs.text-a%20b%3Dc"),
        (["env.kwargs.text='a b=c'"], "env.kwargs.text-a%20b%3Dc"),
        (["agent.policy.conv.mult=[1,2]", "agent/policy=vit"], "agent.policy.conv.mult-%5B1%2C2%5D+agent%2Fpolicy-vit"),
    ],
)  # fmt: skip
def test_a_name_says_what_is_varied(given, name):
    assert name_of(given) == name_of(given[::-1]) == name


SETTINGS = st.dictionaries(
    st.sampled_from(
        ["seed", "policy.batch", "env.id", "experiment", "device", "+env.kwargs.level"]
    ),
    st.from_regex(r"[a-zA-Z0-9_./:-]{1,80}", fullmatch=True),
)


@given(SETTINGS, SETTINGS)
def test_folders_never_collide(one, other):
    names = [
        name_of([f"{key}={value}" for key, value in settings.items()]) for settings in (one, other)
    ]
    said = [
        {k: v for k, v in settings.items() if k not in NOT_IN_THE_NAME} for settings in (one, other)
    ]
    assert (names[0] == names[1]) == (said[0] == said[1])
    for name in names:
        assert 0 < len(name) <= LONGEST and "/" not in name and name not in (".", "..")
        # Given back to a command, it is the value that it is.
        (override,) = OverridesParser.create().parse_overrides([f"run=runs/atari100k/{name}"])
        assert override.value() == f"runs/atari100k/{name}" and not override.is_sweep_override()


def test_all_games():
    arguments = expand(["experiment=atari100k", "env.game=all", "seed=0,1"])
    assert arguments[0] == "--multirun" and arguments[1::2] == ["experiment=atari100k", "seed=0,1"]
    games = arguments[2].removeprefix("env.game=").split(",")
    assert len(games) == 26 and games[0] == "Alien" and games[-1] == "UpNDown"
    assert expand(["env.game=Pong"]) == ["env.game=Pong"]


@pytest.mark.slow
def test_started_gone_on_with_and_left_alone(tmp_path, capsys, without_films):
    def sweep(*changes: str) -> str:
        train_in_sweep(tiny(f"sweep={tmp_path}", *changes), ["experiment=catch", "seed=0"])
        return capsys.readouterr().out

    folder = tmp_path / "catch" / "seed-0"
    (folder / "replay").mkdir(parents=True)  # of a run that was killed before its first checkpoint
    (folder / ".lock").touch()
    (folder / "metrics.csv").write_text("epoch,step,loss\n7,7,7\n")
    assert f"run folder: {folder}" in sweep()
    assert [row["epoch"] for row in read_metrics(folder / "metrics.csv")] == [1, 2]
    assert "has all its 2 epochs: left as it is" in sweep()

    shutil.rmtree(folder / "checkpoints" / "epoch_000002")  # as if it had been stopped before
    assert f"run folder: {folder}" in sweep()
    assert checkpoint.load(folder).epoch == 2

    newest = folder / "checkpoints" / "epoch_000002" / "state.json"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.raises(BadInput, match="state.json"):  # damaged: nothing is thrown away
        sweep()
    first = folder / "checkpoints" / "epoch_000001"
    assert f"The newest whole checkpoint is {first}." in sweep("damaged=previous")
    assert checkpoint.load(folder).epoch == 2

    # What an experiment's file says may change between two calls of the same command.
    with pytest.raises(BadInput, match="policy.batch=2, and the experiment now has 3"):
        sweep("policy.batch=3")


@pytest.mark.slow
def test_every_run_may_compile(tmp_path, without_films):
    """Dynamo limits the versions of a function, and one process may train a whole sweep."""
    double = torch.compile(lambda x: x * 2, backend="eager", fullgraph=True, dynamic=False)
    with torch._dynamo.config.patch(recompile_limit=1):
        double(torch.ones(2))
        with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
            double(torch.ones(3))
        train_in_sweep(tiny(f"sweep={tmp_path}", "epochs=1"), ["seed=0"])
        double(torch.ones(3))


def test_what_no_run_wrote_stays(tmp_path):
    folder = tmp_path / "catch" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(BadInput, match="exists already"):
        train_in_sweep(tiny(f"sweep={tmp_path}"), ["seed=0"])
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("key", ["run", "resume"])
def test_one_folder_for_many_runs(tmp_path, key):
    config = tiny(f"sweep={tmp_path}")
    setattr(config, key, "here")
    with pytest.raises(BadInput, match="sweep="):
        train_in_sweep(config, [])
