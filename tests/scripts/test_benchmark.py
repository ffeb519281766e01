import json

import pytest

from tests.scripts.commands import run_command
from tests.tiny import TINY


def test_a_benchmark_counts_and_measures_each_part(tmp_path):
    output = tmp_path / "benchmark.json"
    result = run_command(
        "benchmark",
        (*TINY, "seconds=0.01", "modes=[eager]", f"output={output}", "roofline=roofline.png"),
        cwd=tmp_path,
    )
    assert result.code == 0, result.err
    assert (tmp_path / "roofline.png").stat().st_size > 0
    report = json.loads(output.read_text())
    assert set(report["parts"]) == {"tokenizer", "dynamics", "policy"}
    for part in report["parts"].values():
        assert part["gflop"] > 0 and 0 <= part["share_waiting"] < 1
        assert part["modes"][0]["mode"] == "eager" and part["modes"][0]["precision"] == "fp32"
        for mode in part["modes"]:
            assert 0 < mode["fastest"] <= mode["seconds_per_update"] <= mode["slowest"]
            assert mode["kernels"] > 100 and mode["activations_gb"] > 0
    assert report["environment_steps_per_second"]["random"] > 0
    spent = sum(part["updates"] * part["gflop"] for part in report["parts"].values()) / 1e6
    assert (
        spent
        == pytest.approx(report["petaflop"])
        == pytest.approx(sum(part["petaflop"] for part in report["parts"].values()))
    )
    policy = report["parts"]["policy"]
    assert report["imagined_steps"] * report["gflop_per_imagined_step"] / 1e6 == pytest.approx(
        policy["petaflop"]
    )


def test_an_estimate_for_cards_that_are_not_here(tmp_path):
    output = tmp_path / "estimate.json"
    result = run_command("benchmark", (*TINY, "--estimate", f"output={output}"), cwd=tmp_path)
    assert result.code == 0, result.err
    report = json.loads(output.read_text())
    for card in report["cards"].values():
        for part in ("tokenizer", "dynamics", "policy"):
            assert card[part]["eager"] >= card[part]["captured"] >= card[part]["compiled"] > 0
    assert "None is measured" in result.out and "Assumed" in result.out


def test_dreams_a_second(tmp_path):
    output = tmp_path / "dream.json"
    arguments = (
        *TINY,
        "dream=true",
        "dreams=[1,3]",
        "modes=[eager]",
        "precision=fp32",
        "seconds=0.01",
        f"output={output}",
    )
    result = run_command("benchmark", arguments, cwd=tmp_path)
    assert result.code == 0, result.err
    rows = json.loads(output.read_text())["dreams"]
    assert [(row["mode"], row["number"]) for row in rows] == [("eager", 1), ("eager", 3)]
    assert all(row["steps_per_second"] > 0 for row in rows)


def test_bad_input_is_one_sentence(tmp_path):
    for wrong in ("seconds=-1", "modes=[fast]", "dreams=[]", "output=."):
        result = run_command("benchmark", ("experiment=catch", wrong), cwd=tmp_path)
        assert result.code == 2 and len(result.err.splitlines()) == 1, result.err
        assert wrong.partition("=")[0] in result.err
    assert list(tmp_path.iterdir()) == []
