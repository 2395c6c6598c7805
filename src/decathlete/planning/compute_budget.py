"""The machine and the time that training has, and the estimated time of a training step on it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

from decathlete.errors import OptionError
from decathlete.planning.architectures import architecture_of
from decathlete.planning.network_spec import NetworkSpec

Device = Literal["cpu", "cuda", "mps"]

Arithmetic = Literal["fp32", "bf16", "bf16_tiles"]
"""How a CPU computes convolutions: in float32, or in bfloat16, in vectors (AVX512-BF16) or in tiles (AMX)."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Speed of training.

    Attributes:
        gflops: GFLOP per second in convolutions.
        elements: feature map elements that norms, activations and copies process, millions per second.
    """

    gflops: float
    elements: float


CPU_SPEED: dict[Arithmetic, Speed] = {
    "fp32": Speed(gflops=80, elements=55),
    "bf16": Speed(gflops=160, elements=80),
    "bf16_tiles": Speed(gflops=1000, elements=55),
}
"""Speed of one thread. Fitted to measured training steps of 3D U-Nets on server CPUs, with 20 to 30 % in reserve."""
GPU_SPEED: dict[Device, Speed] = {
    "cuda": Speed(gflops=20_000, elements=7_200),
    "mps": Speed(gflops=1_000, elements=360),
}
TRAINING_PASSES = 3
"""Cost of a training step in forward passes: forward, and twice that backward (inputs and weights)."""
MOST_THREADS = 32
"""Number of threads beyond which small convolutions are not faster."""


def usable_threads() -> int:
    """Return the number of processors that this process may use, at most :data:`MOST_THREADS`."""
    affinity = getattr(os, "sched_getaffinity", None)
    return min(len(affinity(0)) if affinity else os.cpu_count() or 1, MOST_THREADS)


@dataclass(frozen=True, kw_only=True)
class ComputeBudget:
    """The machine and the time that training has.

    Attributes:
        max_time_s: time for all of training, validation included, seconds; ``None``: no limit.
        threads: threads of the CPU; default: all that this process may use.
        arithmetic: number format of a CPU's convolutions.
        gflops: GFLOP per second that the machine sustains in convolutions; ``None``: estimated from device, threads and
            arithmetic.
        steps: number of optimizer steps, if training is limited by steps and not by time.
        processes: number of processes that train together, each with a batch of its own.
    """

    device: Device
    max_time_s: float | None = None
    threads: int = field(default_factory=usable_threads)
    arithmetic: Arithmetic = "fp32"
    gflops: float | None = None
    steps: int | None = None
    processes: int = 1

    def __post_init__(self) -> None:
        if self.max_time_s is not None and not self.max_time_s > 0:
            raise OptionError(f"--max-time must be positive, it is {self.max_time_s:g} s", remedy="use a longer time")
        if self.threads < 1 or (self.gflops is not None and not self.gflops > 0):
            raise OptionError(
                f"a budget needs at least 1 thread and a positive speed: {self}", remedy="use positive numbers"
            )

    @property
    def speed(self) -> Speed:
        """Speed of the machine."""
        if self.device == "cpu":
            one = CPU_SPEED[self.arithmetic]
            known = Speed(gflops=self.threads * one.gflops, elements=self.threads * one.elements)
        else:
            known = GPU_SPEED[self.device]
        if self.gflops is None:
            return known
        return Speed(gflops=self.gflops, elements=known.elements * self.gflops / known.gflops)


def step_seconds(network: NetworkSpec, patch_size: tuple[int, ...], batch_size: int, *, budget: ComputeBudget) -> float:
    """Estimate the time of one training step: convolutions by their FLOPs, the rest by the size of feature maps."""
    architecture = architecture_of(network)
    flops = 2 * TRAINING_PASSES * architecture.multiply_adds(patch_size)
    elements = architecture.feature_map_elements(patch_size)
    speed = budget.speed
    return batch_size * (flops / (1e9 * speed.gflops) + elements / (1e6 * speed.elements))


def describe_budget(budget: ComputeBudget) -> str:
    """Return the machine, and the time if it is limited, in words."""
    if budget.max_time_s is None:
        return describe_machine(budget)
    return f"{describe_time(budget.max_time_s)} on {describe_machine(budget)}"


def describe_machine(budget: ComputeBudget) -> str:
    """Return the machine in words."""
    if budget.device == "cpu":
        return f"a CPU with {budget.threads} thread{'s' if budget.threads > 1 else ''}"
    return "a GPU"


def describe_time(seconds: float) -> str:
    """Return a time in minutes, hours or days."""
    if seconds < 2 * 3600:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h" if seconds < 2 * 86400 else f"{seconds / 86400:.3g} days"
