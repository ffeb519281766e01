import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

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
    what = "stops and saves after the present update; Ctrl-C stops at once."
    assert capfd.readouterr().err == f"\n{stop.asked.name}: {what}\n"


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


def test_without_a_reader(monkeypatch, capsys):
    """Its end asks for a stop."""
    reader, writer = os.pipe()
    with open(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with safe_output():
            stop = Stop()
            assert not stop()
            os.close(reader)
            assert stop() and stop() and stop.asked == signal.SIGTERM
    lines = "Nobody reads the output any more: stops and saves after the present update.\n"
    assert capsys.readouterr().err == lines


def test_in_another_thread_there_are_no_signals():
    def within() -> bool:
        with stoppable() as stop:
            return stop()

    with ThreadPoolExecutor() as pool:
        assert pool.submit(within).result() is False
