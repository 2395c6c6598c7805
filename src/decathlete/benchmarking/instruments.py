"""Instruments for time, memory and profiles of a device."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch.profiler import ProfilerActivity, profile

SAMPLE_EVERY_S = 0.02


class Stopwatch:
    """Measures laps, seconds, until the device has finished its work.

    CUDA is measured with events in its queue, an Apple GPU by waiting for it, a CPU with the clock alone.

    Args:
        device: device that computes.
        clock: returns the current time, seconds.
    """

    def __init__(self, device: torch.device, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: list[float] = []
        self._device = device
        self._clock = clock
        self._start_s = 0.0
        self._start_event: torch.cuda.Event | None = None

    def start(self) -> None:
        """Start a lap."""
        if self._device.type == "cuda":
            self._start_event = self._mark()
            return
        self._wait()
        self._start_s = self._clock()

    def stop(self) -> None:
        """Stop the lap when the device has finished its work."""
        if self._start_event is not None:
            stop_event = self._mark()
            stop_event.synchronize()
            self.seconds.append(self._start_event.elapsed_time(stop_event) / 1e3)
            return
        self._wait()
        self.seconds.append(self._clock() - self._start_s)

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _wait(self) -> None:
        if self._device.type == "mps":
            torch.mps.synchronize()


@dataclass(frozen=True, kw_only=True)
class MemoryPeak:
    """Peak memory, bytes: of the process (RSS), and of torch on a CUDA device."""

    rss_bytes: int
    device_bytes: int | None


class PeakMemory:
    """Measures peak memory: a thread samples the process every 20 ms, CUDA records its own peak.

    Args:
        device: device that computes.
        resident_bytes: returns the memory in use, bytes; the default reads the RSS of this process.
    """

    def __init__(self, device: torch.device, *, resident_bytes: Callable[[], int] | None = None) -> None:
        self._device = device
        self._resident_bytes = resident_bytes or _rss_bytes
        self._rss_bytes = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="decathlete-memory", daemon=True)

    def start(self) -> None:
        """Start the measurement."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._thread.start()

    def stop(self) -> MemoryPeak:
        """Stop the measurement and return the peak."""
        self._stopped.set()
        self._thread.join()
        on_cuda = self._device.type == "cuda"
        return MemoryPeak(
            rss_bytes=self._rss_bytes,
            device_bytes=torch.cuda.max_memory_allocated(self._device) if on_cuda else None,
        )

    def _watch(self) -> None:
        while True:
            self._rss_bytes = max(self._rss_bytes, self._resident_bytes())
            if self._stopped.wait(SAMPLE_EVERY_S):
                return


class Profiler:
    """Records a profile with torch and writes it as a Chrome trace.

    Args:
        device: device that computes.
        path: file of the trace, which Chrome and Perfetto show.
    """

    def __init__(self, device: torch.device, path: Path) -> None:
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(activities=activities, record_shapes=True)
        self._path = path

    def start(self) -> None:
        """Start the profile."""
        self._profile.start()

    def stop(self) -> None:
        """Stop the profile and write the trace."""
        self._profile.stop()
        self._profile.export_chrome_trace(str(self._path))


def _rss_bytes() -> int:
    """Return the resident memory of this process, bytes."""
    return int(psutil.Process().memory_info().rss)
