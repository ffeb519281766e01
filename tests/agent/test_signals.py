import contextlib
import os
import signal
import sys
import threading
import time

import pytest

from agent.signals import SIGNALS, Stop, stoppable
from envs.output import safe_output


@pytest.mark.parametrize("number", SIGNALS)
def test_a_patient_run_is_asked(number, capfd):
    before = signal.getsignal(number)
    with stoppable() as stop:
        stop.patient = True
        assert not stop()
        signal.raise_signal(number)
        assert stop() and stop.asked == number
    assert signal.getsignal(number) is before
    assert (
        capfd.readouterr().err
        == f"\n{stop.asked.name}: stops and saves after the present update; Ctrl-C stops at once.\n"
    )


@pytest.mark.parametrize("number", SIGNALS)
def test_before_anybody_looks_it_ends_at_once(number):
    with pytest.raises(KeyboardInterrupt), stoppable() as stop:
        signal.raise_signal(number)
    assert stop.asked == number


def test_twice():
    """Slurm's second signal changes nothing; Ctrl-C after any other does."""
    with pytest.raises(KeyboardInterrupt), stoppable() as stop:
        stop.patient = True
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked == signal.SIGUSR1
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_that_is_swallowed_comes_again(monkeypatch):
    monkeypatch.setattr("agent.signals.AGAIN_SECONDS", 0.05)
    with pytest.raises(KeyboardInterrupt), stoppable():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        time.sleep(10)
    time.sleep(0.1)  # and not once more


def test_without_a_reader(monkeypatch, capsys):
    """Its end asks for a stop; and a signal is heard though nobody can be told of it."""
    reader, writer = os.pipe()
    with open(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with safe_output():
            stop = Stop()
            assert not stop()
            os.close(reader)
            assert stop() and stop() and stop.asked == signal.SIGTERM
    said = "Nobody reads the output any more: stops and saves after the present update.\n"
    assert capsys.readouterr().err == said

    def closed(*_):
        raise BrokenPipeError

    monkeypatch.setattr(os, "write", closed)
    with stoppable() as stop:
        stop.patient = True
        signal.raise_signal(signal.SIGINT)
        assert stop.asked == signal.SIGINT


def test_in_another_thread_there_are_no_signals():
    stops = []

    def within():
        with stoppable() as stop:
            stops.append(stop())

    thread = threading.Thread(target=within)
    thread.start()
    thread.join()
    assert stops == [False]
