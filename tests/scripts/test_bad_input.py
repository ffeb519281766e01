"""Bad input gets one sentence and exit code 2; nothing is written or lost."""

import os
import shutil
from pathlib import Path

import gymnasium
import pytest

from agent.storage import checkpoint
from tests.scripts.commands import check_refused, contents, here
from tests.tiny import TINY

# What is given besides TINY, and what the sentence must name.
VALUES = {
    "experiment=nothing": ["experiment=nothing", "catch, crafter"],
    "epohcs=3": ["epohcs", "did you mean epochs"],
    "env=gim": ["env=gim does not exist", "gym"],
    "agent.dynamics.transformer.width=wide": ["agent.dynamics.transformer.width", "'wide'", "Integer"],
    "agent.dynamics.transformer.width=null": ["agent.dynamics.transformer.width", "None"],
    "agent.tokenizer.conv.mult=[]": ["agent.tokenizer.conv.mult=[]", "give one"],
    "agent.policy=vit": ["agent.policy=vit", "agent/policy=cnn_lstm|code_lstm|vit"],
    "epochs": ["epochs", "key=value"],
    "epochs=1,2": ["epochs=1,2", "--multirun"],
    "epochs=[": ["epochs=[", "key=[a,b]"],
    "--epochs=3": ["--epochs=3", "key=value"],
    "epochs=0": ["epochs=0", "1 or more"],
    "dynamics.learning_rate=nan": ["dynamics.learning_rate=nan", "finite"],
    "replay.storage=tape": ["replay.storage=tape", "memory, memmap, device"],
    "agent.dynamics.reward=loud": ["agent.dynamics.reward=loud", "two_hot, sign"],
    "learner.mode=captured": ["learner.mode=captured", "needs CUDA", "compiled, eager or auto"],
    "agent.tokenizer.quantizer.kind=vqvae": ["kind=vqvae is not known", "cosine_ema, vq, vq_ema, fsq"],
    "agent.tokenizer.quantizer.kind=fsq": ["agent.tokenizer.quantizer.size belongs to quantizer=cosine_ema"],
    "agent.tokenizer.quantizer.codebooks=2": ["codebooks=2", "size=8", "power of 2"],
    "collect.first_steps=4": ["collect.first_steps=4", "6 or more"],
    "run=": ["run=", "without a value"],
    "resume=": ["resume=", "without a value"],
    "run=odd_envs.py": ["run=odd_envs.py exists already"],
    "logger=paper": ["logger=paper", "tensorboard, csv, wandb"],
    "device=tpu": ["device=tpu", "auto, cpu"],
    # The environment
    "env.id=deltadream/Cach-v0": ["deltadream/Cach-v0", "did you mean deltadream/Catch-v0"],
    "env.id=no_such_module:Game-v0": ["no_such_module"],
    "env.max_episode_steps=3": ["did you mean env.kwargs.max_episode_steps?"],
    "env.frame_skip=4": ["did you mean env.kwargs.frame_skip?"],
    "env.kwargs.lengths=(3,4)": ["'env.kwargs.lengths=\"(3,4)\"'"],
    "env.on_error=go_on": ["env.on_error=go_on", "stop, restart"],
    "env.timeout=60": ["env.timeout=60", "env.parallel=true"],
    "env.id=odd_envs:Broken-v0": ["odd_envs:Broken-v0", "its data are missing"],
    # Sizes that do not fit
    "agent.policy.conv.patch=5": ["32", "divisible by 5"],
    "agent.policy.conv.down=[0,1]": ["mult has 1", "down has 2"],
    "agent.policy.conv.groups=3": ["groups=3", "multiple"],
    "agent.actor_critic.horizon=6": ["horizon=6", "context"],
    "agent.dynamics.pushforward_from=5": ["pushforward_from belongs to agent/dynamics=delta_light"],
    "dynamics.steps=4": ["dynamics.steps=4", "burn_in=2 − 1 + horizon=4"],
    "dynamics.steps=7": ["dynamics.steps=7", "agent.dynamics.context=6"],
    "agent.tokenizer.tokens=3": ["3 tokens", "tile"],
    "agent.dynamics.transformer.heads=3": ["heads=3", "multiple"],
    # A machine that is too small
    "replay.capacity=1000000000000": ["replay.capacity=1000000000000", "memory", "lower it"],
    "agent.policy.hidden=2000000": ["memory", "lower"],
}  # fmt: skip


