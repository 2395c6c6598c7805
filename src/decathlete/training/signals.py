"""SIGTERM and SIGINT stop a training after the step under way, once a checkpoint is written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

WATCHED = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Remembers that a signal has asked to stop.

    Args:
        insist: a second SIGINT raises ``KeyboardInterrupt`` at once (for someone at a keyboard, not for workers,
            which are sent the same signal by several others).
    """

    def __init__(self, *, insist: bool = False) -> None:
        self.signal_number = 0
        self._insist = insist
        self._previous: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Watch from now on; outside the main thread Python allows no handlers, and signals act as before."""
        if threading.current_thread() is threading.main_thread():
            for number in WATCHED:
                self._previous[number] = signal.signal(number, self._received)

    def uninstall(self) -> None:
        """Put the former handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _received(self, number: int, _frame: FrameType | None) -> None:
        if self._insist and number == signal.SIGINT == self.signal_number:
            raise KeyboardInterrupt
        self.signal_number = number


@contextmanager
def forwarded(send: Callable[[int], None]) -> Iterator[None]:
    """Within, SIGTERM and SIGINT are passed to ``send`` (worker processes) instead of ending this process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, lambda n, _frame: send(n)) for number in WATCHED}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
