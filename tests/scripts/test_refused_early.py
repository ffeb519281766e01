"""Bad values are refused before torch is imported, which takes seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.commands import ROOT

WITHOUT_TORCH = (
    "import runpy, sys; sys.modules['torch'] = None; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.mark.parametrize(
    ("script", "wrong", "named"),
    [
        ("train", "tokenizer.batch=0", "1 or more"),
        ("evaluate", "run=nothing", "nothing holds no checkpoint"),
        ("play", "fps=1000", "1 to 240"),
        ("play", "run=nothing", "nothing holds no checkpoint"),
        ("check_env", "trial=0", "1 or more"),
        ("report", "minutes=0", "more than 0"),
        ("benchmark", "seconds=-1", "more than 0"),
        ("benchmark", "modes=[fast]", "eager, compiled, captured"),
        ("compare_quantizers", "quantizers=[vqq]", "cosine_ema"),
    ],
)
def test_before_torch_is_imported(script: str, wrong: str, named: str, tmp_path: Path) -> None:
    command = f"import sys; sys.argv = sys.argv[1:]; {WITHOUT_TORCH}"
    path = ROOT / "scripts" / f"{script}.py"
    result = subprocess.run(
        [sys.executable, "-c", command, str(path), wrong],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/agent"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2, result.stderr
    assert wrong.partition("=")[2].strip("[]") in result.stderr and named in result.stderr
    assert len(result.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())
