"""SIGTERM and SIGINT stop a training after the step under way, once a checkpoint is written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

WATCHED = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Records that a signal asked to stop.

    Args:
        insist: a second SIGINT raises ``KeyboardInterrupt`` at once (for someone at a keyboard, not for workers,
            which are sent the same signal by several others).
    """

    def __init__(self, *, insist: bool = False) -> None:
        self.signal_number = 0
        self._insist = insist

    def install(self) -> None:
        """Install the handlers (within :func:`restore_signal_handlers`); outside the main thread nothing changes."""
        if threading.current_thread() is threading.main_thread():
            for number in WATCHED:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._insist and number == signal.SIGINT == self.signal_number:
            raise KeyboardInterrupt
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
    """Forward SIGTERM and SIGINT to ``send`` (worker processes) instead of ending this process."""
    if threading.current_thread() is threading.main_thread():
        for number in WATCHED:
            signal.signal(number, lambda n, _frame: send(n))
