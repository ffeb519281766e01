"""The loop: its order, what it learns from, what it writes, what stops it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agent.data.collect import Collector, Episode
from agent.data.replay import Replay
from agent.runs.train import train
from agent.segment import Segment
from agent.storage import checkpoint
from agent.storage.metrics import read_metrics
from agent.training import saving, stages
from agent.training.callbacks import Best, HealthWarnings
from agent.training.learner import Learner, NonFinite
from agent.training.stages import episode_metrics
from envs.scores import CRAFTER_ACHIEVEMENTS
from tests.tiny import leave_out_films, tiny

PARTS = ("tokenizer", "dynamics", "policy")


def trained(folder: Path, *overrides: str, films: bool = False) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        if not films:
            leave_out_films(patch)
        logger = "logger=[csv,tensorboard]" if films else "logger=csv"
        train(tiny(f"run={folder}", "policy.start_epoch=0", logger, *overrides), [])
    return folder


@pytest.fixture
def run(tmp_path) -> Callable[..., Path]:
    """Trains in this process -> the run's folder."""
    return lambda *overrides, **others: trained(tmp_path / "run", *overrides, **others)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of three epochs, two evaluations and all its films."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return trained(folder, "epochs=3", "evaluate_every=2", "seed=7", films=True)


def test_order_of_the_loop(run, monkeypatch):
    calls = []

    def note(what: str, result: object) -> Callable[..., object]:
        return lambda trainer, *_: calls.append((what, trainer.epoch)) or result

    monkeypatch.setattr(stages, "collect", note("collect", {}))
    monkeypatch.setattr(
        stages, "learn", lambda trainer, part: calls.append((part, trainer.epoch)) or {}
    )
    monkeypatch.setattr(stages, "evaluate", note("evaluate", {"evaluate/return_mean": 0.0}))
    monkeypatch.setattr(saving, "save", note("save", 0))
    for callback in (Best, HealthWarnings):  # the best is saved at once; nothing was evaluated
        monkeypatch.setattr(callback, "on_stage_end", lambda *_: None)
    run("epochs=5", "evaluate_every=2", "checkpoint_every=3")
    expected = []
    for epoch in range(5):
        expected += [(stage, epoch) for stage in ("collect", *PARTS)]
        # Epochs that are over; the last always.
        expected += [("evaluate", epoch + 1)] * (epoch + 1 in (2, 4, 5))
        expected += [("save", epoch + 1)] * (epoch + 1 in (3, 5))
    assert calls == expected


def test_what_is_collected_and_learned(run, monkeypatch):
    """Actions, updates, batches, windows and learning rates as configured.

    Only the first epoch acts at random, and its draws are not counted.
    """
    collected, sampled, rates = [], [], []
    collect, draw, set_rate = Collector.collect, Replay.draw, Learner.set_learning_rate

    def spy_collect(self, steps, random, **others):
        collected.append((steps, random))
        return collect(self, steps, random, **others)

    def spy_draw(self, part, spec, count):
        sampled.append((part, *spec, count))
        return draw(self, part, spec, count)

    monkeypatch.setattr(Collector, "collect", spy_collect)
    monkeypatch.setattr(Replay, "draw", spy_draw)
    monkeypatch.setattr(
        Learner, "set_learning_rate", lambda self, rate: (rates.append(rate), set_rate(self, rate))
    )
    schedule = ("collect.epochs=2", "policy.start_epoch=1", "policy.first_updates=4")
    learning = ("tokenizer.first_learning_rate=1e-3", "tokenizer.learning_rate=1e-5")
    folder = run("epochs=3", "evaluate_every=3", *schedule, *learning)
    assert collected == [(60, True), (40, False)]
    assert rates == [1e-3, 1e-4, *[1e-5, 1e-4, 1e-4] * 2]
    expected = [("tokenizer", 2, 4, "around", False)] * 3 + [
        ("dynamics", 2, 5, "around", False)
    ] * 3
    for policy_updates in (4, 2):
        for part, steps in (("tokenizer", 4), ("dynamics", 5)):
            expected += [(part, 2, steps, "around", True)] * 2
        expected += [("policy", 2, 2, "before", True)] * policy_updates
    assert sampled == expected
    rows = read_metrics(folder / "metrics.csv")
    assert "policy/loss" not in rows[0] and "policy/loss" in rows[1]


