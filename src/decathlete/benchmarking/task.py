"""What one process measures, in a form that reaches spawned processes whole, and what it reports back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from decathlete.benchmarking.clock import Peak
from decathlete.benchmarking.options import BenchmarkOptions
from decathlete.core.choices import Layout
from decathlete.core.schema import Schema
from decathlete.networks.layout import layout_name
from decathlete.training.loop.task import TrainTask

TRACE = "trace.json"


@dataclass(frozen=True, kw_only=True)
class BenchmarkTask(TrainTask):
    """A training that is measured; a prediction uses of it the plan, the hardware and where the data are.

    Attributes:
        options: what was asked for; batch size and patch are in the plan.
    """

    options: BenchmarkOptions

    def device(self, rank: int) -> torch.device:
        """Where process ``rank`` computes."""
        if self.hardware.kind != "cuda":
            return torch.device(self.hardware.kind)
        return torch.device("cuda", rank if self.hardware.index is None else self.hardware.index)

    def report_of(self, rank: int) -> Path:
        """Where process ``rank`` writes what it has measured."""
        return self.folder / f"measured_{rank}.json"


class Measured(Schema):
    """What one process has measured.

    Attributes:
        seconds: of each step or prediction.
        images: patches, slices or volumes in all of them together. voxels: in these images.
        rss_bytes, device_bytes: most memory in use, of the process and (CUDA) on the device.
        threads: of torch. precision: that was computed in. layout: of the feature maps.
    """

    seconds: tuple[float, ...]
    images: int
    voxels: int
    rss_bytes: int
    device_bytes: int | None
    threads: int
    precision: str
    layout: Layout


def measured(
    seconds: list[float], peak: Peak, *, images: int, voxels: int, precision: str, layout: torch.memory_format
) -> Measured:
    """This process's report."""
    return Measured(
        seconds=tuple(seconds),
        images=images,
        voxels=voxels,
        rss_bytes=peak.rss_bytes,
        device_bytes=peak.device_bytes,
        threads=torch.get_num_threads(),
        precision=precision,
        layout=layout_name(layout),
    )
