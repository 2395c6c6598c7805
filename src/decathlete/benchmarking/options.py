"""What a user asks to be measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import get_args

from pydantic import ValidationError

from decathlete.core.choices import BenchmarkMode, Blend, Layout, PrecisionChoice
from decathlete.core.schema import describe
from decathlete.core.sliding_window import SlidingWindow
from decathlete.errors import OptionError, problems_found
from decathlete.planning.network_spec import Axes, Dims
from decathlete.planning.options import PlanOptions

PROFILED = 3
"""Steps after the measured ones that the profiler watches; with volumes one, for its events would fill the memory."""

AS_PLANNED = PlanOptions()


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What is measured, and how long.

    Attributes:
        task: one of the Decathlon (``"04"``), whose fixed patch random data have; with ``real`` any prepared dataset.
        real: the task's prepared data in place of random numbers.
        patch: voxels, in place of the task's.
        plan: what shapes the network of random data, and ``overrides`` of any plan.
        batch_size: per device; ``None``: 2 in 3D and 16 in 2D, with ``real`` the plan's.
        augment: training patches are changed at random, too.
        warmup: steps (predictions) before those that are measured. steps: measured.
        volumes: whole volumes by sliding windows, in place of batches of windows.
        shape: of the random volumes, voxels; ``None``: that of a BraTS scan.
        tta: average over flips. overlap, blend: of the windows, with ``volumes``.
        profile: watch a few more steps with torch's profiler.
        amp: mixed precision: fp16 on CUDA, else bf16.
        layout: of feature maps in memory.
        compile: the trained network, by torch's compiler.
        devices: GPUs, or processes on a CPU.

    Raises:
        OptionError: with every problem together.
    """

    mode: BenchmarkMode
    dims: Dims = 3
    task: str = "01"
    real: bool = False
    patch: Axes | None = None
    plan: PlanOptions = AS_PLANNED
    batch_size: int | None = None
    augment: bool = False
    warmup: int = 5
    steps: int = 50
    volumes: bool = False
    shape: tuple[int, int, int] | None = None
    tta: bool = False
    overlap: float = 0.5
    blend: Blend = "gaussian"
    profile: bool = False
    amp: bool = False
    compile: bool = False
    precision: PrecisionChoice = "auto"
    layout: Layout = "auto"
    device: str = "auto"
    devices: int = 1

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise problems_found(problems, where="benchmark options", remedy="fix these options", kind=OptionError)

    def _problems(self) -> Iterator[str]:
        if self.mode not in get_args(BenchmarkMode):
            yield f"mode is {self.mode!r}; choose train or predict"
        for name in ("warmup", "steps", "devices", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                yield f"{name} is {value}; give 1 or more"
        if self.mode == "train" and (self.volumes or self.tta):
            yield "volumes and flips (tta) are for mode predict"
        if self.mode == "predict" and self.augment:
            yield "only training augments"
        if self.mode == "predict" and self.compile:
            yield "only training compiles the network"
        if self.amp and self.precision != "auto":
            yield "amp chooses the precision: give amp or precision, not both"
        if self.real and replace(self.plan, overrides=()) != AS_PLANNED:
            yield "prepared data have a network already: change it by overrides (--set), or plan with these options"
        yield from self._shape_problems()
        try:
            _ = self.window
        except ValidationError as problem:
            yield from describe(problem)

    def _shape_problems(self) -> Iterator[str]:
        if self.shape is not None and (self.real or not self.volumes):
            yield "shape is of random volumes: give it with volumes, and not with real data"
        if self.shape is not None and (len(self.shape) != 3 or min(self.shape) < 1):
            yield f"shape is {self.shape}; give 3 positive numbers"
        if self.patch is not None and (len(self.patch) != self.dims or min(self.patch) < 1):
            yield f"patch is {self.patch}; give {self.dims} positive numbers"

    @property
    def window(self) -> SlidingWindow:
        """The sliding window over volumes, without its batch size, which is the plan's."""
        return SlidingWindow(overlap=self.overlap, blend=self.blend, tta=self.tta)

    @property
    def profiled(self) -> int:
        """Steps that the profiler watches."""
        return 0 if not self.profile else 1 if self.volumes else PROFILED
