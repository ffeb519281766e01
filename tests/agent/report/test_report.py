"""A report's tables by hand, and what it names as missing."""

from pathlib import Path

import imageio.v3 as imageio
import pandas as pd
import pytest

from agent.report.figures import mean_and_range
from agent.report.page import write_report
from agent.report.runs import find_runs
from envs.errors import BadInput
from envs.published import DELTA_IRIS_ATARI
from tests.saved_runs import CATCH, CRAFTER, crafter_rates, write_atari, write_evaluation, write_run


def report(folder: Path, minutes: float | None = None) -> str:
    """The text of report.md, which lies in <folder>/report."""
    write_report(find_runs(folder, minutes), folder / "report")
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


def test_runs_at_any_depth(tmp_path: Path):
    frame, vit = {"kind": "frame"}, {"kind": "vit"}
    near = write_run(
        tmp_path / "b",
        seed=3,
        curve={100: 1.5, 200: float("nan"), 300: 2.5},
        agent={"tokenizer": frame, "dynamics": frame, "policy": vit},
    )
    deep = write_run(tmp_path / "a" / "x", None, env_id="envs:" + CATCH, experiment="catch")
    (deep / "replay").mkdir()
    (deep / "replay" / "config.yaml").write_text("not: ours")  # what lies in a run is its own
    inner = write_run(deep / "z", None, env_id=CRAFTER, experiment="crafter")
    write_evaluation(inner, [5.0, 6.0], **crafter_rates(10.0))
    runs = find_runs(tmp_path)
    assert list(runs.table.index) == [str(deep), str(inner), str(near)] and not runs.left_out
    assert runs.table.method.tolist() == ["catch", "crafter", "atari, frame frame vit"]
    assert runs.table.environment.tolist() == [CATCH, CRAFTER, "deltadream/Atari-v0"]
    assert runs.table["name"].tolist() == [CATCH, CRAFTER, "Boxing"]
    assert runs.table.seed.tolist() == [0, 0, 3] and runs.table.reached.tolist() == [600] * 3
    assert runs.table.score.isna().tolist() == [True, False, True]
    assert runs.table.crafter_score[str(inner)] == pytest.approx(11 ** (21 / 22) - 1)
    curve = runs.curves.loc[str(near)]
    assert curve[["epoch", "steps", "score"]].values.tolist() == [[200, 100, 1.5], [600, 300, 2.5]]


def test_the_newest_evaluation_with_the_most_episodes(tmp_path: Path):
    run = write_run(tmp_path / "run")
    write_evaluation(run, [9.0] * 7, epoch=300)
    write_evaluation(run, [1.0] * 2)
    write_evaluation(run, [2.0] * 5)
    write_evaluation(run, [0.0] * 3, policy="random")
    runs = find_runs(tmp_path)
    assert runs.table.score.tolist() == [2.0] and runs.random.score.tolist() == [0.0]


