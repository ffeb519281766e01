"""A report's tables by hand, and what it says is missing."""

import re
from datetime import date
from pathlib import Path

import imageio.v3 as imageio
import pandas as pd
import pytest

from agent.report.figures import mean_and_range
from agent.report.runs import find_runs
from agent.report.write import write_comparison, write_report
from envs.published import DELTA_IRIS_ATARI
from tests.saved_runs import CATCH, CRAFTER, crafter_rates, write_atari, write_evaluation, write_run


def report(folder: Path, minutes: float | None = None) -> str:
    """The text of report.md or comparison.md, which lie in <folder>/report."""
    runs, left_out = find_runs(folder)
    if minutes:
        write_comparison(runs, left_out, folder / "report", minutes)
        return (folder / "report" / "comparison.md").read_text()
    write_report(runs, left_out, folder / "report")
    return (folder / "report" / "report.md").read_text()


def rows(text: str, first: str) -> list[list[str]]:
    """The other cells of the table rows that start with the given cell."""
    lines = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    return [line[1:] for line in cells if line[0] == first]


def check_figures(folder: Path, *names: str) -> None:
    """Each as PNG and SVG, linked from the report, and something drawn in it."""
    assert {path.name for path in folder.iterdir() if path.suffix in (".png", ".svg")} == {
        f"{name}.{kind}" for name in names for kind in ("png", "svg")
    }
    for name in names:
        assert f"({name}.png)" in (folder / "report.md").read_text()
        assert imageio.imread(folder / f"{name}.png")[..., :3].std() > 5


@pytest.fixture(scope="module")
def partial(tmp_path_factory) -> Path:
    """Boxing at half a human's and a human's score (0.1 + 12 · x), Freeway at twice (29.6 · 2)."""
    folder = tmp_path_factory.mktemp("partial")
    write_atari(folder, {"Boxing": [6.1, 12.1], "Freeway": [59.2]})
    report(folder)
    return folder


def test_atari_by_hand(partial: Path):
    text = (partial / "report" / "report.md").read_text()
    # Mean 9.1 is 0.75 of the way from 0.1 to 12.1; the deviation of 6.1 and 12.1 is 6 / √2.
    boxing = ["atari", "2", "100000", "9.10 ± 4.24", "0.750", "0.1", "12.1", "56.0 ± 14.0"]
    freeway = ["atari", "1", "100000", "59.2", "2.000", "0", "29.6", "31.0 ± 0.7"]
    assert rows(text, "Boxing") == [boxing] and rows(text, "Freeway") == [freeway]
    # Normalized: Boxing 0.5 and 1, Freeway 2. A resample of Boxing has the mean 0.5, 0.75 or 1.
    expected = {
        "mean": "1.375 [1.250, 1.500]",
        "median": "1.375 [1.250, 1.500]",
        "IQM": "1.167 [1.000, 1.333]",  # of three runs none is left out
        "optimality gap": "0.167 [0.000, 0.333]",
        "games above human": "1 [1, 1]",
        "P(better than Δ-IRIS)": "0.500 [0.500, 0.500]",  # worse in Boxing, better in Freeway
    }
    assert {name: rows(text, name)[0][0] for name in expected} == expected
    assert rows(text, "mean")[0][1].startswith(f"{(31 / 29.6 + 55.9 / 12) / 2:.3f} [")
    assert "over 2 of 26 games" in text and "**Partial**" in text and "DART, printed" not in text
    assert "No run of 24 of the 26 games: Alien, Amidar" in text
    assert "Fewer seeds with an evaluation than the others' 2: Freeway 1." in text
    assert "```sh" not in text  # every run is evaluated
    assert text.index("### Protocol") < text.index("### Results") < text.index("is missing")
    assert rows(text, "noops in training") == [["30"]] and rows(text, "temperature") == [["1.0"]]
    stem = "deltadream_Atari-v0"
    check_figures(partial / "report", f"{stem}_aggregates_atari", f"{stem}_curves")
    assert "Freeway (1 run)" in (partial / "report" / f"{stem}_curves.svg").read_text()


def test_numbers_as_csv(partial: Path):
    found = pd.read_csv(partial / "report" / "report.csv")
    assert found.run.tolist()[0] == str(partial / "Boxing" / "seed_0")
    assert found.human_normalized_score.tolist() == pytest.approx([0.5, 1, 2])
    assert found[["seed", "steps", "episodes", "reached"]].iloc[1].tolist() == [1, 10**5, 100, 600]
    numbers = pd.read_csv(partial / "report" / "aggregates.csv").set_index(["whose", "aggregate"])
    mean = numbers.loc[("atari", "mean")]
    assert mean[["games", "value", "low", "high"]].tolist() == pytest.approx([2, 1.375, 1.25, 1.5])


