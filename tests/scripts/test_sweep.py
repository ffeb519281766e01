"""Sweeps as processes: one run after another, several at a time, on Slurm and on Ray."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from agent.storage import checkpoint
from tests.scripts.commands import (
    ROOT,
    Result,
    check_refused,
    contents,
    here,
    run_command,
    start_command,
)
from tests.tiny import TINY


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with an experiment of seconds, as a user would write one."""
    own = OmegaConf.from_dotlist([s for s in TINY if not s.startswith(("experiment=", "epochs="))])
    own = OmegaConf.merge(
        {"defaults": ["catch", "_self_"], "experiment": "seconds", "epochs": 1}, own
    )
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "seconds.yaml").write_text(
        "# @package _global_\n" + OmegaConf.to_yaml(own)
    )
    return tmp_path


def sweep(place: Path, *arguments: str) -> Result:
    return run_command("train", ("--config-dir=own", "experiment=seconds", *arguments), place)


def typed(place: Path, *arguments: str) -> Result:
    """The same in an interpreter of its own, at whose end launchers stop their processes."""
    command = [
        sys.executable,
        ROOT / "scripts" / "train.py",
        "--config-dir=own",
        "experiment=seconds",
        "seed=0,1",
        "--multirun",
    ]
    result = subprocess.run(
        [*command, *arguments], cwd=place, capture_output=True, text=True, timeout=600
    )
    return Result(result.returncode, result.stdout, result.stderr)


def epochs(place: Path) -> dict[str, int]:
    """Run -> epochs done."""
    return {run.name: checkpoint.load(run).epoch for run in (place / "runs" / "seconds").iterdir()}


def test_a_sweep_that_was_killed_goes_on(place: Path):
    """Folders say what was varied; what is finished is left alone."""
    arguments = ("--config-dir=own", "experiment=seconds", "seed=0,1", "--multirun", "epochs=4")
    arguments += ("sweep=other", "agent=delta_iris", "quantizer=cosine_ema_rotation")
    (place / "output").mkdir()
    process = start_command("train", arguments, place, place / "output")
    runs: list[Path] = []
    while (len(runs) < 2 or checkpoint.newest(runs[1]) is None) and process.is_alive():
        runs = sorted((place / "other" / "seconds").glob("seed-*"))
        time.sleep(0.01)
    process.kill()
    process.join()
    first, second = runs
    assert checkpoint.load(first).epoch == 4 > checkpoint.load(second).epoch
    before = contents(first)
    result = run_command("train", arguments, place)
    assert result.code == 0, result.err
    assert result.out.count("left as it is") == 1 and result.out.count("run folder") == 1
    assert checkpoint.load(second).epoch == 4
    assert contents(first) == before


def test_one_that_fails_does_not_stop_the_others(place: Path):
    """A line for each that fails, as it was typed."""
    result = sweep(
        place, "dynamics.steps=99,5", "env.id=deltadream/Catch-v0,CartPol-v1", "--multirun"
    )
    assert result.code == 2 and "Traceback" not in result.err
    good = [run.name for run in (place / "runs" / "seconds").iterdir()]
    assert len(good) == 1 and good[0].endswith("dynamics.steps-5+env.id-deltadream%2FCatch-v0")
    lines = [line for line in result.err.splitlines() if line.startswith("experiment=seconds ")]
    assert "Error executing job" not in result.err  # Hydra's own line
    assert len(lines) == 3 and "dynamics.steps=99 env.id=deltadream/Catch-v0: " in lines[0]


def test_two_processes_do_not_share_a_folder(place: Path):
    (place / "output").mkdir()
    arguments = ("--config-dir=own", "experiment=seconds", "run=mine", "epochs=1000")
    process = start_command("train", arguments, place, place / "output")
    try:
        while checkpoint.newest(place / "mine") is None and process.is_alive():
            time.sleep(0.01)
        check_refused(here("train", "resume=mine", cwd=place), "another process")
        assert process.is_alive()
    finally:
        process.kill()
        process.join()


def test_several_at_a_time(place: Path):
    """By joblib, in processes of their own, which the failure of one leaves alone."""
    result = typed(place, "dynamics.steps=5,99", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert result.code == 2, result.err
    assert epochs(place) == {"seed-0+dynamics.steps-5": 1, "seed-1+dynamics.steps-5": 1}
    assert result.err.count("steps=99") >= 2 and "Error executing job" not in result.err


@pytest.mark.long
def test_on_a_ray_cluster_of_this_machine(place: Path):
    cpus = ("+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.remote.num_cpus=1")
    result = typed(place, "hydra/launcher=ray", *cpus)
    assert result.code == 0, result.err
    assert epochs(place) == {"seed-0": 1, "seed-1": 1}


SBATCH = """#!/bin/sh
# Keeps the script, and plays the cluster: runs the job's own command with a job's environment.
cp "$1" {place}/job.sh
SLURM_JOB_ID=7 SLURM_ARRAY_JOB_ID=7 sh {place}/slurm/array "$1" > {place}/array.log 2>&1 &
echo "Submitted batch job 7"
"""
ARRAY = """#!/bin/sh
for task in 0 1; do
  export SLURM_ARRAY_TASK_ID=$task SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0
  export SLURM_NODEID=0 SLURM_NNODES=1
  export SLURM_JOB_NODELIST=here SLURM_JOB_NUM_NODES=1 SLURM_JOBID=7_$task
  sh "$1"
  echo $task >> {place}/done
done
"""
SRUN = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do
  case "$1" in --output|--error) shift 2;; *) shift;; esac
done
exec "$@"
"""
SACCT = """#!/bin/sh
echo "JobID|State|NodeList"
for task in 0 1; do
  state=RUNNING
  if grep -q $task {place}/done 2>/dev/null; then state=COMPLETED; fi
  echo "7_$task|$state|here"
done
"""


def test_on_slurm(place: Path, monkeypatch):
    """The script that is submitted, and what it does where these stand in for a cluster's."""
    (place / "slurm").mkdir()
    for name, text in {
        "sbatch": SBATCH,
        "array": ARRAY,
        "srun": SRUN,
        "sacct": SACCT,
        "scancel": "#!/bin/sh\n",
    }.items():
        path = place / "slurm" / name
        path.write_text(text.replace("{place}", str(place)))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{place / 'slurm'}:{Path(sys.executable).parent}:/usr/bin:/bin")
    result = typed(
        place, "hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra.launcher.gpus_per_node=1",
        "hydra.launcher.cpus_per_task=8", "hydra.launcher.timeout_min=1440", "hydra.launcher.max_num_timeout=20",
    )  # fmt: skip
    assert result.code == 0, result.err
    script = (place / "job.sh").read_text()
    for line in (
        "--array=0-1",
        "--partition=gpu",
        "--gpus-per-node=1",
        "--cpus-per-task=8",
        "--time=1440",
        "--signal=USR2@",
    ):
        assert re.search(rf"^#SBATCH {re.escape(line)}", script, re.MULTILINE), line
    assert epochs(place) == {"seed-0": 1, "seed-1": 1}
