"""Keep a constant number of requests under way, and measure until the figures are stable."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Send = Callable[[], None]
"""Sends one request and waits for its answer."""


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How long is measured.

    Attributes:
        warmup: requests of each client that are not measured.
        window_s: length of a measurement window, s.
        stability: the last three windows are stable if their throughput and mean latency are within this share of their
            mean.
        max_windows: after so many windows the measurement ends, stable or not.
    """

    warmup: int = 2
    window_s: float = 5.0
    stability: float = 0.1
    max_windows: int = 10


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured in the windows that count: the last three, or all if there are fewer.

    Attributes:
        seconds: latency of each request that was answered in them.
        duration_s: of these windows together.
        windows: their number.
        stable: whether they agree.
    """

    seconds: tuple[float, ...]
    duration_s: float
    windows: int
    stable: bool

    @property
    def requests_per_s(self) -> float:
        """Throughput."""
        return len(self.seconds) / self.duration_s


@dataclass(frozen=True, kw_only=True)
class _Window:
    seconds: list[float]
    duration_s: float

    @property
    def throughput(self) -> float:
        return len(self.seconds) / self.duration_s

    @property
    def latency(self) -> float:
        return float(np.mean(self.seconds)) if self.seconds else float("nan")


class ClosedLoop:
    """Clients that each send the next request when the last one is answered.

    Args:
        senders: one for each client, each used by one thread.
    """

    def __init__(self, senders: Sequence[Send]) -> None:
        self._senders = senders
        self._finished: list[float] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._problem: BaseException | None = None

    def measure(self, options: LoadOptions, *, on_boundary: Callable[[], None] = lambda: None) -> Measurement:
        """Measure until the last three windows are stable.

        Args:
            on_boundary: called after the warm-up, and at the end of each window.

        Raises:
            TritonError: a request failed.
        """
        for send in self._senders:
            for _ in range(options.warmup):
                send()
        on_boundary()
        threads = [threading.Thread(target=self._run, args=(send,), daemon=True) for send in self._senders]
        for thread in threads:
            thread.start()
        windows: list[_Window] = []
        began = time.perf_counter()
        try:
            while not self._is_finished(windows, options):
                windows.append(self._window(began, options.window_s))
                began += windows[-1].duration_s
                if self._problem is None:
                    on_boundary()
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        if self._problem is not None:
            raise self._problem
        kept = windows[-3:]
        return Measurement(
            seconds=tuple(value for window in kept for value in window.seconds),
            duration_s=sum(window.duration_s for window in kept),
            windows=len(kept),
            stable=is_stable([(w.throughput, w.latency) for w in kept], options.stability),
        )

    def _is_finished(self, windows: Sequence[_Window], options: LoadOptions) -> bool:
        if self._problem is not None:
            return True
        has_some = any(window.seconds for window in windows[-3:])
        if len(windows) >= options.max_windows and has_some:
            return True
        return is_stable([(w.throughput, w.latency) for w in windows[-3:]], options.stability)

    def _window(self, began: float, window_s: float) -> _Window:
        """Return the window since ``began``, the end of the last one, so that every request is in one window."""
        self._stop.wait(max(0.0, began + window_s - time.perf_counter()))
        with self._lock:
            seconds, self._finished = self._finished, []
            return _Window(seconds=seconds, duration_s=time.perf_counter() - began)

    def _run(self, send: Send) -> None:
        while not self._stop.is_set():
            began = time.perf_counter()
            try:
                send()
            except BaseException as problem:  # raised by measure, in the thread of the caller
                self._problem = problem
                self._stop.set()
                return
            with self._lock:
                self._finished.append(time.perf_counter() - began)


def is_stable(windows: Sequence[tuple[float, float]], stability: float) -> bool:
    """Return whether throughput and latency of three windows are within a share of their means.

    >>> is_stable([(10, 1), (10.5, 1), (9.9, 1)], 0.1)
    True
    >>> is_stable([(10, 1), (14, 1), (10, 1)], 0.1)
    False
    """
    if len(windows) < 3:
        return False
    values = np.asarray(windows, np.float64)
    means = values.mean(axis=0)
    return bool(np.isfinite(values).all() and (np.abs(values - means) <= stability * means).all())
