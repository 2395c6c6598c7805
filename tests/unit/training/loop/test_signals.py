"""Signals are counted, and those of one moment count as one."""

from __future__ import annotations

import os
import signal

import pytest

from decathlete.training.loop.signals import EndNow, SignalCounter, StopRequest, forward, restore_signal_handlers
from training_support import SimulatedClock


def test_a_signal_that_is_delivered_twice_counts_once():
    clock = SimulatedClock()
    counter = SignalCounter(clock)
    assert not counter.is_second()
    clock.now_s += 0.1
    assert not counter.is_second()
    clock.now_s += 1.0
    assert counter.is_second()
    clock.now_s += 0.1
    assert counter.is_second()


@pytest.fixture
def each_counts(monkeypatch):
    monkeypatch.setattr("decathlete.training.loop.signals.REPEAT_S", -1.0)


@pytest.mark.usefixtures("each_counts")
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_where_it_may(second):
    with restore_signal_handlers():
        patient = StopRequest()
        patient.install()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), second)
        assert patient.signal_number == second
        insistent = StopRequest(insist=True)
        insistent.install()
        os.kill(os.getpid(), signal.SIGTERM)
        assert insistent.signal_number == signal.SIGTERM
        with pytest.raises(EndNow) as caught:
            os.kill(os.getpid(), second)
    assert caught.value.signal_number == second


@pytest.mark.usefixtures("each_counts")
def test_the_first_signal_is_forwarded_and_the_second_ends():
    sent: list[int] = []
    with restore_signal_handlers():
        forward(sent.append)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(EndNow):
            os.kill(os.getpid(), signal.SIGINT)
    assert sent == [signal.SIGINT]
