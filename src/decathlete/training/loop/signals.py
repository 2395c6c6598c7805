"""SIGTERM and SIGINT stop a training after the current step, once a checkpoint is written; a second one ends it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

WATCHED = (signal.SIGTERM, signal.SIGINT)
REPEAT_S = 0.5
"""Signals that follow one another within so many seconds count as one: `timeout` sends one signal twice."""


class EndNow(BaseException):
    """A second signal ends the training at once. Not an ``Exception``, so that no handler of a library catches it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.signal_number = signal_number


class SignalCounter:
    """Counts the signals that this process receives; those of one moment count as one.

    Args:
        clock: returns the current time, seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_s = float("-inf")
        self._n = 0

    def is_second(self) -> bool:
        """Count a signal; return whether another one came before."""
        now_s = self._clock()
        self._n += now_s - self._last_s > REPEAT_S
        self._last_s = now_s
        return self._n > 1


class StopRequest:
    """Records that a signal asked to stop.

    Args:
        insist: a second signal raises :class:`EndNow` at once (not in spawned processes: the process that started them
            ends them, and they receive the same signal from several others).

    Attributes:
        signal_number: the signal that asked to stop; 0: none.
    """

    def __init__(self, *, insist: bool = False) -> None:
        self.signal_number = 0
        self._insist = insist
        self._counter = SignalCounter()

    def is_set(self) -> bool:
        """Return whether a signal asked to stop."""
        return bool(self.signal_number)

    def install(self) -> None:
        """Install the handlers (within :func:`restore_signal_handlers`); outside the main thread nothing changes."""
        if threading.current_thread() is threading.main_thread():
            for number in WATCHED:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._counter.is_second() and self._insist:
            raise EndNow(number)
        self.signal_number = number


@contextmanager
def restore_signal_handlers() -> Iterator[None]:
    """Restore the former signal handlers at the end, whatever was installed in between."""
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers in that thread alone
        yield
        return
    previous = {number: signal.getsignal(number) for number in WATCHED}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def forward(send: Callable[[int], None]) -> None:
    """Forward SIGTERM and SIGINT to ``send`` (worker processes); a second one raises :class:`EndNow`."""
    if threading.current_thread() is not threading.main_thread():
        return
    counter = SignalCounter()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if counter.is_second():
            raise EndNow(number)
        send(number)

    for number in WATCHED:
        signal.signal(number, on_signal)