@pytest.mark.parametrize(
    "text",
    ["a: [", "!!python/object/apply:os.system ['touch ran']", "", "experiment: a\nseed: 1\n"],
)
def test_foreign_and_broken_runs_are_left_out(tmp_path: Path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = write_run(tmp_path / "runs" / "good")
    damaged = write_run(tmp_path / "runs" / "damaged", seed=1)
    write_evaluation(damaged, [1.0]).write_text('{"epoch": 60')
    (tmp_path / "runs" / "bad").mkdir()
    (tmp_path / "runs" / "bad" / "config.yaml").write_text(text)
    runs = find_runs(tmp_path / "runs")
    assert list(runs.table.index) == [str(good)]
    for name, line in zip(("bad", "damaged"), runs.left_out, strict=True):
        assert f"{name}`: left out (" in line and "\n" not in line and len(line) < 500
    assert not (tmp_path / "ran").exists()
    with pytest.raises(BadInput, match=r"holds no run. `.*bad`: left out"):
        find_runs(tmp_path / "runs" / "bad")


def test_atari_by_hand(tmp_path: Path):
    """Boxing at half a human's and a human's score (0.1 + 12 · x), Freeway at twice (29.6 · 2)."""
    write_atari(tmp_path, {"Boxing": [6.1, 12.1], "Freeway": [59.2]})
    text = report(tmp_path)
    # Mean 9.1 is 0.75 of the way from 0.1 to 12.1; the deviation of 6.1 and 12.1 is 6 / √2.
    boxing = ["atari", "2", "9.10 ± 4.24", "100000", "0.750", "0.1", "12.1", "56.0 ± 14.0"]
    freeway = ["atari", "1", "59.2", "100000", "2.000", "0", "29.6", "31.0 ± 0.7"]
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
    assert "over 2 of 26 games" in text and "DART, printed" not in text
    assert "no run of Alien, Amidar" in text and "```sh" not in text  # every run is evaluated
    check_figures(tmp_path / "report", "deltadream_Atari-v0_curves_steps")
    table = pd.read_csv(tmp_path / "report" / "report.csv")
    assert table.run.tolist()[0] == str(tmp_path / "Boxing" / "seed_0")
    assert table.score.tolist() == pytest.approx([6.1, 12.1, 59.2])


def test_the_whole_benchmark(tmp_path: Path, monkeypatch):
    """What was printed of all games stands beside."""
    monkeypatch.setattr("agent.report.figures.save", lambda *_: None)  # it takes seconds
    write_atari(tmp_path, {game: [float(of[0])] for game, of in DELTA_IRIS_ATARI.items()})
    text = report(tmp_path)
    assert rows(text, "IQM")[0][1].startswith("0.682 [")
    assert rows(text, "mean")[0][2:] == ["1.022", "1.046"]
    assert rows(text, "games above human")[0][2:] == ["9", "–"]
    assert "Nothing is missing." in text


def test_crafter_and_a_baseline(tmp_path: Path):
    """Methods of an environment stand side by side, whatever wrote their files."""
    for seed, percent in enumerate((10.0, 30.0)):
        run = write_run(tmp_path / str(seed), None, seed, "crafter", CRAFTER, minutes=10)
        write_evaluation(run, [5.0, 7.0 + seed] * 50, steps=1_000_000, **crafter_rates(percent))
        write_evaluation(run, [1.0] * 100, policy="random", **crafter_rates(2.0))
    ppo = write_run(tmp_path / "ppo", None, 0, "ppo", CRAFTER)
    write_evaluation(ppo, [3.0] * 100, **crafter_rates(4.0))
    text = report(tmp_path)
    # Returns 6 and 6.5; scores 11^(21/22) - 1 = 8.864 and 31^(21/22) - 1 = 25.52.
    assert rows(text, "crafter")[0] == ["2", "6.25 ± 0.35", "1000000", "17.2 ± 11.8"]
    assert rows(text, "ppo")[0] == ["1", "3.00", "100000", f"{5 ** (21 / 22) - 1:.2f}"]
    # Both runs have the same random episodes, which count once.
    assert rows(text, "random actions") == [["1", "1.00", "–", f"{3 ** (21 / 22) - 1:.2f}"]]
    assert ["–", "16.1", "10000000", "42.5"] in rows(text, "Δ-IRIS, published")
    assert rows(text, "wake_up") == [["20.0 ± 14.1", "4.00", "2.00"]]
    stem = "deltadream_Crafter-v1"
    names = ("success_rates", "curves_steps", "curves_minutes")
    check_figures(tmp_path / "report", *(f"{stem}_{name}" for name in names))
    svg = (tmp_path / "report" / f"{stem}_curves_steps.svg").read_text()
    assert all(f">{label}<" in svg for label in ("crafter", "ppo", "random actions"))


def test_what_is_missing(tmp_path: Path):
    trusted = write_run(tmp_path / "not evaluated", "Pong", env_id="my_module:deltadream/Atari-v0")
    unfinished = write_run(tmp_path / "unfinished", "Boxing")
    (unfinished / "metrics.csv").write_text("epoch,step,evaluate/return_mean\n300,49000,3.0\n")
    write_evaluation(unfinished, [1.0] * 100, epoch=275, steps=47_000)
    few = write_run(tmp_path / "few", "Boxing", seed=1)
    write_evaluation(few, [1.0] * 64)
    good = write_run(tmp_path / "good", "Boxing", seed=2)
    write_evaluation(good, [7.0] * 100)
    again = write_run(tmp_path / "unfinished again", "Boxing", seed=0)
    (again / "metrics.csv").unlink()
    text = report(tmp_path)
    assert f"- `{unfinished}` is not finished: 300 of 600 epochs." in text
    assert f"- `{again}`: left out, another run of its seed came further." in text
    block = text[text.index("```sh") :]
    assert f"python scripts/evaluate.py run={unfinished} episodes=100\n" in block
    assert f"python scripts/evaluate.py run={few} episodes=100\n" in block
    assert f"'run={trusted}' episodes=100 env.id=my_module:deltadream/Atari-v0\n" in block
    assert str(good) not in block and str(again) not in block


def test_mean_and_range_of_curves():
    """At an epoch seeds are averaged though one took longer to come there.

    Each counts from its first to its last point, between points on a straight line.
    """
    curves = [("a", 0, 0, 0.0), ("a", 10, 100, 10.0)]
    curves += [("b", 5, 70, 1.0), ("b", 10, 120, 0.0), ("b", 20, 240, 4.0)]
    found = mean_and_range(pd.DataFrame(curves, columns=["run", "epoch", "at", "score"]))
    assert found["at"].tolist() == [0, 60, 110, 240]
    assert found["mean"].tolist() == [0, 3, 5, 4]
    assert found["min"].tolist() == [0, 1, 0, 4]
    assert found["max"].tolist() == [0, 5, 10, 4]


def test_settings_are_compared_after_the_same_time(tmp_path: Path):
    """What differs from most runs names a method; each counts by its last evaluation in time."""

    def write(name: str, seed: int, curve: dict[int, float], minutes: float, k: int) -> None:
        values = {"agent": {"k": k}, "learner": {"mode": name}}  # how it runs makes no method
        write_run(tmp_path / name, None, seed, "catch", CATCH, curve, minutes, **values)

    for seed in range(2):
        write(f"usual_{seed}", seed, {10: 0.0, 20: 1.0 + seed, 30: 9.0}, 10, 4)
    write("less", 0, {15: 3.0}, 20.5, 1)
    write("slow", 0, {15: 3.0}, 31, 2)
    text = report(tmp_path, minutes=30 - 1e-6)
    assert rows(text, "catch")[0] == ["2", "1.50 ± 0.71", "20"]
    assert rows(text, "catch agent.k=1")[0] == ["1", "3.00", "15"]
    assert not rows(text, "catch agent.k=2")
