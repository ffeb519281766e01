"""A report's tables by hand, and what it says is missing."""

from __future__ import annotations

import csv
import re
from datetime import date
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from agent.report.figures import mean_and_range
from agent.report.runs import find_runs
from agent.report.write import write_comparison, write_report
from envs.published import DELTA_IRIS_ATARI
from envs.scores import RANDOM_AND_HUMAN
from tests.saved_runs import CATCH, CRAFTER, crafter_rates, write_atari, write_evaluation, write_run


def report(folder: Path, minutes: float | None = None) -> tuple[str, str]:
    """(report.md or comparison.md, what goes to the screen) of the runs below the folder; the report lies in <folder>/report."""
    runs, left_out = find_runs(folder)
    output = folder / "report"
    if minutes:
        screen = write_comparison(runs, left_out, output, minutes)
        return (output / "comparison.md").read_text(), screen
    screen = write_report(runs, left_out, output)
    return (output / "report.md").read_text(), screen


def rows(text: str, first: str) -> list[list[str]]:
    """The cells of the table's lines that start with the given cell."""
    lines = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines if line[0].strip() == first]


def numbers(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def check_figures(folder: Path, names: set[str]) -> None:
    """Each as PNG and SVG, linked from the report, and something drawn in it."""
    assert {path.name for path in folder.iterdir() if path.suffix in (".png", ".svg")} == {
        f"{name}.{kind}" for name in names for kind in ("png", "svg")
    }
    text = (folder / "report.md").read_text()
    for name in names:
        assert f"({name}.png)" in text
        assert imageio.imread(folder / f"{name}.png")[..., :3].std() > 5
        assert (folder / f"{name}.svg").read_text().startswith("<?xml")


@pytest.fixture(scope="module")
def partial(tmp_path_factory) -> Path:
    """Two games: Boxing at half a human's and a human's score (0.1 + 12 · x), Freeway at twice a human's (29.6 · 2)."""
    folder = tmp_path_factory.mktemp("partial")
    write_atari(folder, {"Boxing": [6.1, 12.1], "Freeway": [59.2]})
    report(folder)
    return folder


def test_games_by_hand(partial: Path):
    text = (partial / "report" / "report.md").read_text()
    # Mean 9.1 is 0.75 of the way from 0.1 to 12.1; the deviation of 6.1 and 12.1 is 6 / √2.
    published = np.std(DELTA_IRIS_ATARI["Boxing"], ddof=1)
    assert rows(text, "Boxing") == [["Boxing", "2", "9.10 ± 4.24", "0.750", "0.1", "12.1", f"56.0 ± {published:.1f}"]]
    assert rows(text, "Freeway") == [["Freeway", "1", "59.2", "2.000", "0", "29.6", "31.0 ± 0.7"]]


def test_aggregates_by_hand(partial: Path):
    text = (partial / "report" / "report.md").read_text()
    # Normalized: Boxing 0.5 and 1, Freeway 2. A resample of Boxing has the mean 0.5, 0.75 or 1.
    assert rows(text, "mean")[0][1] == "1.375 [1.250, 1.500]"
    assert rows(text, "median")[0][1] == "1.375 [1.250, 1.500]"
    assert rows(text, "IQM")[0][1] == "1.167 [1.000, 1.333]"  # of three runs none is left out
    assert rows(text, "optimality gap")[0][1] == "0.167 [0.000, 0.333]"
    assert rows(text, "games above human")[0][1] == "1 [1, 1]"
    # All of Boxing's runs are worse than the published, Freeway's is better than each.
    assert rows(text, "P(ours > Δ-IRIS)")[0][1] == "0.500 [0.500, 0.500]"
    assert "over 2 of 26 games" in text and "**Partial**" in text and "DART, printed" not in text
    # Freeway's published runs 32, 31, 31, 31, 30 are 31 / 29.6 on average, Boxing's 56 are (56 - 0.1) / 12.
    assert rows(text, "mean")[0][2].startswith(f"{(31 / 29.6 + 55.9 / 12) / 2:.3f} [")
    found = numbers(partial / "report" / "aggregates.csv")
    (mean,) = [row for row in found if (row["whose"], row["aggregate"]) == ("ours", "mean")]
    assert [float(mean[name]) for name in ("games", "value", "low", "high")] == pytest.approx([2, 1.375, 1.25, 1.5])
    better = {row["games"]: float(row["value"]) for row in found if row["aggregate"] == "P(ours > Δ-IRIS)"}
    assert better == {"2": 0.5, "Boxing": 0.0, "Freeway": 1.0}


def test_runs_in_the_csv(partial: Path):
    first, second, third = numbers(partial / "report" / "report.csv")
    assert [first["game"], second["game"], third["game"]] == ["Boxing", "Boxing", "Freeway"]
    assert [float(row["human_normalized_score"]) for row in (first, second, third)] == pytest.approx([0.5, 1, 2])
    assert second["seed"] == "1" and second["run"] == str(partial / "Boxing" / "seed_1")
    assert (first["epoch"], first["epochs"], first["steps"], first["episodes"]) == ("600", "600", "100000", "100")
    assert first["crafter_score"] == "" and (partial / "Boxing" / "seed_0" / first["evaluation"]).exists()


def test_protocol_first(partial: Path):
    text = (partial / "report" / "report.md").read_text()
    assert text.index("### Protocol") < text.index("### Results") < text.index("### What is missing")
    for words in (
        "in evaluation: end_on_life_loss false, frame_skip 4, max_frames 108000, noops 1, sticky_actions 0.0",
        "in training: end_on_life_loss false, frame_skip 4, max_frames 108000, noops 30, sticky_actions 0.0",
        "temperature: 1.0", "evaluation episodes: 100", "evaluation seed: 1000", "environment steps trained on: 100000",
    ):  # fmt: skip
        assert words in text


def test_figures(partial: Path):
    check_figures(partial / "report", {f"atari_{name}" for name in ("aggregates", "profile", "improvement", "curves")})
    assert "Freeway (1 seed)" in (partial / "report" / "atari_curves.svg").read_text()


def test_missing_games_and_seeds(partial: Path):
    text = (partial / "report" / "report.md").read_text()
    assert "No run of 24 of the 26 games: Alien, Amidar" in text
    assert "Fewer seeds with an evaluation than the others' 2: Freeway 1." in text
    assert "One seed only, so without a spread, which intervals lack too: Freeway." in text
    assert "```sh" not in text  # every run is evaluated


def test_the_same_runs_are_the_same_report(partial: Path, tmp_path: Path):
    runs, left_out = find_runs(partial)
    write_report(runs, left_out, tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (partial / "report" / path.name).read_bytes(), path.name


@pytest.mark.slow
def test_the_whole_benchmark(tmp_path: Path):
    """Whoever has the published scores has the published aggregates, and what others printed stands beside."""
    write_atari(tmp_path, {game: [float(score) for score in scores] for game, scores in DELTA_IRIS_ATARI.items()})
    text, screen = report(tmp_path)
    expected = {"mean": "1.383", "median": "0.594", "IQM": "0.682", "optimality gap": "0.443"}
    expected["games above human"] = "12"
    printed = {"mean": ["1.022", "1.046"], "median": ["0.790", "0.289"], "IQM": ["0.575", "0.501"]}
    printed |= {"optimality gap": ["–", "–"], "games above human": ["9", "–"]}
    for name, value in expected.items():
        (row,) = rows(text, name)
        assert row[1] == row[2] and row[1].startswith(f"{value} [") and row[3:] == printed[name]
        assert rows(screen, name) == [row]
    assert rows(text, "P(ours > Δ-IRIS)")[0][1].startswith("0.500 [")
    assert "### What is missing\n\nNothing is missing." in text and "**Partial**" not in text
    assert len([row for game in RANDOM_AND_HUMAN for row in rows(screen, game)]) == 26
    check_figures(tmp_path / "report", {f"atari_{name}" for name in ("aggregates", "profile", "improvement", "curves")})


def test_what_is_not_finished(tmp_path: Path):
    trusted = write_run(tmp_path / "not evaluated", "Pong", env_id="my_module:Atari-v0")
    unfinished = write_run(tmp_path / "unfinished", "Boxing", epochs=600, curve={100: 1.0})
    (unfinished / "metrics.csv").write_text("epoch,step,evaluate/return_mean\n300,49000,3.0\n")
    write_evaluation(unfinished, [1.0] * 64, epoch=275, steps=47_000)
    again = write_run(tmp_path / "unfinished again", "Boxing", epochs=600)
    (again / "metrics.csv").unlink()
    foreign = write_run(tmp_path / "foreign", "Atlantis", seed=1)
    write_evaluation(foreign, [7.0] * 100)
    other = write_run(tmp_path / "other", "Boxing", seed=2, policy={"batch": 3})
    write_evaluation(other, [7.0] * 100)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.yaml").write_text("{")
    text, screen = report(tmp_path)
    expected = [
        f"Unfinished, in epochs: `{unfinished}` 300 of 600.",
        f"Evaluated at an earlier epoch than the last: `{unfinished}` at 275 of 300.",
        f"Without an evaluation: `{trusted}`.",
        f"Fewer than 100 evaluation episodes, 64: `{unfinished}`.",
        f"Left out: `{again}`, Boxing with seed 0 again (`{unfinished}` is counted).",
        "Not among the benchmark's games, so not in the aggregates: Atlantis.",
        f"Not trained on the benchmark's 100000 environment steps, but on 47000: `{unfinished}`.",
        "Runs differ in more than game and seed: policy.batch.",
    ]
    for sentence in expected:
        assert f"- {sentence}" in text and f"- {sentence}" in screen
    assert f"- {tmp_path / 'broken'}: left out, its config.yaml is not one of ours" in text
    assert rows(text, "Boxing*")[0][1:3] == ["2", "4.00 ± 4.24"]
    assert rows(text, "Atlantis") == [["Atlantis", "1", "7.00", "–", "–", "–", "–"]]
    block = text[text.index("```sh") :]
    assert f"python scripts/evaluate.py run={unfinished} episodes=100\n" in block
    assert f"""python scripts/evaluate.py 'run={trusted}' episodes=100 env.id=my_module:Atari-v0\n""" in block
    assert str(foreign) not in block and str(other) not in block


def test_nothing_evaluated_yet(tmp_path: Path):
    for game, env_id in (("Pong", "deltadream/Atari-v0"), (None, CRAFTER), (None, CATCH)):
        write_run(tmp_path / env_id.replace("/", "_"), game, env_id=env_id)
    text, _ = report(tmp_path)
    assert text.count("python scripts/evaluate.py run=") == 3
    assert "## atari, deltadream/Crafter-v1" in text  # one experiment in three environments
    assert numbers(tmp_path / "report" / "aggregates.csv") == []
    assert len(numbers(tmp_path / "report" / "report.csv")) == 3


def test_mixed_protocols_are_counted(tmp_path: Path):
    for seed, temperature in enumerate((1.0, 0.5, 1.0)):
        write_evaluation(write_run(tmp_path / str(seed), seed=seed), [1.0] * 100, temperature=temperature)
    text, _ = report(tmp_path)
    assert "temperature: 1.0 (2 runs) / 0.5 (1 run)" in text
    assert "Mixed protocols, so these scores cannot be compared: temperature." in text


def test_crafter(tmp_path: Path):
    for seed, percent in enumerate((10.0, 30.0)):
        run = write_run(tmp_path / str(seed), None, seed, "crafter", CRAFTER)
        write_evaluation(run, [5.0, 7.0 + seed] * 50, steps=1_000_000, **crafter_rates(percent))
        write_evaluation(run, [1.0] * 100, policy="random", **crafter_rates(2.0))
    text, screen = report(tmp_path)
    # Returns 6 and 6.5; scores 11^(21/22) - 1 = 8.864 and 31^(21/22) - 1 = 25.52.
    assert rows(screen, "ours") == [["ours", "1000000", "2", "17.2 ± 11.8", "6.25 ± 0.35"]]
    # Both runs have the same random episodes, which count once.
    assert rows(text, "random actions") == [["random actions", "–", "1", f"{3 ** (21 / 22) - 1:.2f}", "1.00"]]
    assert ["Δ-IRIS, published", "10000000", "–", "42.5", "16.1"] in rows(text, "Δ-IRIS, published")
    assert rows(text, "wake_up") == [["wake_up", "20.0 ± 14.1", "2.00"]]
    assert rows(text, "collect_coal") == [["collect_coal", "0.00 ± 0.00", "0.00"]]
    assert rows(screen, "wake_up") == []
    # Of 50 fives and 50 sevens the mean is 6; by normal approximation its interval is 1.96 · 0.1 to either side.
    (seed,) = rows(screen, "0")
    assert seed[1:3] == ["1000000", "–"] and seed[4] == "1.00 [1.00, 1.00]"
    assert [float(x) for x in re.findall(r"[\d.]+", seed[3])] == pytest.approx([6, 5.804, 6.196], abs=0.03)
    check_figures(tmp_path / "report", {"crafter_success_rates", "crafter_curves"})
    assert "eat plant" in (tmp_path / "report" / "crafter_success_rates.svg").read_text()
    scores = [float(row["crafter_score"]) for row in numbers(tmp_path / "report" / "report.csv")]
    assert scores == pytest.approx([8.864, 25.52], abs=1e-3)


def test_sections_and_their_files(tmp_path: Path):
    """Names come from files: they neither leave the folder nor break a table, a line or a formula."""
    for i, experiment in enumerate(("../catch", "_catch", "a|b\n<b>")):
        write_evaluation(write_run(tmp_path / str(i), None, i, experiment, env_id=f"Odd|$\\odd{i}$"), [0.5] * 100)
    before = {path for path in tmp_path.rglob("*") if "report" not in path.parts}
    text, screen = report(tmp_path)
    assert {path for path in tmp_path.rglob("*") if "report" not in path.relative_to(tmp_path).parts} == before
    assert re.findall("^## (.*)", text, re.MULTILINE) == ["../catch", "_catch", "a\\|b &lt;b>"]
    assert {path.name for path in (tmp_path / "report").glob("*.png")} == {
        "_catch_curves.png", "_catch__curves.png", "a_b_b__curves.png",
    }  # fmt: skip
    assert [line for line in screen.splitlines() if line.startswith("| Odd\\|$\\odd0$ |   ")]


def test_returns_of_other_environments(tmp_path: Path):
    for seed, value in enumerate((0.5, 1.0)):
        run = write_run(tmp_path / str(seed), None, seed, "catch", CATCH, epochs=10)
        write_evaluation(run, [value] * 100)
    write_evaluation(run, [-0.5] * 100, policy="random")
    text, _ = report(tmp_path)
    assert rows(text, CATCH) == [[CATCH, "2", "0.75 ± 0.35", "-0.50"]]
    check_figures(tmp_path / "report", {"catch_curves"})


def test_mean_and_range_of_curves():
    """At an epoch seeds are averaged though one took longer to come there; each counts from its first to its last point, between
    points on a straight line."""
    steps, (mean, least, most) = mean_and_range([[(0, 0, 0.0), (10, 100, 10.0)], [(5, 70, 1.0), (10, 120, 0.0), (20, 240, 4.0)]])
    assert steps.tolist() == [0, 60, 110, 240]
    assert mean.tolist() == [0, 3, 5, 4]
    assert least.tolist() == [0, 1, 0, 4]
    assert most.tolist() == [0, 5, 10, 4]


def test_runs_are_compared_after_the_same_time(tmp_path: Path):
    """By their last evaluation within it; what differs is named by what most of them have."""
    usual = {"agent": {"k": 4, "wide": True}}
    for seed in range(2):
        write_run(tmp_path / f"usual_{seed}", None, seed, "catch", CATCH, curve={10: 0.0, 20: 1.0 + seed, 30: 9.0}, minutes=10, **usual)
    write_run(tmp_path / "less", None, 0, "catch", CATCH, curve={15: 3.0}, minutes=20.5, agent={"k": 1, "wide": True})
    write_run(tmp_path / "slow", None, 0, "catch", CATCH, curve={15: 3.0}, minutes=31, agent={"k": 2, "wide": True})
    write_run(tmp_path / "old", None, 0, "catch", CATCH, curve={15: 3.0}, **usual)  # its log tells no time
    write_run(tmp_path / "other", None, 0, "pong", CATCH, curve={15: 4.0}, minutes=1, agent={"k": 1, "day": date(2020, 1, 1)})
    text, screen = report(tmp_path, minutes=30 - 1e-6)
    assert "## After 30 minutes" in text and "## After 30 minutes" in screen
    assert rows(text, "as most of them") == [
        ["as most of them", "2", "20.0", "20", "1.50 ± 0.71"],
        ["as most of them", "1", "1.0", "15", "4.00 [3.00, 5.00]"],
    ]
    assert rows(text, "agent.k=1") == [["agent.k=1", "1", "20.5", "15", "3.00 [2.00, 4.00]"]]
    assert text.index("| agent.k=1 ") < text.index("| as most of them")  # the best first
    assert f"- `{tmp_path / 'slow'}`: no evaluation by then." in text
    assert f"- `{tmp_path / 'old'}`: its log tells no time." in text
    assert "agent.k=2" not in text and "Protocol" not in text  # nothing is averaged over settings
    assert "After" not in report(tmp_path)[0]


def test_a_comparison_of_nothing(tmp_path: Path):
    write_run(tmp_path / "run", None, 0, "catch\n# x", CATCH)
    text, _ = report(tmp_path, minutes=1.0)
    assert f"- `{tmp_path / 'run'}`: its log tells no time." in text and "\n# x" not in text


def test_how_it_ran_and_runs_of_one_seed_are_told_apart(tmp_path: Path):
    """A comparison at equal time is one of machines too; two runs of a seed are no two seeds."""
    for name, learner in (("a", "eager"), ("b", "eager"), ("c", "compiled")):
        write_run(tmp_path / name, None, 0, "catch", CATCH, minutes=1, learner={"mode": learner}, logger=[name])
    text, _ = report(tmp_path, minutes=9.0)
    assert rows(text, "as most of them")[0][1] == "1" and rows(text, "learner.mode=\"compiled\"")[0][1] == "1"
    assert f"Left out: `{tmp_path / 'b'}`" in text


def test_settings_that_some_runs_lack(tmp_path: Path):
    """Those of an older version, or of another agent, do not hide what differs in the others."""
    for seed, (name, agent) in enumerate((("a", {"k": 4}), ("b", {"k": None}), ("c", {"k": 4}), ("old", {"wide": True}))):
        write_run(tmp_path / name, None, seed, "catch", CATCH, minutes=1, agent=agent)
    text, _ = report(tmp_path, minutes=9.0)
    assert rows(text, "as most of them")[0][1] == "2"
    for label in ("agent.k=null", "agent.k=absent agent.wide=true"):
        assert rows(text, label)[0][1] == "1"


def test_curves_against_minutes(tmp_path: Path):
    """Of the runs whose logs tell the time; that others were left out is said."""
    write_run(tmp_path / "run", None, 0, "catch", CATCH, curve={10: 0.0, 20: 1.0}, minutes=10)
    assert [point.minutes for point in find_runs(tmp_path)[0][0].points] == [10, 20]
    text, _ = report(tmp_path)
    check_figures(tmp_path / "report", {"catch_curves", "catch_minutes"})
    svg = (tmp_path / "report" / "catch_minutes.svg").read_text()
    assert "minutes" in svg and "(1 seed)" in svg and "left out" not in text
    write_run(tmp_path / "old", None, 1, "catch", CATCH, curve={10: 0.0, 20: 1.0})
    text, _ = report(tmp_path)
    assert "(1 seed)" in (tmp_path / "report" / "catch_minutes.svg").read_text() and "logs tell no time are left out" in text
