import json

from tests.scripts.commands import run_command
from tests.tiny import OF_AGENT, TINY

SMALL = (*TINY, "quantizers=[vq,fsq]", "seeds=[3,4]", "held_out=40")


def test_a_comparison(tmp_path):
    output = tmp_path / "quantizers.json"
    result = run_command("compare_quantizers", (*SMALL, f"output={output}"), cwd=tmp_path)
    assert result.code == 0, result.err
    results = json.loads(output.read_text())["results"]
    assert {name: len(runs) for name, runs in results.items()} == {"vq": 2, "fsq": 2}
    for name, codes in (("vq", 8), ("fsq", 1000)):
        for run in results[name]:
            assert 1 <= run["codes_alive"] <= codes and 0 <= run["use_bits"] <= 10
            assert run["error"] > 0 and run["squared_error"] > 0 and run["cross_entropy_bits"] > 0
            assert run["update_ms"] > run["quantizer_ms"] > 0
    assert (
        results["vq"][0]["squared_error"] != results["vq"][1]["squared_error"]
    )  # other seeds, other frames
    assert "2 seeds" in result.out and "±" in result.out


def test_tokens_of_whole_frames(tmp_path):
    """The same measure, on the same frames, for the other tokenizer."""
    output = tmp_path / "quantizers.json"
    result = run_command(
        "compare_quantizers", (*OF_AGENT["iris"], *SMALL[-3:], f"output={output}"), cwd=tmp_path
    )
    assert result.code == 0, result.err
    for runs in json.loads(output.read_text())["results"].values():
        assert all(run["squared_error"] > 0 and run["cross_entropy_bits"] > 0 for run in runs)


def test_what_is_refused(tmp_path):
    for wrong, words in {
        "quantizers=[vqq]": "quantizers=['vqq'] was given; give some of cosine_ema, ",
        "seeds=[]": "seeds=[]",
        "held_out=5": "6 steps or more",
        "quantizers=[cosine_ema_product]": "codebooks=2 was given with size=8",
        "output=.": "output=. cannot be written",
    }.items():
        result = run_command("compare_quantizers", (*SMALL, wrong), cwd=tmp_path)
        assert result.code == 2 and words in result.err and len(result.err.splitlines()) == 1, (
            result.err
        )
    assert not list(tmp_path.iterdir())
