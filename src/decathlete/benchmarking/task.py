"""Task and measurement of one process of a benchmark. A task can be pickled for spawned processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from decathlete.benchmarking.instruments import MemoryPeak
from decathlete.benchmarking.options import BenchmarkOptions
from decathlete.core.choices import Layout
from decathlete.core.schema import Schema
from decathlete.networks.layout import layout_name
from decathlete.training.loop.task import TrainTask

TRACE = "trace.json"


@dataclass(frozen=True, kw_only=True)
class BenchmarkTask(TrainTask):
    """Task of a benchmark. Predictions use only its plan, hardware and data.

    Attributes:
        options: options of the benchmark. Batch size and patch size are in the plan.
    """

    options: BenchmarkOptions

    def device(self, rank: int) -> torch.device:
        """Return the device of process ``rank``."""
        if self.hardware.kind != "cuda":
            return torch.device(self.hardware.kind)
        return torch.device("cuda", rank if self.hardware.index is None else self.hardware.index)

    def measurement_path(self, rank: int) -> Path:
        """Return the file to which process ``rank`` writes its measurement."""
        return self.folder / f"measured_{rank}.json"


class Measurement(Schema):
    """Measurement of one process.

    Attributes:
        seconds: seconds of each step or prediction.
        images: number of patches, slices or volumes in all steps.
        voxels: number of voxels in these images.
        rss_bytes: peak memory of the process, bytes.
        device_bytes: peak memory on the CUDA device, bytes.
        threads: number of torch's threads.
        precision: floating-point precision.
        layout: memory layout of feature maps.
    """

    seconds: tuple[float, ...]
    images: int
    voxels: int
    rss_bytes: int
    device_bytes: int | None
    threads: int
    precision: str
    layout: Layout


def make_measurement(
    seconds: list[float], peak: MemoryPeak, *, images: int, voxels: int, precision: str, layout: torch.memory_format
) -> Measurement:
    """Make the measurement of this process."""
    return Measurement(
        seconds=tuple(seconds),
        images=images,
        voxels=voxels,
        rss_bytes=peak.rss_bytes,
        device_bytes=peak.device_bytes,
        threads=torch.get_num_threads(),
        precision=precision,
        layout=layout_name(layout),
    )
