"""Bad input gets one sentence and exit code 2; nothing is written or lost."""

import os
import shutil
from pathlib import Path

import pytest

from tests.scripts.commands import Result, contents, evaluate, train
from tests.tiny import TINY, TINY_CRAFTER

# What is given besides TINY, and what the sentence must name.
VALUES = {
    "experiment=nothing": ["experiment=nothing", "catch, crafter"],
    "experiment=null": ["Config group"],
    "experiment=": ["experiment=", "catch, crafter"],
    "epohcs=3": ["epohcs", "did you mean epochs"],
    "agent.dynamics.transformer.with=3": ["transformer.with", "did you mean agent.dynamics.transformer.width"],
    "+nothing.like.it=3": ["nothing", "--help"],
    "env=gim": ["env=gim does not exist", "gym"],
    "agent.dynamics.transformer.width=wide": ["agent.dynamics.transformer.width", "'wide'", "Integer"],
    "agent.dynamics.transformer.width=null": ["agent.dynamics.transformer.width=null"],
    "agent.tokenizer.conv.mult=3": ["agent.tokenizer.conv.mult", "list"],
    "agent.tokenizer.conv.mult=[]": ["agent.tokenizer.conv.mult=[]", "at least one"],
    "agent.policy=3": ["agent.policy=3", "agent/policy=cnn_lstm|code_lstm|vit"],
    "epochs=true": ["epochs", "True", "Integer"],
    "epochs=": ["epochs", "Integer"],
    "epochs": ["epochs", "key=value"],
    "epochs=1,2": ["epochs=1,2", "--multirun"],
    "epochs=[": ["epochs=[", "key=value"],
    "epochs=${nothing}": ["epochs", "'nothing' not found"],
    "=3": ["=3", "key=value"],
    "~epochs": ["~epochs", "epochs=value"],
    "--epochs=3": ["--epochs=3", "without dashes: epochs=value"],
    "epochs=0": ["epochs=0", "1 or more"],
    "dynamics.learning_rate=nan": ["dynamics.learning_rate=nan", "finite"],
    "policy.max_gradient_norm=0": ["policy.max_gradient_norm=0", "more than 0"],
    "collect.epsilon=2.0": ["collect.epsilon=2.0", "from 0 to 1"],
    "replay.storage=tape": ["replay.storage=tape", "memory, memmap, device"],
    "learner.mode=captured": ["learner.mode=captured", "no CUDA graphs", "compiled, eager or auto"],
    "agent.tokenizer.quantizer.kind=vqvae": ["kind=vqvae is not known", "cosine_ema, vq, vq_ema, fsq"],
    "agent.tokenizer.quantizer.kind=fsq": ["agent.tokenizer.quantizer.size belongs to quantizer=cosine_ema"],
    "agent.tokenizer.quantizer.codebooks=2": ["codebooks=2", "size=8", "power of 2"],
    "quantizer=vqvae": ["quantizer=vqvae does not exist", "fsq, vq"],
    "agent.dynamics.reward=loud": ["'loud'", "two_hot, sign"],
    "collect.first_steps=4": ["collect.first_steps=4", "6 or more"],
    "run=": ["run=", "without a value"],
    "resume=": ["resume=", "without a value"],
    "logger=paper": ["logger=", "paper", "tensorboard, csv, wandb"],
    "logger=null": ["logger=", "tensorboard, csv, wandb"],
    "device=tpu": ["device=tpu", "auto, cpu"],
    "device=cuda:99": ["device=cuda:99", "auto, cpu"],
    # The environment
    "env.id=deltadream/Cach-v0": ["deltadream/Cach-v0", "did you mean deltadream/Catch-v0"],
    "env.id=no_such_module:Game-v0": ["no_such_module"],
    "env.max_episode_steps=3": ["did you mean env.kwargs.max_episode_steps?"],
    "env.kwargs.lengths=(3,4)": ["deltadream/Catch-v0", "{'lengths': (3, 4)}"],
    "env.image=left": ["env.image=left"],
    "env.size=0": ["env.size=0"],
    "env.on_error=go_on": ["env.on_error=go_on", "stop, restart"],
    "env.timeout=0": ["env.timeout=0", "more than 0"],
    "env.timeout=60": ["env.timeout=60", "env.parallel=true"],
    "env.id=odd_envs:Broken-v0": ["odd_envs:Broken-v0", "its data are missing"],
    "env.id=odd_envs:Unready-v0": ["has no observation_space (RuntimeError: reset me first); give it one"],
    "env.layout=hwcx": ["env.layout=hwcx", "hwc, chw, shwc or hwcs"],
    "env.id=odd_envs:Unbounded-v0": ["observation space", "holds no image", "render_mode rgb_array (human)"],
    # Sizes that do not fit
    "agent.policy.conv.patch=5": ["32", "divisible by 5"],
    "agent.policy.conv.down=[0,1]": ["mult has 1", "down has 2"],
    "agent.policy.conv.groups=3": ["groups=3", "multiple"],
    "agent.actor_critic.horizon=6": ["horizon=6", "context"],
    "agent.dynamics.pushforward_from=5": ["pushforward_from belongs to agent/dynamics=delta_light"],
    "dynamics.steps=4": ["dynamics.steps=4", "burn_in=2 − 1 + horizon=4"],
    "dynamics.steps=7": ["dynamics.steps=7", "agent.dynamics.context=6"],
    "agent.tokenizer.tokens=3": ["3 tokens", "tile"],
    "agent.tokenizer.frame_conv.patch=4": ["frame_conv", "same reduction"],
    "agent.dynamics.transformer.heads=3": ["heads=3", "multiple"],
    "agent.dynamics.transformer.width=8": ["width 8", "16 cells"],
    # A machine that is too small
    "replay.capacity=1000000000000": ["replay.capacity=1000000000000", "memory", "lower replay.capacity"],
    "agent.policy.hidden=2000000": ["memory", "lower"],
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working directory with odd_envs in it."""
    shutil.copy(Path(__file__).with_name("odd_envs.py"), tmp_path)
    (tmp_path / "__pycache__").mkdir()
    return tmp_path


def check_refused(result: Result, *named: str) -> None:
    assert result.code == 2, result
    assert result.err.count("\n") == 1 and result.err.endswith((".\n", "?\n")), result.err
    assert "Traceback" not in result.err and result.out == ""
    for part in named:
        assert part in result.err, (part, result.err)


def without_caches(before: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in before.items() if "__pycache__" not in name}


@pytest.mark.parametrize("given", VALUES)
def test_values(given: str, place: Path):
    before = contents(place)
    check_refused(train(*TINY, given, cwd=place), *VALUES[given])
    assert without_caches(contents(place)) == without_caches(before)


@pytest.mark.skipif("__import__('importlib').util.find_spec('wandb')")
def test_weights_and_biases_not_installed(place: Path):
    check_refused(train(*TINY, "logger=wandb", cwd=place), "wandb", "pip install")


def test_no_such_cuda_device(place: Path):
    import torch

    if not torch.cuda.is_available():
        check_refused(
            train(*TINY, "device=cuda", cwd=place),
            "device=cuda is not on this machine",
            "auto, cpu",
        )


def test_disk_too_small(place: Path):
    """For the memory map; and where that fits, for it and the checkpoints' copy of it."""
    huge = train(*TINY, "replay.storage=memmap", "replay.capacity=1000000000000", cwd=place)
    check_refused(huge, "replay.capacity=1000000000000", "disk")
    row = 3 * 32 * 32 + 12
    capacity = int(shutil.disk_usage(place).free / row * 0.7)
    both = train(
        *TINY, "replay.storage=memmap", f"replay.capacity={capacity}", "run=new", cwd=place
    )
    check_refused(both, "disk", "copy", "lower replay.capacity")
    assert not (place / "new").exists()


def test_run_folder_is_taken(place: Path, finished: Path):
    before = contents(finished)
    check_refused(
        train(*TINY, f"run={finished}", cwd=place), "exists already", f"resume={finished}"
    )
    assert contents(finished) == before
    file = place / "odd_envs.py"
    check_refused(train(*TINY, f"run={file}", cwd=place), "exists already")
    check_refused(train(*TINY, f"run={file}/below", cwd=place), f"{file}/below cannot be made")


class TestResume:
    @pytest.fixture
    def run(self, place: Path, finished: Path) -> Path:
        return shutil.copytree(finished, place / "run")

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            (["resume=nothing"], ["nothing holds no checkpoint", "a run's folder"]),
            (["resume=empty"], ["empty holds no checkpoint"]),
            (["resume=odd_envs.py"], ["odd_envs.py"]),
            (["resume=run"], ["run has all its 2 epochs", "epochs=4"]),
            (
                ["resume=run", "epochs=4", "experiment=crafter"],
                ["experiment=catch", "experiment=crafter"],
            ),
            (
                ["resume=run", "epochs=4", "agent.policy.hidden=16"],
                ["agent.policy.hidden=16", "agent.policy.hidden=8"],
            ),
            (["resume=run", "epochs=4", "seed=3"], ["seed=3", "seed=0", "may change epochs"]),
            (["resume=run", "epochs=4", "run=other"], ["run=other"]),
            (["resume=run", "epochs=4", "evaluation.episodes=0"], ["evaluation.episodes=0"]),
            (["resume=run", "epohcs=4"], ["did you mean epochs"]),
        ],
        ids=lambda x: " ".join(x) if "resume" in x[0] else "",
    )
    def test_refused(self, run: Path, given: list[str], named: list[str]):
        (run.parent / "empty").mkdir()
        before = contents(run.parent)
        check_refused(train(*given, cwd=run.parent), *named)
        assert contents(run.parent) == before

    @pytest.mark.parametrize("damage", ["changed", "cut"])
    @pytest.mark.parametrize(
        "name",
        ["agent.safetensors", "policy_optimizer.safetensors", "replay.safetensors", "collector.safetensors",
         "random.safetensors", "state.json", "manifest.json", "rows"],
    )  # fmt: skip
    def test_damaged(self, run: Path, name: str, damage: str):
        path = (
            next((run / "replay").iterdir())
            if name == "rows"
            else run / "checkpoints" / "epoch_000002" / name
        )
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data if damage == "changed" else data[: len(data) // 2])
        before = contents(run)
        check_refused(train("resume=run", "epochs=4", cwd=run.parent), path.name)
        assert contents(run) == before


class TestEvaluate:
    @pytest.mark.parametrize(
        ("given", "named"),
        [
            ([], ["No run was given"]),
            (["run=nothing"], ["nothing holds no checkpoint"]),
            (["run=odd_envs.py"], ["odd_envs.py"]),
            (["run=run", "episodes=0"], ["episodes=0", "1 or more"]),
            (["run=run", "episodes=many"], ["episodes", "'many'"]),
            (["run=run", "seed=-1"], ["seed=-1"]),
            (["run=run", "epsiodes=3"], ["epsiodes", "did you mean episodes"]),
            (["run=run", "device=tpu"], ["device=tpu"]),
            (
                ["run=run", "output=odd_envs.py/x.json"],
                ["output=odd_envs.py/x.json", "cannot be written"],
            ),
            (["run=run", "output=run"], ["output=run", "cannot be written"]),
            (["run=run", "output="], ["output=", "without a value"]),
        ],
        ids=lambda x: " ".join(x),
    )
    def test_refused(self, place: Path, finished: Path, given: list[str], named: list[str]):
        os.symlink(finished, place / "run")
        before = contents(finished), without_caches(contents(place))
        check_refused(evaluate(*given, cwd=place), *named)
        assert (contents(finished), without_caches(contents(place))) == before


def test_a_checkpoint_has_no_module_imported(place: Path):
    """Only what stands on the command line is imported."""
    run = train(*TINY, "env.id=odd_envs:Odd-v0", "epochs=1", "run=run", cwd=place)
    assert run.code == 0, run.err
    (place / "odd_envs.py").write_text("open('was_here', 'w')")
    before = without_caches(contents(place))
    check_refused(evaluate("run=run", cwd=place), "odd_envs:Odd-v0", "env.id=odd_envs:Odd-v0")
    check_refused(
        train("resume=run", "epochs=2", cwd=place), "odd_envs:Odd-v0", "env.id=odd_envs:Odd-v0"
    )
    assert without_caches(contents(place)) == before
    shutil.copy(Path(__file__).with_name("odd_envs.py"), place)
    assert evaluate("run=run", "env.id=odd_envs:Odd-v0", "episodes=2", cwd=place).code == 0
    assert train("resume=run", "env.id=odd_envs:Odd-v0", "epochs=2", cwd=place).code == 0


def test_no_environment_is_named(tmp_path: Path):
    check_refused(train("env=gym", cwd=tmp_path), "env.id has no value", "env.id=CartPole-v1")


def test_crafter_and_published_sizes(tmp_path: Path):
    """Where another experiment is the base."""
    check_refused(
        train("experiment=crafter_quick", "agent.dynamics.context=5", cwd=tmp_path), "context"
    )
    check_refused(
        train(*TINY_CRAFTER, "++env.kwargs.length=0", cwd=tmp_path), "length=0", "1 or more"
    )
    assert contents(tmp_path) == {}