@pytest.mark.slow
def test_the_same_runs_are_the_same_report(partial: Path, tmp_path: Path):
    write_report(*find_runs(partial), tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (partial / "report" / path.name).read_bytes(), path.name


@pytest.mark.slow
def test_the_whole_benchmark(tmp_path: Path):
    """What was printed of all games stands beside."""
    write_atari(tmp_path, {game: [float(of[0])] for game, of in DELTA_IRIS_ATARI.items()})
    text = report(tmp_path)
    assert rows(text, "IQM")[0][1].startswith("0.682 [")
    assert rows(text, "mean")[0][2:] == ["1.022", "1.046"]
    assert rows(text, "games above human")[0][2:] == ["9", "–"]
    assert "- Nothing is missing." in text and "**Partial**" not in text


@pytest.mark.slow
def test_what_is_not_finished(tmp_path: Path):
    trusted = write_run(tmp_path / "not evaluated", "Pong", env_id="my_module:deltadream/Atari-v0")
    unfinished = write_run(tmp_path / "unfinished", "Boxing")
    (unfinished / "metrics.csv").write_text("epoch,step,evaluate/return_mean\n300,49000,3.0\n")
    write_evaluation(unfinished, [1.0] * 64, epoch=275, steps=47_000)
    again = write_run(tmp_path / "unfinished again", "Boxing")
    foreign = write_run(tmp_path / "foreign", "Atlantis", seed=1)
    write_evaluation(foreign, [7.0] * 100)
    other = write_run(tmp_path / "other", "Boxing", seed=2, policy={"batch": 3})
    write_evaluation(other, [7.0] * 100, temperature=0.5)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.yaml").write_text("{")
    text = report(tmp_path)
    for sentence in (
        f"Unfinished, in epochs: `{unfinished}` 300 of 600.",
        f"Evaluated at an earlier epoch than the last: `{unfinished}` 275 of 300.",
        f"Without an evaluation: `{trusted}`.",
        f"Fewer than 100 evaluation episodes: `{unfinished}` 64.",
        f"Left out: `{again}`, Boxing with seed 0 again (`{unfinished}` is counted).",
        "Not among the games of the aggregates: Atlantis.",
        f"Not trained on the 100000 steps of the benchmark: `{unfinished}` 47000.",
        "Mixed protocols, so these scores cannot be compared: temperature.",
        "Runs differ in more than game and seed: policy.batch.",
    ):
        assert f"- {sentence}" in text
    assert f"- {tmp_path / 'broken'}: left out, its config.yaml is not one of ours" in text
    assert rows(text, "temperature") == [["1.0 (2 runs) / 0.5 (1 run)"]]
    assert rows(text, "Atlantis") == [["atari", "1", "100000", "7.00", "–", "–", "–", "–"]]
    block = text[text.index("```sh") :]
    assert f"python scripts/evaluate.py run={unfinished} episodes=100\n" in block
    assert f"'run={trusted}' episodes=100 env.id=my_module:deltadream/Atari-v0\n" in block
    assert str(foreign) not in block and str(other) not in block


@pytest.mark.slow
def test_crafter_and_a_baseline(tmp_path: Path):
    """Methods of an environment stand side by side, whoever wrote their files."""
    for seed, percent in enumerate((10.0, 30.0)):
        run = write_run(tmp_path / str(seed), None, seed, "crafter", CRAFTER, minutes=10)
        write_evaluation(run, [5.0, 7.0 + seed] * 50, steps=1_000_000, **crafter_rates(percent))
        write_evaluation(run, [1.0] * 100, policy="random", **crafter_rates(2.0))
    ppo = write_run(tmp_path / "ppo", None, 0, "ppo", CRAFTER)
    write_evaluation(ppo, [3.0] * 100, **crafter_rates(4.0), protocol={"noops": 2})
    text = report(tmp_path)
    # Returns 6 and 6.5; scores 11^(21/22) - 1 = 8.864 and 31^(21/22) - 1 = 25.52.
    results = text[text.index("### Results") :]
    assert rows(results, "crafter")[0] == ["2", "1000000", "6.25 ± 0.35", "17.2 ± 11.8"]
    assert rows(results, "ppo")[0] == ["1", "100000", "3.00", f"{5 ** (21 / 22) - 1:.2f}"]
    # Both runs have the same random episodes, which count once.
    random = ["1", "–", "1.00", f"{3 ** (21 / 22) - 1:.2f}"]
    assert rows(text, "random actions") == [random]
    assert ["–", "10000000", "16.1", "42.5"] in rows(text, "Δ-IRIS, published")
    assert rows(text, "wake_up") == [["20.0 ± 14.1", "4.00", "2.00"]]
    assert rows(text, "collect_coal") == [["0.00 ± 0.00", "0.00", "0.00"]]
    assert rows(text, "noops in evaluation") == [["1", "2"]]
    # Of 50 fives and 50 sevens the mean is 6; by normal approximation ± 1.96 · 0.1.
    seed = rows(results, "crafter")[1]
    assert seed[:3] == ["0", "1000000", "20"] and seed[4] == "1.00 [1.00, 1.00]"
    bounds = [float(x) for x in re.findall(r"[\d.]+", seed[3])]
    assert bounds == pytest.approx([6, 5.804, 6.196], abs=0.03)
    stem = "deltadream_Crafter-v1"
    names = ("success_rates", "curves", "minutes")
    check_figures(tmp_path / "report", *(f"{stem}_{name}" for name in names))
    svg = (tmp_path / "report" / f"{stem}_curves.svg").read_text()
    assert all(f">{label}<" in svg for label in ("crafter", "ppo", "random actions"))
    assert "logs tell no time are left out" in text  # the baseline's


@pytest.mark.slow
def test_nothing_evaluated_yet(tmp_path: Path):
    for game, env_id in (("Pong", "deltadream/Atari-v0"), (None, CRAFTER), (None, CATCH)):
        write_run(tmp_path / env_id.replace("/", "_"), game, env_id=env_id)
    text = report(tmp_path)
    assert text.count("python scripts/evaluate.py run=") == 3
    assert text.count("### Protocol") == 3 and "### Results" not in text


def test_names_come_from_files(tmp_path: Path):
    """They neither leave the folder nor break a table, a line or a formula."""
    for i, experiment in enumerate(("../catch", "_catch", "a|b\n<b>")):
        run = write_run(tmp_path / str(i), None, i, experiment, env_id=f"../Odd|$\\odd{i % 2}$\n")
        write_evaluation(run, [0.5] * 100)
    before = {path for path in tmp_path.rglob("*") if "report" not in path.parts}
    text = report(tmp_path)
    after = {
        path for path in tmp_path.rglob("*") if "report" not in path.relative_to(tmp_path).parts
    }
    assert after == before
    assert re.findall("^## (.*)", text, re.MULTILINE) == ["../Odd\\|$\\odd0$", "../Odd\\|$\\odd1$"]
    assert rows(text, "a\\|b &lt;b>")


def test_mean_and_range_of_curves():
    """At an epoch seeds are averaged though one took longer to come there.

    Each counts from its first to its last point, between points on a straight line.
    """
    curves = [("a", 0, 0, 0.0), ("a", 10, 100, 10.0)]
    curves += [("b", 5, 70, 1.0), ("b", 10, 120, 0.0), ("b", 20, 240, 4.0)]
    found = mean_and_range(pd.DataFrame(curves, columns=["run", "epoch", "at", "score"]))
    assert found["at"].tolist() == [0, 60, 110, 240]
    assert found["mean"].tolist() == [0, 3, 5, 4]
    assert found["least"].tolist() == [0, 1, 0, 4]
    assert found["most"].tolist() == [0, 5, 10, 4]


def test_runs_are_compared_after_the_same_time(tmp_path: Path):
    """By their last evaluation within it; what differs is named by what most of them have."""

    def write(name: str, seed: int, curve: dict[int, float], minutes: float, k: int | None, **more):
        agent = {"k": k, **more.pop("agent", {"wide": True})}
        values = {"experiment": "catch", **more, "agent": agent}
        write_run(tmp_path / name, None, seed, env_id=CATCH, curve=curve, minutes=minutes, **values)

    for seed in range(2):
        write(f"usual_{seed}", seed, {10: 0.0, 20: 1.0 + seed, 30: 9.0}, 10, 4)
    write("again", 0, {10: 0.0}, 10, 4)  # two runs of a seed are no two seeds
    write("less", 0, {15: 3.0}, 20.5, 1)
    write("none", 0, {15: 2.0}, 1, None, learner={"mode": "compiled"}, agent={})
    write("slow", 0, {15: 3.0}, 31, 2)
    write("old", 0, {15: 3.0}, 0, 4)  # its log tells no time
    write("other", 0, {15: 4.0}, 1, 1, experiment="pong", agent={"day": date(2020, 1, 1)})
    text = report(tmp_path, minutes=30 - 1e-6)
    assert rows(text, "as most of them") == [
        ["2", "15.0", "10 to 20", "1.00 ± 1.41"],
        ["1", "1.0", "15", "4.00 [3.00, 5.00]"],
    ]
    assert rows(text, "agent.k=1") == [["1", "20.5", "15", "3.00 [2.00, 4.00]"]]
    changed = 'agent.k=null agent.wide=absent learner.mode="compiled"'
    assert rows(text, changed) == [["1", "1.0", "15", "2.00 [1.00, 3.00]"]]
    assert text.index("| agent.k=1 ") < text.index("| as most of them")  # the best first
    assert f"- `{tmp_path / 'slow'}`: no evaluation by then." in text
    assert f"- `{tmp_path / 'old'}`: its log tells no time." in text
    assert "agent.k=2" not in text and "Left out: " in text
    assert rows(report(tmp_path, minutes=0.5), "as most of them") == []
