"""Record of a benchmark: the results and their conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from decathlete.benchmarking.machine import BenchmarkMachine, SoftwareVersions
from decathlete.benchmarking.task import Measurement
from decathlete.core.choices import BenchmarkMode, Blend, Layout
from decathlete.core.latency import Latency
from decathlete.core.schema import Schema
from decathlete.core.sizes import format_bytes
from decathlete.planning.architectures import AnyNetworkSpec
from decathlete.planning.network_spec import Axes, Dims

RECORD_VERSION = 1


class Throughput(Schema):
    """Throughput of all processes together. Images are patches (2D: slices), or volumes if volumes were predicted."""

    images_per_s: float
    voxels_per_s: float


class MemoryUse(Schema):
    """Peak memory, bytes: the sum of all processes' RSS, and the maximum over the CUDA devices."""

    rss_bytes: int
    device_bytes: int | None


class BenchmarkSettings(Schema):
    """Conditions of a benchmark except the machine and the versions.

    Attributes:
        mode: subject of the measurement.
        dims: dimensions of the network.
        data: random numbers or prepared cases.
        dataset: name of the dataset.
        patch_size: voxels.
        batch_size: patches per device.
        network: the network.
        parameters: number of parameters of the network.
        precision: floating-point precision.
        layout: memory layout of feature maps; ``None`` in old records.
        compiled: whether torch.compile was used.
        device: kind of device.
        devices: number of devices.
        warmup: number of steps before the measurement.
        steps: number of measured steps.
        optimizer: optimizer of the training.
        augment: whether training patches were augmented.
        volumes: whether whole volumes were predicted.
        volume_shape: shape of random volumes, voxels.
        overlap: overlap of neighbouring windows, share of the patch.
        blend: weights of overlapping windows.
        tta: whether predictions were averaged over flips.
    """

    mode: BenchmarkMode
    dims: Dims
    data: Literal["random", "prepared"]
    dataset: str
    patch_size: Axes
    batch_size: int
    network: AnyNetworkSpec
    parameters: int
    precision: str
    layout: Layout | None = None
    compiled: bool = False
    device: str
    devices: int
    warmup: int
    steps: int
    optimizer: str | None = None
    augment: bool = False
    volumes: bool = False
    volume_shape: tuple[int, int, int] | None = None
    overlap: float | None = None
    blend: Blend | None = None
    tta: bool = False


class BenchmarkRecord(Schema):
    """Record of one benchmark, as written to disk.

    Attributes:
        version: version of the schema.
        date: end of the benchmark, UTC, ISO 8601.
        settings: conditions of the benchmark.
        machine: machine of the benchmark.
        versions: versions of the software.
        throughput: throughput of all processes.
        latency_ms: latency, ms.
        peak_memory: peak memory, bytes.
        trace: file name of the profiler's trace beside the record, if there is one.
        seconds: seconds of every step or prediction, for each process; other statistics can be computed from them.
    """

    version: int = RECORD_VERSION
    date: str
    settings: BenchmarkSettings
    machine: BenchmarkMachine
    versions: SoftwareVersions
    throughput: Throughput
    latency_ms: Latency
    peak_memory: MemoryUse
    trace: str | None = None
    seconds: tuple[tuple[float, ...], ...]

    def lines(self) -> str:
        """Format the record for the terminal."""
        settings, latency, memory = self.settings, self.latency_ms, self.peak_memory
        unit = "volumes" if settings.volumes else "slices" if settings.dims == 2 else "patches"
        compiled = ", compiled" if settings.compiled else ""
        on_device = "" if memory.device_bytes is None else f", {format_bytes(memory.device_bytes)} on the GPU"
        patch = "x".join(map(str, settings.patch_size))
        return "\n".join(
            (
                f"{settings.mode}, {settings.dims}D, {settings.data} data: patch {patch}, "
                f"batch {settings.batch_size}, {settings.precision}{compiled}, "
                f"{settings.devices} x {self.machine.device_name}",
                f"throughput   {self.throughput.images_per_s:.4g} {unit}/s, "
                f"{self.throughput.voxels_per_s / 1e6:.4g} million voxels/s",
                f"latency      mean {latency.mean:.4g} ms; 50 % {latency.p50:.4g}, 90 % {latency.p90:.4g}, "
                f"95 % {latency.p95:.4g}, 99 % {latency.p99:.4g} ms",
                f"peak memory  {format_bytes(memory.rss_bytes)}{on_device}",
            )
        )


def sum_throughput(measurements: Sequence[Measurement]) -> Throughput:
    """Add the throughputs of all processes, each over its own time."""
    return Throughput(
        images_per_s=sum(m.images / sum(m.seconds) for m in measurements),
        voxels_per_s=sum(m.voxels / sum(m.seconds) for m in measurements),
    )


def combine_memory(measurements: Sequence[Measurement]) -> MemoryUse:
    """Combine the peak memories of all processes."""
    on_device = [m.device_bytes for m in measurements if m.device_bytes is not None]
    return MemoryUse(rss_bytes=sum(m.rss_bytes for m in measurements), device_bytes=max(on_device, default=None))
