import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from agent.config import PartConfig, TrainConfig
from agent.data.collect import Collector, Episode
from agent.runs.train import train
from agent.segment import Segment
from agent.storage import checkpoint
from agent.storage.metrics import read_metrics
from agent.training import learner, stages
from agent.training.callbacks import Best
from agent.training.learner import NonFinite
from agent.training.stages import episode_metrics
from agent.training.trainer import Trainer
from envs.scores import CRAFTER_ACHIEVEMENTS
from tests.tiny import OF_AGENT, leave_out_films, tiny_of

every_agent = pytest.mark.parametrize("agent", OF_AGENT)


@pytest.fixture
def run(tmp_path, capsys):
    """Trains in this process -> the run's folder."""

    def run(
        *overrides: str, name: str = "run", agent: str = "delta_iris", films: bool = False
    ) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            if not films:
                leave_out_films(patch)
            train(tiny_of(agent, f"run={tmp_path / name}", "policy.start_epoch=0", *overrides), [])
        return tmp_path / name

    return run


@pytest.fixture
def calls(monkeypatch) -> list:
    """What the loop does, in order; nothing of it is done."""
    done = []

    def note(what: str, result: object) -> object:
        return lambda trainer, *_: done.append((what, trainer.epoch)) or result

    monkeypatch.setattr(stages, "collect", note("collect", {}))
    monkeypatch.setattr(
        stages, "learn", lambda trainer, part: done.append((part, trainer.epoch)) or {}
    )
    monkeypatch.setattr(Trainer, "evaluate", note("evaluate", {"evaluate/return_mean": 0.0}))
    monkeypatch.setattr(Trainer, "save", note("save", 0))
    monkeypatch.setattr(Best, "on_stage_end", lambda *_: None)  # the best is saved at once
    return done


def test_updates_of_an_epoch():
    part = PartConfig(updates=5, first_updates=20, start_epoch=2)
    assert [part.updates_in(epoch) for epoch in range(5)] == [0, 0, 20, 5, 5]
    assert [PartConfig(updates=5, first_updates=20).updates_in(epoch) for epoch in range(3)] == [
        20,
        5,
        5,
    ]


def test_the_learning_rate_of_an_epoch(run):
    part = PartConfig(learning_rate=1e-4, first_learning_rate=1e-3, start_epoch=2)
    assert [part.learning_rate_in(epoch) for epoch in range(2, 5)] == [1e-3, 1e-4, 1e-4]
    assert PartConfig(learning_rate=1e-4).learning_rate_in(0) == 1e-4
    # A run in which only the first epoch moves anything.
    folder = run(
        "epochs=3",
        "tokenizer.first_learning_rate=1e-3",
        "tokenizer.learning_rate=0",
        "checkpoint_every=1",
        "keep=3",
    )
    first, *later = (
        checkpoint.load(folder / "checkpoints" / f"epoch_00000{epoch}").tensors["agent"]
        for epoch in (1, 2, 3)
    )
    for agent in later:
        moved = {name for name, value in agent.items() if not torch.equal(value, first[name])}
        assert any(name.startswith("dynamics.") for name in moved)
        assert {name for name in moved if name.startswith("tokenizer.")} <= {
            name for name in first if ".quantizer." in name
        }


def test_the_published_schedule():
    """Δ-IRIS on Crafter: facts from the paper's configuration."""
    c = TrainConfig()
    assert (c.epochs, c.collect.first_steps, c.collect.steps, c.collect.num_envs) == (
        1000,
        100_000,
        10_000,
        16,
    )
    assert c.collect.first_steps + (c.collect.epochs - 1) * c.collect.steps == 10_000_000
    assert (c.tokenizer.batch, c.dynamics.batch, c.policy.batch) == (32, 32, 86)


def test_order_of_the_loop(run, calls):
    run("epochs=5", "evaluate_every=2", "checkpoint_every=3")
    learnt = [(part, epoch) for epoch in range(5) for part in ("tokenizer", "dynamics", "policy")]
    assert [call for call in calls if call[0] in ("tokenizer", "dynamics", "policy")] == learnt
    assert [epoch for what, epoch in calls if what == "collect"] == [0, 1, 2, 3, 4]
    assert [epoch for what, epoch in calls if what == "evaluate"] == [
        2,
        4,
        5,
    ]  # epochs that are over; the last always
    assert [epoch for what, epoch in calls if what == "save"] == [3, 5]
    assert calls.index(("collect", 1)) < calls.index(("tokenizer", 1)) < calls.index(("policy", 1))
    assert calls.index(("policy", 4)) < calls.index(("evaluate", 5)) < calls.index(("save", 5))


