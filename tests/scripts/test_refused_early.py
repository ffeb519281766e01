"""Bad values are refused before torch is imported, which takes seconds."""

import os
import subprocess
import sys
from pathlib import Path

from tests.scripts.commands import ROOT

REFUSED = {
    "train tokenizer.batch=0": "1 or more",
    "evaluate run=nothing": "nothing holds no checkpoint",
    "play fps=1000": "1 to 240",
    "play run=nothing": "nothing holds no checkpoint",
    "check_env trial=0": "1 or more",
    "report minutes=0": "more than 0",
    "benchmark seconds=-1": "more than 0",
    "benchmark modes=[fast]": "eager, compiled, captured",
    "compare_quantizers quantizers=[vqq]": "cosine_ema",
}
PROGRAM = """
import runpy, sys
root, *commands = sys.argv[1:]
sys.modules["torch"] = None
for command in commands:
    script, wrong = command.split()
    sys.argv = [script, wrong]
    try:
        runpy.run_path(f"{root}/scripts/{script}.py", run_name="__main__")
    except SystemExit as end:
        assert end.code == 2, command
"""


def test_before_torch_is_imported(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT), *REFUSED],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/agent"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stderr.splitlines()
    for (command, named), line in zip(REFUSED.items(), lines, strict=True):
        assert command.partition("=")[2].strip("[]") in line and named in line
    assert not list(tmp_path.iterdir())
