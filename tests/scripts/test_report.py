"""The report command as a process."""

import shlex
import shutil
from pathlib import Path

import pytest

from tests.scripts.commands import Result, contents, evaluate, run_command


def report(*arguments: str, cwd: Path) -> Result:
    return run_command("report", arguments, cwd)


def test_what_the_other_commands_write(finished: Path, tmp_path: Path):
    """A run by train is in the report, and its evaluation by the command that the report names."""
    run = shutil.copytree(finished, tmp_path / "runs" / "seed=0,a b")
    for path in run.glob("evaluation_*.json"):
        path.unlink()
    before = contents(run)
    first = report("runs=runs", cwd=tmp_path)
    assert first.code == 0 and first.err == "", first.err
    assert first.out.endswith("written to runs/report/report.md\n")
    command = first.out[first.out.index("python scripts/evaluate.py") :].splitlines()[0]
    result = evaluate(*shlex.split(command)[2:], cwd=tmp_path)
    assert result.code == 0, result.err
    second = report("runs=runs", "output=deep/er", cwd=tmp_path)
    assert second.code == 0 and "Nothing is missing." in second.out, second.err
    assert (tmp_path / "deep" / "er" / "deltadream_Catch-v0_curves_steps.png").exists()
    assert contents(run).items() > before.items()  # with the new evaluation


@pytest.mark.parametrize(
    ("given", "named"), [((), "runs=None"), (("runs=.", "output=file/below"), "output=file/below")]
)
def test_bad_input(tmp_path: Path, given, named):
    (tmp_path / "file").touch()
    result = report(*given, cwd=tmp_path)
    assert result.code == 2 and result.out == "" and named in result.err
    assert len(result.err.splitlines()) == 1
