"""torch's profiler, and its trace as a file that Chrome and Perfetto show."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


class Profiler:
    """Watches what is done between start and stop."""

    def __init__(self, device: torch.device, path: Path) -> None:
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(activities=activities, record_shapes=True)
        self._path = path

    def start(self) -> None:
        """From now on."""
        self._profile.start()

    def stop(self) -> None:
        """Until now; the trace is written."""
        self._profile.stop()
        self._profile.export_chrome_trace(str(self._path))