def test_what_is_collected_and_learnt(run, monkeypatch):
    """Actions, updates, batches and windows as configured.

    Only the first epoch acts at random, and its draws are not counted.
    """
    collected, sampled = [], []
    collect, sample = Collector.collect, Trainer.__init__

    def spy_collect(self, steps, random, **others):
        collected.append((steps, random))
        return collect(self, steps, random, **others)

    def spy_init(self, *arguments):
        sample(self, *arguments)
        inner = self.replay.draw

        def spy(component, batch, length, anchor, count):
            sampled.append((self.epoch, component, batch, length, anchor, count))
            return inner(component, batch, length, anchor, count)

        self.replay.draw = spy

    monkeypatch.setattr(Collector, "collect", spy_collect)
    monkeypatch.setattr(Trainer, "__init__", spy_init)
    folder = run(
        "epochs=3",
        "collect.epochs=2",
        "evaluate_every=3",
        "policy.start_epoch=1",
        "policy.first_updates=4",
    )
    assert collected == [(60, True), (40, False)]
    expected = [(0, "tokenizer", 2, 4, "around", False)] * 3 + [
        (0, "dynamics", 2, 5, "around", False)
    ] * 3
    for epoch, policy_updates in ((1, 4), (2, 2)):
        expected += [(epoch, "tokenizer", 2, 4, "around", True)] * 2 + [
            (epoch, "dynamics", 2, 5, "around", True)
        ] * 2
        expected += [(epoch, "policy", 2, 2, "before", True)] * policy_updates
    assert sampled == expected
    rows = read_metrics(folder / "metrics.csv")
    assert "policy/loss" not in rows[0] and "policy/loss" in rows[1]