def test_every_metric(whole):
    """One row an epoch: epochs that are over, and steps of the environments."""
    rows = read_metrics(whole / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    steps = [20] + [row["step"] for row in rows]
    assert all(a + 40 <= b < a + 43 for a, b in itertools.pairwise(steps))
    losses = {
        "tokenizer": "loss reconstruction_l1 reconstruction_l2 reconstruction_max commitment codebook_entropy_bits codes_in_use gradient_norm",
        "dynamics": "loss tokens reward end token_accuracy gradient_norm",
        "policy": "loss actor critic entropy_bonus entropy imagined_return imagined_reward imagined_end_rate gradient_norm",
        "collect": "episodes return_mean length_mean restarts",
        "seconds": "collect tokenizer dynamics policy wait sample transfer save",
        "rates": "collect_frames_per_second",
    }  # fmt: skip
    always = {f"{part}/{name}" for part, names in losses.items() for name in names.split()}
    always |= {
        f"rates/{part}_{what}_per_second" for part in PARTS for what in ("updates", "frames")
    }
    always |= {"memory_gb", "minutes", "epoch", "step", "checkpoint_gb"}
    returns = ("mean", "95_low", "95_high", "median", "standard_error")
    evaluation = {"evaluate/length_mean"} | {f"evaluate/return_{name}" for name in returns}
    evaluation |= {"rates/evaluate_frames_per_second", "seconds/evaluate", "seconds/log"}
    assert set(rows[0]) == always
    assert set(rows[1]) == set(rows[2]) == always | evaluation
    assert all(np.isfinite(value) for row in rows for value in row.values())
    for row in rows:
        updates = row["rates/tokenizer_updates_per_second"]
        assert row["rates/tokenizer_frames_per_second"] == pytest.approx(8 * updates)


def test_the_folder_explains_itself(whole):
    text = (whole / "README.txt").read_text()
    for part in ("experiment=catch", "seed=7", "resume=", "evaluate.py run="):
        assert part in text
    assert "hidden: 8" in (whole / "config.yaml").read_text()
    result = whole / "evaluation_agent_epoch_000003_seed_1000_episodes_4.json"
    names = "checkpoints films replay tensorboard metrics.csv curves.png config.yaml README.txt"
    there = {path.name for path in whole.iterdir()} - {".lock", result.name}
    assert there == set(names.split())
    evaluation, rows = json.loads(result.read_text()), read_metrics(whole / "metrics.csv")
    about = [evaluation[key] for key in ("epoch", "epochs", "run_seed", "policy")]
    assert about == [3, 3, 7, "agent"]
    assert np.mean(evaluation["returns"]) == pytest.approx(rows[-1]["evaluate/return_mean"])
    films = {path.name: path.stat().st_size for path in (whole / "films").iterdir()}
    kinds = ("episode.mp4", "dream.mp4", "dream.gif")
    assert set(films) == {f"epoch_00000{epoch}_{kind}" for epoch in (2, 3) for kind in kinds}
    assert min(films.values()) > 500


def test_tensorboard_has_curves_pictures_and_films(whole):
    tags = EventAccumulator(str(whole / "tensorboard")).Reload().Tags()
    assert set(tags["images"]) == {f"evaluate/{x}" for x in ("reconstruction", "dream", "episode")}
    some = {"tokenizer/loss", "policy/entropy", "evaluate/return_mean", "epoch"}
    assert some <= set(tags["scalars"])


def test_films_are_optional(run, monkeypatch, capsys):
    def no_ffmpeg(*_):
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr("agent.training.callbacks.write_episode", no_ffmpeg)
    folder = run("epochs=1", films=True)
    assert checkpoint.newest(folder).name == "epoch_000001"
    printed = capsys.readouterr()
    assert "not all films were made (RuntimeError: No ffmpeg exe" in printed.err
    assert "dream:" not in printed.out and f"scripts/evaluate.py run={folder}" in printed.out


def test_the_best_checkpoint_stays(run, monkeypatch):
    returns = iter([0.0, 5.0, 1.0, 2.0, 3.0, 3.0])  # the last evaluation is also written to a file
    summary = {"return_median": 0.0, "return_standard_error": 0.0, "length_mean": 9.0}
    monkeypatch.setattr(
        "agent.evaluation.evaluate.Evaluation.summary",
        lambda self: summary | {"return_mean": next(returns)},
    )
    folder = run("epochs=5", "keep=1", "checkpoint_every=4")  # the best is saved whenever it comes
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert kept == ["epoch_000002", "epoch_000005"]
    state = json.loads((folder / "checkpoints" / "epoch_000005" / "state.json").read_text())
    assert state["best"] == {"epoch": 2, "return": 5.0}


@pytest.mark.slow
def test_learning_does_not_notice_evaluation_and_films(tmp_path):
    often, seldom = (
        trained(tmp_path / str(n), "epochs=3", f"evaluate_every={n}", films=True) for n in (1, 3)
    )
    ours, theirs = (checkpoint.load(folder).tensors for folder in (often, seldom))
    for part in ("agent", "random", "replay"):
        for name, value in ours[part].items():
            assert torch.equal(value, theirs[part][name]), (part, name)


def break_loss(monkeypatch, part: str, term: str, after: int) -> list[Segment]:
    """Make a part's term NaN after so many updates -> the batches of these, as they come."""
    update, seen, batches = Learner.update, [], []

    def broken(self, segment):
        own = self.loss
        if own.__name__ != f"{part}_loss":
            return update(self, segment)
        seen.append(segment)
        # Three come before the first epoch, to count and to time them.
        if len(seen) <= after + 3:
            return update(self, segment)
        batches.append(segment)
        self.loss = lambda s: {
            k: v * torch.nan if k in ("loss", term) else v for k, v in own(s).items()
        }
        try:
            return update(self, segment)
        finally:
            self.loss = own

    monkeypatch.setattr(Learner, "update", broken)
    return batches


@pytest.mark.parametrize(
    ("part", "term", "epoch", "update"),
    [("dynamics", "reward", 1, 2), ("policy", "critic", 2, 1)],  # the fifth update of each
)
def test_a_loss_that_is_not_finite_stops_the_run(run, tmp_path, monkeypatch, part, term, epoch, update):  # fmt: skip
    batches = break_loss(monkeypatch, part, term, after=4)
    with pytest.raises(NonFinite) as stop:
        run("epochs=5")
    folder = tmp_path / "run"
    newest = checkpoint.newest(folder)
    kept = folder / f"non_finite_{part}_epoch_{epoch:06d}_update_{update:06d}.safetensors"
    assert str(stop.value) == (
        f"Stopped in epoch {epoch}: {part}/{term} is nan (its batch is kept in {kept}); "
        f"the last good checkpoint is {newest} (go on with resume={folder})."
    )
    for name, tensor in load_file(kept).items():
        assert torch.equal(tensor, getattr(batches[0], name)), name
    assert newest.name == f"epoch_00000{epoch}"
    for name, value in checkpoint.load(folder).tensors["agent"].items():
        assert value.isfinite().all(), name


def test_a_run_that_stops_at_once(run, monkeypatch):
    break_loss(monkeypatch, "tokenizer", "commitment", after=0)
    with pytest.raises(NonFinite, match=r"commitment is nan \(its .*\); no checkpoint had been"):
        run()


def test_what_goes_wrong_is_printed_once(run, capsys, monkeypatch):
    monkeypatch.setattr("agent.training.health.warnings", lambda *_: {"entropy": "It is tired."})
    run("epochs=3")
    lines = [line for line in capsys.readouterr().err.splitlines() if "tired" in line]
    assert lines == ["Epoch 1: It is tired."]


@pytest.mark.parametrize("mode", ["eager", pytest.param("compiled", marks=pytest.mark.long)])
def test_two_runs_of_a_seed_are_equal(tmp_path, mode):
    small = ("epochs=2", "deterministic=true", "precision=fp32", "agent.actor_critic.horizon=2")
    try:
        one, other = (
            checkpoint.load(trained(tmp_path / name, f"learner.mode={mode}", *small)).tensors
            for name in ("one", "other")
        )
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    for part, tensors in one.items():
        for name, value in tensors.items():
            assert torch.equal(value, other[part][name]), (part, name)


def test_metrics_of_episodes():
    assert episode_metrics([]) == {}
    counts = dict.fromkeys(CRAFTER_ACHIEVEMENTS, 0) | {"wake_up": 3}
    metrics = episode_metrics([Episode(i, r, n, counts) for i, r, n in ((0, 2.0, 10), (1, 4.0, 20))])  # fmt: skip
    assert metrics.pop("collect/crafter_score") == pytest.approx(np.exp(np.log(101) / 22) - 1)
    assert list(metrics.values()) == [2, 3, 15]
