"""Options of a benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import get_args

from decathlete.core.choices import BenchmarkMode, Layout, PrecisionChoice
from decathlete.core.sliding_window import SlidingWindow
from decathlete.errors import OptionError, problems_found
from decathlete.planning.network_spec import Axes, Dims
from decathlete.planning.options import PlanOptions

N_PROFILED_STEPS = 3
"""Number of profiled steps after the measured ones; one with volumes, because more events would fill the memory."""

DEFAULT_PLAN_OPTIONS = PlanOptions()


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Options of a benchmark.

    Attributes:
        mode: subject of the measurement: ``train`` or ``predict``.
        dims: dimensions of the network.
        task: Decathlon task (``"04"``) whose patch size random data have; with ``real`` any prepared dataset.
        real: use the task's prepared data instead of random numbers.
        patch: patch size, voxels; ``None``: the task's.
        plan: options of the network for random data; ``overrides`` apply to any plan.
        batch_size: patches per device; ``None``: 2 in 3D and 16 in 2D, with ``real`` the plan's.
        augment: augment training patches.
        warmup: number of steps (predictions) before the measurement.
        steps: number of measured steps (predictions).
        volumes: predict whole volumes by sliding windows instead of batches of windows.
        shape: shape of the random volumes, voxels; ``None``: that of a BraTS scan.
        window: how windows are combined: ``tta`` in mode ``predict``, ``overlap`` and ``blend`` with ``volumes``.
        profile: profile additional steps with torch's profiler.
        amp: mixed precision: fp16 on CUDA, else bf16.
        compile: compile the trained network with torch.compile.
        precision: floating-point precision.
        layout: memory layout of feature maps.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` (one GPU) or ``mps``.
        devices: number of GPUs, or of processes on a CPU.

    Raises:
        OptionError: options are wrong or contradict each other; the message lists all problems.
    """

    mode: BenchmarkMode
    dims: Dims = 3
    task: str = "01"
    real: bool = False
    patch: Axes | None = None
    plan: PlanOptions = DEFAULT_PLAN_OPTIONS
    batch_size: int | None = None
    augment: bool = False
    warmup: int = 5
    steps: int = 50
    volumes: bool = False
    shape: tuple[int, int, int] | None = None
    window: SlidingWindow = SlidingWindow()
    profile: bool = False
    amp: bool = False
    compile: bool = False
    precision: PrecisionChoice = "auto"
    layout: Layout = "auto"
    device: str = "auto"
    devices: int = 1

    def __post_init__(self) -> None:
        if problems := list(self._find_problems()):
            raise problems_found(problems, where="benchmark options", remedy="fix these options", kind=OptionError)

    def _find_problems(self) -> Iterator[str]:
        if self.mode not in get_args(BenchmarkMode):
            yield f"mode is {self.mode!r}; choose train or predict"
        for name in ("warmup", "steps", "devices", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                yield f"{name} is {value}; use 1 or more"
        if self.mode == "train" and (self.volumes or self.window.tta):
            yield "volumes and tta have an effect only in mode predict"
        if self.mode == "predict" and self.augment:
            yield "augment has an effect only in mode train"
        if self.mode == "predict" and self.compile:
            yield "compile has an effect only in mode train"
        if self.amp and self.precision != "auto":
            yield "amp sets the precision: use amp or precision, not both"
        if self.real and replace(self.plan, overrides=()) != DEFAULT_PLAN_OPTIONS:
            yield "options of the network have no effect with real data: use --set, or prepare the data with them"
        if self.window.batch_size is not None or self.window.memory_gb is not None:
            yield "batch_size and memory_gb of the window have no effect: use batch_size of the benchmark"
        yield from self._find_shape_problems()

    def _find_shape_problems(self) -> Iterator[str]:
        if self.shape is not None and (self.real or not self.volumes):
            yield "shape is the shape of random volumes: use it with volumes and without real data"
        if self.shape is not None and (len(self.shape) != 3 or min(self.shape) < 1):
            yield f"shape is {self.shape}; use 3 positive numbers"
        if self.patch is not None and (len(self.patch) != self.dims or min(self.patch) < 1):
            yield f"patch is {self.patch}; use {self.dims} positive numbers"

    @property
    def n_profiled_steps(self) -> int:
        """Number of profiled steps."""
        return 0 if not self.profile else 1 if self.volumes else N_PROFILED_STEPS