@every_agent
def test_every_metric(run, agent):
    """One row an epoch: epochs that are over, and steps of the environments."""
    folder = run("epochs=3", "evaluate_every=2", agent=agent)
    rows = read_metrics(folder / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(
        a + 40 <= b < a + 43
        for a, b in zip([20] + [row["step"] for row in rows], [row["step"] for row in rows])
    )
    parts = {
        "tokenizer": ["loss", "reconstruction_l1", "reconstruction_l2", *["reconstruction_max"] * (agent == "delta_iris"),
                      "commitment", "codebook_entropy_bits", "codes_in_use", "gradient_norm"],
        "dynamics": ["loss", "tokens", "reward", "end", "token_accuracy", "gradient_norm"],
        "policy": ["loss", "actor", "critic", "entropy_bonus", "entropy", "imagined_return", "imagined_reward",
                   "imagined_end_rate", "gradient_norm"],
        "collect": ["episodes", "return_mean", "length_mean", "restarts"],
        "rates": ["collect_frames_per_second"] + [f"{part}_{what}_per_second" for part in ("tokenizer", "dynamics", "policy")
                  for what in ("updates", "frames")],
        "seconds": ["collect", "tokenizer", "dynamics", "policy", "wait", "sample", "transfer"],
    }  # fmt: skip
    every_epoch = {f"{part}/{name}" for part, names in parts.items() for name in names} | {
        "memory_gb",
        "minutes",
        "epoch",
        "step",
    }
    returns = ("mean", "95_low", "95_high", "median", "standard_error")
    evaluation = {"evaluate/length_mean"} | {f"evaluate/return_{name}" for name in returns}
    evaluation |= {"rates/evaluate_frames_per_second", "seconds/evaluate", "seconds/log"}
    every_epoch |= {"seconds/save", "checkpoint_gb"}
    assert set(rows[0]) == every_epoch
    assert set(rows[1]) == set(rows[2]) == every_epoch | evaluation
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert all(row["rates/tokenizer_frames_per_second"] == pytest.approx(8 * row["rates/tokenizer_updates_per_second"])
               for row in rows)  # fmt: skip


def test_the_folder_explains_itself(run, capsys):
    folder = run("seed=7", "epochs=2", films=True)
    text = (folder / "README.txt").read_text()
    for part in (
        "experiment=catch",
        "seed=7",
        "torch 2.",
        "Python 3.",
        "resume=",
        "evaluate.py run=",
    ):
        assert part in text
    assert "hidden: 8" in (folder / "config.yaml").read_text()
    result, rows = (
        folder / "evaluation_agent_epoch_000002_seed_1000_episodes_4.json",
        read_metrics(folder / "metrics.csv"),
    )
    assert {
        "checkpoints",
        "films",
        "replay",
        "tensorboard",
        "metrics.csv",
        "curves.png",
        "config.yaml",
        "README.txt",
    } == {path.name for path in folder.iterdir() if path.name not in (".lock", result.name)}
    evaluation = json.loads(result.read_text())
    assert (
        evaluation["epoch"],
        evaluation["epochs"],
        evaluation["run_seed"],
        evaluation["policy"],
    ) == (2, 2, 7, "agent")
    assert np.mean(evaluation["returns"]) == pytest.approx(rows[-1]["evaluate/return_mean"])
    films = {
        f"epoch_00000{epoch}_{film}"
        for epoch in (1, 2)
        for film in ("episode.mp4", "dream.mp4", "dream.gif")
    }
    assert {path.name for path in (folder / "films").iterdir()} == films
    assert all(path.stat().st_size > 500 for path in (folder / "films").iterdir())
    printed = capsys.readouterr().out
    for what in (
        "epoch_000002",
        "curves.png",
        "epoch_000002_dream.mp4",
        f"scripts/evaluate.py run={folder}",
    ):
        assert what in printed


def test_films_are_optional(run, monkeypatch, capsys):
    def no_ffmpeg(*_):
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr("agent.training.callbacks.write_episode", no_ffmpeg)
    folder = run("epochs=1", films=True)
    assert checkpoint.newest(folder).name == "epoch_000001"
    printed = capsys.readouterr()
    assert "not all films were made (RuntimeError: No ffmpeg exe" in printed.err
    assert "dream:" not in printed.out


@pytest.mark.slow
def test_pictures_are_logged(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run("epochs=1", films=True) / "tensorboard")).Reload()
    assert set(events.Tags()["images"]) == {
        f"evaluate/{x}" for x in ("reconstruction", "dream", "episode")
    }
    assert {"tokenizer/loss", "policy/entropy", "evaluate/return_mean", "epoch"} <= set(
        events.Tags()["scalars"]
    )


def test_the_best_checkpoint_stays(run, monkeypatch):
    returns = iter([0.0, 5.0, 1.0, 2.0, 3.0, 3.0])  # the last evaluation is also written to a file
    summary = {"return_median": 0.0, "return_standard_error": 0.0, "length_mean": 9.0}
    monkeypatch.setattr(
        "agent.evaluation.evaluate.Evaluation.summary",
        lambda self: summary | {"return_mean": next(returns)},
    )
    folder = run("epochs=5", "keep=1", "checkpoint_every=4")  # the best is saved whenever it comes
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "epoch_000002",
        "epoch_000005",
    ]
    state = json.loads((folder / "checkpoints" / "epoch_000005" / "state.json").read_text())
    assert state["best"] == {"epoch": 2, "return": 5.0}


@pytest.mark.slow
@every_agent
def test_learning_does_not_notice_evaluation(run, agent):
    often, seldom = (
        run("epochs=3", f"evaluate_every={n}", name=str(n), agent=agent, films=True) for n in (1, 3)
    )
    ours, theirs = (checkpoint.load(folder).tensors for folder in (often, seldom))
    for part in ("agent", "random", "replay"):
        for name, value in ours[part].items():
            assert torch.equal(value, theirs[part][name]), (part, name)


def break_loss(monkeypatch, part: str, term: str, after: int, times: int = 99) -> list[Segment]:
    """Make a part's term NaN after so many updates, so many times.

    Returns:
        Its batches, as they come.
    """
    update, count, batches = learner.Learner.update, {"n": 0}, []

    def broken(self, segment):
        if self.loss.__name__ == f"{part}_loss":
            count["n"] += 1
            if (
                count["n"] > after + 3 and len(batches) < times
            ):  # three before the first epoch, to count and to time them
                batches.append(segment)
                own = self.loss
                nan = torch.tensor(float("nan"))
                self.loss = lambda s: {
                    k: v * nan if k in ("loss", term) else v for k, v in own(s).items()
                }
                metrics = update(self, segment)
                self.loss = own
                return metrics
        return update(self, segment)

    monkeypatch.setattr(learner.Learner, "update", broken)
    return batches


