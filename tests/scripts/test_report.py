"""The report command as a process."""

import shlex
import shutil
from pathlib import Path

import pytest

from tests.saved_runs import PROTOCOL, write_atari, write_evaluation, write_run
from tests.scripts.commands import Result, contents, evaluate, run_command


def report(*arguments: str, cwd: Path) -> Result:
    return run_command("report", arguments, cwd)


def check_refused(result: Result, *named: str) -> None:
    """Exit code 2, and one sentence that names what is wrong."""
    assert result.code == 2 and result.out == ""
    assert len(result.err.splitlines()) == 1
    for name in named:
        assert name in result.err


def test_a_partial_sweep(tmp_path: Path):
    """With a run and an evaluation that cannot be read, and one that is not evaluated yet."""
    write_atari(tmp_path / "runs", {"Boxing": [6.1, 12.1], "Freeway": [59.2]})
    before = contents(tmp_path / "runs" / "Boxing")
    write_run(tmp_path / "runs" / "Pong", "Pong")
    damaged = "runs/Freeway/seed_0/evaluation_agent_epoch_000700.json"
    (tmp_path / damaged).write_text('{"epoch": 70')
    (tmp_path / "runs" / "foreign").mkdir()
    (tmp_path / "runs" / "foreign" / "config.yaml").write_text("model: theirs")
    result = report("runs=runs", cwd=tmp_path)
    assert result.code == 0, result.err
    first, second = result.err.splitlines()
    assert first.startswith(f"{damaged}: left out")
    assert second.startswith("runs/foreign: left out")
    text = (tmp_path / "runs" / "report" / "report.md").read_text()
    assert first in text and second in text
    assert "python scripts/evaluate.py run=runs/Pong episodes=100" in text
    lines = result.out.splitlines()
    assert lines[0] == "## deltadream/Atari-v0" and lines[-1] == "written to runs/report/report.md"
    assert any(line.startswith("| Boxing ") and "9.10 ± 4.24" in line for line in lines)
    assert contents(tmp_path / "runs" / "Boxing") == before

    again = report("runs=runs", "output=deep/er", cwd=tmp_path)  # the report is no run
    assert again.code == 0 and again.err == result.err
    assert (tmp_path / "deep" / "er" / "report.md").read_text() == text


def test_what_the_other_commands_write(finished: Path, tmp_path: Path):
    """A run by train is in the report, and its evaluations by the command that the report names."""
    run = shutil.copytree(finished, tmp_path / "runs" / "seed=0,a b")
    for path in run.glob("evaluation_*.json"):
        path.unlink()
    first = report("runs=runs", cwd=tmp_path)
    assert first.code == 0 and first.err == "", first.err
    assert "Without an evaluation: `runs/seed=0,a b`." in first.out
    text = (tmp_path / "runs" / "report" / "report.md").read_text()
    command = text[text.index("python scripts/evaluate.py") :].splitlines()[0]
    for policy in ("random=false", "random=true"):
        result = evaluate(*shlex.split(command)[2:], policy, cwd=tmp_path)
        assert result.code == 0, result.err
    second = report("runs=runs", cwd=tmp_path)
    assert second.code == 0 and second.err == "", second.err
    assert "| random actions |" in second.out
    assert "Without an evaluation" not in second.out
    assert (tmp_path / "runs" / "report" / "deltadream_Catch-v0_curves.png").exists()
    third = report("runs=runs", "minutes=600", cwd=tmp_path)
    assert third.code == 0 and third.out.startswith("## After 600 minutes"), third.err


def test_mixed_protocols(tmp_path: Path):
    for seed, frame_skip in enumerate((4, 8)):
        run = write_run(tmp_path / "runs" / f"seed_{seed}", seed=seed)
        write_evaluation(run, [1.0] * 100, protocol=PROTOCOL | {"frame_skip": frame_skip})
    named = ("frame_skip in evaluation", "4 in runs/seed_0", "8 in runs/seed_1", "mixed=true")
    check_refused(report("runs=runs", cwd=tmp_path), *named)
    assert not (tmp_path / "runs" / "report").exists()
    result = report("runs=runs", "mixed=true", cwd=tmp_path)
    assert result.code == 0 and "4 (1 run) / 8 (1 run)" in result.out, result.err


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """One run, a file, and a folder with nothing in it."""
    folder = tmp_path_factory.mktemp("place")
    write_evaluation(write_run(folder / "runs" / "seed_0"), [1.0])
    (folder / "file").write_text("")
    (folder / "empty").mkdir()
    return folder


BAD = {
    (): ["No runs were given", "runs=<"],
    ("runs=runs", "output=file/below"): ["output=file/below"],
    ("runs=runs", "minutes=0"): ["minutes=0", "more than 0"],
    ("run=runs",): ["run", "did you mean runs"],
}


@pytest.mark.parametrize(("given", "named"), BAD.items())
def test_bad_input(place: Path, given, named):
    before = contents(place)
    check_refused(report(*given, cwd=place), *named)
    assert contents(place) == before
