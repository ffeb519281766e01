import io
import sys
import threading
import time

import pytest

from agent.training import progress as module
from agent.training.progress import duration, progress, readable


@pytest.fixture
def file(monkeypatch, capsys):
    """Standard error is no terminal here, and ten seconds are short."""
    monkeypatch.setattr(module, "SECONDS", 0.2)
    return lambda: capsys.readouterr().err


def test_nothing_for_what_is_quick(file):
    for _ in range(5):
        with progress("epochs", 3, "epoch", leave=True) as outer:
            for _ in range(3):
                with progress("collect", 10, "step") as inner:
                    for _ in range(10):
                        inner.update()
                        inner.set_postfix(loss="1", refresh=False)
                outer.update()
    assert file() == ""


def test_few_lines_for_what_takes_time(file):
    started = time.monotonic()
    with progress("epochs", 4, "epoch", leave=True) as outer:
        for _ in range(4):
            with progress("collect", 20, "step") as inner:
                for _ in range(20):
                    time.sleep(0.02)
                    inner.update()
            outer.update()
    seconds = time.monotonic() - started
    text = file()
    assert "\r" not in text and "\x1b" not in text and text.endswith("\n")
    lines = text.splitlines()
    assert 4 <= len(lines) <= 2 * seconds / 0.2 + 1  # of two bars
    assert all(
        (line.startswith(("epochs:", "collect:")) and "/s" in line) or "s/" in line
        for line in lines
    )
    assert lines[-1].startswith("epochs: 100%") and "epochs: 100%" not in lines[-2]


def test_it_starts_no_thread(file):
    before = threading.active_count()
    with progress("epochs", 3, "epoch"):
        assert threading.active_count() == before


def test_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress("collect", 10, "step") as bar:
        bar.update(10)
    assert "\rcollect:" in sys.stderr.getvalue()


def test_durations():
    said = [duration(s) for s in (0.94, 119, 120, 600, 7199, 7200, 4e6)]
    assert said == [
        "0.9 seconds",
        "119.0 seconds",
        "2.0 minutes",
        "10.0 minutes",
        "120.0 minutes",
        "2.0 hours",
        "1,111.1 hours",
    ]


def test_figures_of_any_size():
    given = [0.0, -21.4, 0.05, 2e-5, 4.85e8, -1e29, float("nan")]
    assert [readable(value) for value in given] == [
        "0.000",
        "-21.400",
        "0.050",
        "2e-05",
        "4.85e+08",
        "-1e+29",
        "nan",
    ]