@pytest.mark.parametrize(
    ("part", "term"), [("tokenizer", "commitment"), ("dynamics", "reward"), ("policy", "critic")]
)
def test_a_loss_that_is_not_finite_stops_the_run(run, tmp_path, monkeypatch, part, term):
    batches = break_loss(
        monkeypatch, part, term, after=4
    )  # in the first epoch 2 or 3, in the second 2
    with pytest.raises(NonFinite) as stop:
        run("epochs=5")
    folder = tmp_path / "run"
    epoch, update = (2, 1) if part == "policy" else (1, 2)
    newest = checkpoint.newest(folder)
    kept = folder / f"non_finite_{part}_epoch_{epoch:06d}_update_{update:06d}.safetensors"
    assert str(stop.value) == (
        f"Stopped in epoch {epoch}: {part}/{term} is nan (its batch is kept in {kept}); "
        f"the last good checkpoint is {newest} "
        f"(go on with resume={folder})."
    )
    for name, tensor in load_file(kept).items():
        assert torch.equal(tensor, getattr(batches[0], name)), name
    assert newest.name == f"epoch_00000{epoch}"
    for name, value in checkpoint.load(folder).tensors["agent"].items():
        assert value.isfinite().all(), name
    assert [row["epoch"] for row in read_metrics(folder / "metrics.csv")] == list(
        range(1, epoch + 1)
    )


def test_a_run_that_stops_at_once(run, tmp_path, monkeypatch):
    break_loss(monkeypatch, "tokenizer", "commitment", after=0)
    with pytest.raises(
        NonFinite, match=r"tokenizer/commitment is nan \(its .*\); no checkpoint had been written"
    ):
        run()


def test_some_updates_may_be_skipped(run, monkeypatch):
    """They count in no mean, reach no weight, and are told of."""
    break_loss(monkeypatch, "dynamics", "reward", after=4, times=1)
    folder = run("epochs=3", "learner.skips=1")
    rows = read_metrics(folder / "metrics.csv")
    assert [row.get("dynamics/skipped") for row in rows] == [None, 1.0, None]
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert all(
        value.isfinite().all() for value in checkpoint.load(folder).tensors["agent"].values()
    )


def test_what_goes_wrong_is_said_once(run, capsys, monkeypatch):
    monkeypatch.setattr(
        "agent.training.health.warnings",
        lambda metrics, *about: {"entropy": "The policy is tired."},
    )
    run("epochs=3")
    assert [line for line in capsys.readouterr().err.splitlines() if "tired" in line] == [
        "Epoch 1: The policy is tired."
    ]


@pytest.mark.parametrize("mode", ["eager", pytest.param("compiled", marks=pytest.mark.long)])
def test_two_runs_of_a_seed_are_equal(run, mode):
    small = (
        "epochs=2",
        f"learner.mode={mode}",
        "deterministic=true",
        "precision=fp32",
        "agent.actor_critic.horizon=2",
    )
    try:
        one, other = (checkpoint.load(run(*small, name=name)) for name in ("one", "other"))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    for part, tensors in one.tensors.items():
        for name, value in tensors.items():
            assert torch.equal(value, other.tensors[part][name]), (part, name)


def test_metrics_of_episodes():
    assert episode_metrics([]) == {}
    counts = dict.fromkeys(CRAFTER_ACHIEVEMENTS, 0) | {"wake_up": 3}
    episodes = [
        Episode(0, 2.0, 10, {"achievements": counts}),
        Episode(1, 4.0, 20, {"achievements": counts}),
    ]
    metrics = episode_metrics(episodes)
    assert (
        metrics["collect/return_mean"] == 3
        and metrics["collect/length_mean"] == 15
        and metrics["collect/episodes"] == 2
    )
    assert metrics["collect/crafter_score"] == pytest.approx(np.exp(np.log(101) / 22) - 1)
