"""Time and memory, as the device that computes sees them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch

SAMPLE_EVERY_S = 0.02


class Stopwatch:
    """Seconds of each lap, after the device has done what it was asked.

    On CUDA by events in its queue, on Apple's GPUs by waiting for them, on CPUs by ``clock`` alone.
    """

    def __init__(self, device: torch.device, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: list[float] = []
        self._device = device
        self._clock = clock
        self._began_s = 0.0
        self._began: torch.cuda.Event | None = None

    def start(self) -> None:
        """A lap begins."""
        if self._device.type == "cuda":
            self._began = self._mark()
            return
        self._wait()
        self._began_s = self._clock()

    def stop(self) -> None:
        """It ends, once all that was asked since is done."""
        if self._began is not None:
            ended = self._mark()
            ended.synchronize()
            self.seconds.append(self._began.elapsed_time(ended) / 1e3)
            return
        self._wait()
        self.seconds.append(self._clock() - self._began_s)

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _wait(self) -> None:
        if self._device.type == "mps":
            torch.mps.synchronize()


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The most memory that was in use, bytes: the process's (RSS), and torch's on a CUDA device."""

    rss_bytes: int
    device_bytes: int | None


class PeakMemory:
    """Watches memory between start and stop: a thread looks at the process now and then, CUDA counts by itself.

    Args:
        resident_bytes: returns the memory that is in use now; the default reads this process's RSS.
    """

    def __init__(self, device: torch.device, *, resident_bytes: Callable[[], int] | None = None) -> None:
        self._device = device
        self._resident_bytes = resident_bytes or _rss_bytes
        self._rss_bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="decathlete-memory", daemon=True)

    def start(self) -> None:
        """From now on."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._thread.start()

    def stop(self) -> Peak:
        """Until now."""
        self._over.set()
        self._thread.join()
        on_cuda = self._device.type == "cuda"
        return Peak(
            rss_bytes=self._rss_bytes,
            device_bytes=torch.cuda.max_memory_allocated(self._device) if on_cuda else None,
        )

    def _watch(self) -> None:
        while True:
            self._rss_bytes = max(self._rss_bytes, self._resident_bytes())
            if self._over.wait(SAMPLE_EVERY_S):
                return


def _rss_bytes() -> int:
    """Resident memory of this process."""
    return int(psutil.Process().memory_info().rss)