@pytest.fixture(scope="module")
def place(finished: Path, tmp_path_factory) -> Path:
    """A working directory with odd_envs and a finished run in it."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copy(Path(__file__).with_name("odd_envs.py"), folder)
    shutil.copytree(finished, folder / "run")
    (folder / "empty").mkdir()
    return folder


def check_nothing_changes(place: Path, script: str, *arguments: str, named: list[str]) -> None:
    before = contents(place)
    check_refused(here(script, *arguments, cwd=place), *named)
    after = contents(place)
    assert {name: data for name, data in after.items() if "__pycache__" not in name} == {
        name: data for name, data in before.items() if "__pycache__" not in name
    }


@pytest.mark.parametrize("given", VALUES)
def test_values(given: str, place: Path):
    check_nothing_changes(place, "train", *TINY, given, named=VALUES[given])


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["env=gym"], ["env.id has no value", "env.id=CartPole-v1"]),
        ([*TINY, "run=run"], ["exists already", "resume=run"]),
        ([*TINY, "replay.storage=memmap", "replay.capacity=1000000000000"], ["replay.capacity", "disk"]),
        ([*TINY, "tokenizer=3"], ["3", "group.key=value"]),
        ([*TINY, "env.kwargs={a: (1, 2)}"], ["env.kwargs={a: (1, 2)}", 'as "(1, 2)"']),
        (["resume=nothing"], ["nothing holds no checkpoint", "a run's folder"]),
        (["resume=empty"], ["empty holds no checkpoint"]),
        (["resume=run"], ["run has all its 2 epochs", "epochs=4"]),
        (["resume=run", "epochs=4", "experiment=crafter"], ["experiment=crafter", "leave it out"]),
        (["resume=run", "epochs=4", "agent=dart"], ["agent=dart", "leave it out"]),
        (["resume=run", "epochs=4", "seed=3"], ["seed=3", "seed=0", "may change epochs"]),
        (["resume=run", "epochs=4", "evaluation.episodes=0"], ["evaluation.episodes=0"]),
        (["resume=run", "epohcs=4"], ["did you mean epochs"]),
    ],
)  # fmt: skip
def test_train(place: Path, given: list[str], named: list[str]):
    check_nothing_changes(place, "train", *given, named=named)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([], ["No run was given"]),
        (["run=nothing"], ["nothing holds no checkpoint"]),
        (["run=run", "episodes=0"], ["episodes=0", "1 or more"]),
        (["run=run", "epsiodes=3"], ["epsiodes", "did you mean episodes"]),
        (["run=run", "output=odd_envs.py/x.json"], ["output=odd_envs.py/x.json", "cannot be written"]),
        (["run=run", "output=run"], ["output=run", "cannot be written"]),
    ],
)  # fmt: skip
def test_evaluate(place: Path, given: list[str], named: list[str]):
    check_nothing_changes(place, "evaluate", *given, named=named)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("state.json", ["evaluate", "run=run"]),
        ("agent.safetensors", ["play", "run=run", "by=agent", "video=film.mp4", "steps=3"]),
        ("rows", ["train", "resume=run", "epochs=4"]),
        ("metrics.csv", ["train", "resume=run", "epochs=4"]),
    ],
)
def test_a_damaged_run(finished: Path, tmp_path: Path, name: str, command: list[str]):
    run = shutil.copytree(finished, tmp_path / "run")
    saved = checkpoint.load(run)
    places = {"rows": run / saved.chunks[-1].path, "metrics.csv": run / name}
    path = places.get(name, saved.folder / name)
    path.write_text("import os\n")
    check_nothing_changes(tmp_path, *command, named=[path.name])


def test_a_run_without_its_newest_checkpoint(finished: Path, tmp_path: Path):
    run = shutil.copytree(finished, tmp_path / "run")
    first, second = (checkpoint.folder_of(run, epoch) for epoch in (1, 2))
    os.truncate(second / "agent.safetensors", 1000)
    resume = ["train", "resume=run", "epochs=3"]
    named = ["agent.safetensors was changed", f"{first} is whole (damaged=previous"]
    check_nothing_changes(tmp_path, *resume, named=named)
    result = here(*resume, "damaged=previous", cwd=tmp_path)
    assert result.code == 0, result.err
    assert f"The newest whole checkpoint is {first}." in result.out
    assert checkpoint.load(run).epoch == 3


def test_a_checkpoint_has_no_module_imported(tmp_path: Path):
    """Only what stands on the command line is imported."""
    module = tmp_path / "unseen.py"
    module.write_text(
        "import gymnasium\ngymnasium.register('Unseen-v0', entry_point='envs.games.catch:CatchEnv')\n"
    )
    own = "env.id=unseen:Unseen-v0"
    assert here("train", *TINY, own, "epochs=1", "run=run", cwd=tmp_path).code == 0
    gymnasium.registry.pop("Unseen-v0")
    module.write_text("open('was_here', 'w')")
    for command in (["evaluate", "run=run"], ["train", "resume=run", "epochs=2"]):
        check_nothing_changes(tmp_path, *command, named=[own])
