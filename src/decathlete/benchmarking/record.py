"""The record of a benchmark: the figures, and all that they depend on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np

from decathlete.benchmarking.machine import Machine, Versions
from decathlete.benchmarking.task import Measured
from decathlete.core.choices import BenchmarkMode, Blend, Layout
from decathlete.core.schema import Schema
from decathlete.core.sizes import say_bytes
from decathlete.planning.architectures import AnyNetworkSpec
from decathlete.planning.network_spec import Axes, Dims

RECORD_VERSION = 1


class Latency(Schema):
    """Of single steps or predictions, over all processes, ms. ``p99``: 99 % took no longer."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """From each step's seconds; between two of them percentiles are interpolated."""
        ms = 1e3 * np.asarray(seconds)
        p50, p90, p95, p99 = np.percentile(ms, [50, 90, 95, 99]).tolist()
        return cls(mean=float(ms.mean()), p50=p50, p90=p90, p95=p95, p99=p99)


class Throughput(Schema):
    """The sum over all processes. Images are patches (2D: slices), or volumes where volumes were predicted."""

    images_per_s: float
    voxels_per_s: float


class Memory(Schema):
    """The most in use while it was measured, bytes: all processes' own (RSS) added; of the fullest CUDA device."""

    rss_bytes: int
    device_bytes: int | None


class Settings(Schema):
    """All that the figures depend on but the machine and the versions.

    Attributes:
        data: random numbers, or prepared cases. dataset: whose.
        batch_size: per device.
        parameters: of the network.
        precision: that was computed in. layout: of feature maps in memory, where it was recorded.
        compiled: by torch's compiler.
        steps: measured, after ``warmup`` others.
        volumes: whole volumes were predicted, of ``volume_shape`` if random, with ``overlap`` and ``blend``.
        optimizer: in training. augment: whether training patches were changed.
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
    """One benchmark, as it is written to disk.

    Attributes:
        date: when it ended, UTC, ISO 8601.
        trace: name of the profiler's trace beside the record, if there is one.
        seconds: of every step or prediction, per process: whatever else one wants to know can be computed from them.
    """

    version: int = RECORD_VERSION
    date: str
    settings: Settings
    machine: Machine
    versions: Versions
    throughput: Throughput
    latency_ms: Latency
    peak_memory: Memory
    trace: str | None = None
    seconds: tuple[tuple[float, ...], ...]

    def lines(self) -> str:
        """For the screen."""
        settings, latency, memory = self.settings, self.latency_ms, self.peak_memory
        what = "volumes" if settings.volumes else "slices" if settings.dims == 2 else "patches"
        compiled = ", compiled" if settings.compiled else ""
        on_device = "" if memory.device_bytes is None else f", {say_bytes(memory.device_bytes)} on the GPU"
        return "\n".join(
            (
                f"{settings.mode}, {settings.dims}D, {settings.data} data: patch {_times(settings.patch_size)}, batch "
                f"{settings.batch_size}, {settings.precision}{compiled}, {settings.devices} x {self.machine.computes}",
                f"throughput   {self.throughput.images_per_s:.4g} {what}/s, "
                f"{self.throughput.voxels_per_s / 1e6:.4g} million voxels/s",
                f"latency      mean {latency.mean:.4g} ms; 50 % {latency.p50:.4g}, 90 % {latency.p90:.4g}, "
                f"95 % {latency.p95:.4g}, 99 % {latency.p99:.4g} ms",
                f"peak memory  {say_bytes(memory.rss_bytes)}{on_device}",
            )
        )


def throughput_of(reports: Sequence[Measured]) -> Throughput:
    """What each process did in its own time, added."""
    return Throughput(
        images_per_s=sum(r.images / sum(r.seconds) for r in reports),
        voxels_per_s=sum(r.voxels / sum(r.seconds) for r in reports),
    )


def memory_of(reports: Sequence[Measured]) -> Memory:
    """Of all processes."""
    on_device = [r.device_bytes for r in reports if r.device_bytes is not None]
    return Memory(rss_bytes=sum(r.rss_bytes for r in reports), device_bytes=max(on_device, default=None))


def _times(patch: Axes) -> str:
    return "x".join(map(str, patch))
