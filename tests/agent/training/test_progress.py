import io
import sys
import threading
import time

from agent.training import progress as module
from agent.training.progress import duration, progress


def test_into_a_file(monkeypatch, capsys):
    """No line for what is quick, few lines for what takes time, no carriage returns, no thread."""
    monkeypatch.setattr(module, "SECONDS", 0.2)
    threads = threading.active_count()
    for _ in range(5):
        with progress("quick", 10, "step") as bar:
            assert threading.active_count() == threads
            bar.update(10)
    assert capsys.readouterr().err == ""
    started = time.monotonic()
    with progress("epochs", 2, "epoch", leave=True) as outer:
        for _ in range(2):
            with progress("collect", 20, "step") as inner:
                for _ in range(20):
                    time.sleep(0.02)
                    inner.update()
            outer.update()
    seconds, text = time.monotonic() - started, capsys.readouterr().err
    assert "\r" not in text and "\x1b" not in text and text.endswith("\n")
    lines = text.splitlines()
    assert 2 <= len(lines) <= 2 * seconds / 0.2 + 1  # of two bars
    assert lines[-1].startswith("epochs: 100%") and "epochs: 100%" not in lines[-2]


def test_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress("collect", 10, "step") as bar:
        bar.update(10)
    assert "\rcollect:" in sys.stderr.getvalue()


def test_durations():
    given = [duration(s) for s in (0.94, 119, 120, 7199, 7200, 4e6)]
    assert given == ["0.9 seconds", "119.0 seconds", "2.0 minutes", "120.0 minutes", "2.0 hours", "1,111.1 hours"]  # fmt: skip
