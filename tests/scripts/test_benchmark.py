import json

from tests.scripts.commands import run_command
from tests.tiny import TINY


def test_a_benchmark_counts_and_measures_each_part(tmp_path):
    output = tmp_path / "benchmark.json"
    result = run_command("benchmark", (*TINY, "seconds=0.01", f"output={output}"), cwd=tmp_path)
    assert result.code == 0, result.err
    report = json.loads(output.read_text())
    assert set(report["parts"]) == {"tokenizer", "dynamics", "policy"}
    for part in report["parts"].values():
        assert part["gflop"] > 0 and 0 < part["fastest"] <= part["seconds_per_update"] <= part["slowest"]
    assert report["environment_steps_per_second"]["random"] > 0


def test_bad_input_is_one_sentence(tmp_path):
    result = run_command("benchmark", ("experiment=catch", "seconds=-1"), cwd=tmp_path)
    assert result.code == 2 and len(result.err.splitlines()) == 1, result.err
    assert list(tmp_path.iterdir()) == []
