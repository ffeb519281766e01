"""The benchmark and the comparison of quantizers, from their command lines on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.benchmark.command import benchmark
from agent.benchmark.config import BenchmarkConfig
from agent.benchmark.quantizers import CompareQuantizersConfig, compare_quantizers
from agent.config.compose import TRAINING
from agent.runs.cli import configuration, register
from envs.errors import BadInput
from tests.tiny import OF_AGENT, TINY


def measured(folder: Path, *given: str) -> dict:
    """What the benchmark of a tiny run writes."""
    register("benchmark", TRAINING)
    output = folder / "deep" / "er.json"
    settings = [*TINY, "seconds=0.01", "modes=[eager]", f"output={output}", *given]
    benchmark(configuration("benchmark", BenchmarkConfig, settings), [])
    return json.loads(output.read_text())


@pytest.mark.slow
def test_each_part_is_counted_and_measured(tmp_path: Path) -> None:
    report = measured(tmp_path)
    assert set(report["parts"]) == {"tokenizer", "dynamics", "policy"}
    for part in report["parts"].values():
        assert part["modes"][0]["mode"] == "eager fp32"
        for mode in part["modes"]:
            assert mode["seconds_per_update"] > 0 and mode["share_of_matrix_product_rate"] > 0
    assert report["environment_steps_per_second"]["random"] > 0
    spent = sum(part["updates"] * part["gflop"] for part in report["parts"].values()) / 1e6
    assert spent == pytest.approx(report["petaflop"])
    policy = report["parts"]["policy"]
    imagined = report["imagined_steps"] * report["gflop_per_imagined_step"]
    assert imagined == pytest.approx(policy["updates"] * policy["gflop"])


def test_an_estimate_for_cards_that_are_not_here(tmp_path: Path, capsys) -> None:
    for card in measured(tmp_path, "estimate=true")["cards"].values():
        for part in ("tokenizer", "dynamics", "policy"):
            assert card[part]["eager"] >= card[part]["captured"] >= card[part]["compiled"] > 0
    assert "Not measured" in capsys.readouterr().out


def test_environments_and_dreams_a_second(tmp_path: Path) -> None:
    assert measured(tmp_path, "updates=false")["environment_steps_per_second"]["policy"] > 0
    rows = measured(tmp_path, "dream=true", "dreams=[1,3]", "precision=fp32")["dreams"]
    assert [(row["mode"], row["number"]) for row in rows] == [("eager fp32", 1), ("eager fp32", 3)]
    assert all(row["steps_per_second"] > 0 for row in rows)


@pytest.mark.parametrize("wrong", ["seconds=-1", "modes=[fast]", "dreams=[]", "output=."])
def test_bad_input_of_the_benchmark(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(BadInput, match=wrong.partition("=")[0]):
        measured(tmp_path, wrong)


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["delta_iris", "iris"])
def test_quantizers(tmp_path: Path, agent: str, capsys) -> None:
    register("compare_quantizers", TRAINING)
    output = tmp_path / "quantizers.json"
    seeds = "seeds=[3,4,3]" if agent == "delta_iris" else "seeds=[3]"
    given = [*OF_AGENT[agent], "quantizers=[vq,fsq]", "held_out=40", seeds, f"output={output}"]
    compare_quantizers(configuration("compare_quantizers", CompareQuantizersConfig, given), [])
    rows = json.loads(output.read_text())["results"]
    for row in rows:
        assert 1 <= row["codes_alive"] <= (8 if row["quantizer"] == "vq" else 1000)
        assert row["error"] > 0 and row["squared_error"] > 0 and row["cross_entropy_bits"] > 0
        assert 0 <= row["use_bits"] <= 10
    if agent == "delta_iris":
        assert rows[:2] == rows[4:] != rows[2:4]  # the seed decides frames, batches and weights
    assert "squared_error" in capsys.readouterr().out


def test_each_quantizer_is_checked_before_anything_is_measured() -> None:
    register("compare_quantizers", TRAINING)
    settings = [*TINY, "quantizers=[vq,cosine_ema_product]"]
    config = configuration("compare_quantizers", CompareQuantizersConfig, settings)
    with pytest.raises(BadInput, match="codebooks=2 was given with size=8"):
        compare_quantizers(config, [])
