"""What a CPU or a short time budget changes in a plan: a step of its own, after planning, with its reasons.

A plan is sized for a GPU's memory. Where time is what runs out, many small steps teach more than a few large ones:
so first the batch is made smaller, then the network narrower (most of all at full resolution, where the time goes),
then the patch smaller, until enough steps fit.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from decathlete.errors import OptionError
from decathlete.planning.explain import is_by_hand, why_network
from decathlete.planning.memory import feature_map_elements, multiply_adds
from decathlete.planning.network_spec import NetworkSpec
from decathlete.planning.plan import Plan
from decathlete.planning.topology import TOPOLOGY_FIELDS, Topology, rebuild_network_spec, shrink

logger = logging.getLogger(__name__)

Device = Literal["cpu", "cuda", "mps"]

Arithmetic = Literal["fp32", "bf16", "bf16_tiles"]
"""How a CPU computes convolutions: in float32, or in bfloat16, in vectors (AVX512-BF16) or in tiles (AMX)."""


@dataclass(frozen=True)
class Speed:
    """Of training.

    Attributes:
        gflops: of convolutions.
        elements: of feature maps that norms, activations and copies get through, millions a second.
    """

    gflops: float
    elements: float


CPU_SPEED: dict[Arithmetic, Speed] = {
    "fp32": Speed(gflops=80, elements=55),
    "bf16": Speed(gflops=160, elements=80),
    "bf16_tiles": Speed(gflops=1000, elements=55),
}
"""Of one thread. Fitted to training steps of 3D U-Nets of four levels, patch 40 x 56 x 40, batch 2, with a fifth to
three tenths in reserve for busy neighbours (tiles: within their range): in float32 on two threads of a server CPU held
to AVX2 (16 and 32 features: 0.43 and 1.46 s a step), in bfloat16 on the same with AVX512-BF16 (0.23 and 0.76 s), and on
two threads of one with AMX (0.19 to 0.38 and 0.44 to 0.85 s, as its neighbours let it; one thread takes hardly longer).
"""
GPU_SPEED: dict[Device, Speed] = {
    "cuda": Speed(gflops=20_000, elements=7_200),
    "mps": Speed(gflops=1_000, elements=360),
}
TRAINING_PASSES = 3
"""Forward, and twice that backward (gradients of inputs and of weights)."""
TRAINING_SHARE = 0.8
"""Of the time budget; the rest is validation, reading and writing."""

MIRRORING_STEPS = 10_000
"""With fewer steps training does not mirror. A network that sees a shape in 4 or 8 orientations needs several times the
steps to learn it, and cannot tell parts by their side (front from back of the hippocampus). There, fold 1: Dice 0.845
after 160 steps of batch 2 without mirroring; with it 0.74 after as many, 0.84 after 1,000."""
COMFORTABLE_STEPS = 4000
"""With so many steps in the budget nothing is traded for more of them."""
NARROW_FEATURES, THIN_FEATURES, NARROWEST_FEATURES = 16, 8, 8
"""Of the first stage: with all stages halved, with the first halved again, with all a quarter as wide.

Full resolution costs most and learns least: on the hippocampus (fold 1, two threads, a little over two minutes) 8, 32,
64, 128 features reached Dice 0.860, 16, 32, 64, 128 features 0.841.
"""
BATCH_VOXELS = 180_000
BATCH_RANGE: dict[int, tuple[int, int]] = {2: (8, 32), 3: (2, 8)}
SMALLEST_PATCH: dict[int, int] = {2: 64**2, 3: 32**3}
"""Voxels under which no patch is shrunk for time's sake."""
NETWORK_BY_HAND = ("network", *(f"network.{name}" for name in TOPOLOGY_FIELDS if name != "heads"))
"""With any of these set by the user the network is not made anew."""


MOST_THREADS = 32
"""More threads than this make small convolutions no faster."""


def usable_threads() -> int:
    """Processors that this process may run on, at most :data:`MOST_THREADS`."""
    affinity = getattr(os, "sched_getaffinity", None)
    return min(len(affinity(0)) if affinity else os.cpu_count() or 1, MOST_THREADS)


@dataclass(frozen=True, kw_only=True)
class ComputeBudget:
    """What training may cost.

    Attributes:
        max_time_s: for all of training, validation included, seconds; ``None``: no limit.
        threads: of the CPU; all that this process may use unless given.
        arithmetic: of a CPU.
        gflops: sustained by the machine on convolutions; ``None``: an estimate by device, threads and arithmetic.
        min_steps: optimizer steps that must fit; the patch shrinks until they do.
        steps: that training will make, where steps, not time, are what is given.
    """

    device: Device
    max_time_s: float | None = None
    threads: int = field(default_factory=usable_threads)
    arithmetic: Arithmetic = "fp32"
    gflops: float | None = None
    min_steps: int = 300
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.max_time_s is not None and not self.max_time_s > 0:
            raise OptionError(
                f"--max-time of {self.max_time_s:g} s leaves no time to train", remedy="give a longer one"
            )
        if self.threads < 1 or self.min_steps < 1 or (self.gflops is not None and not self.gflops > 0):
            raise OptionError(
                f"a budget needs at least 1 thread, 1 step and a positive speed: {self}", remedy="give positive numbers"
            )

    @property
    def speed(self) -> Speed:
        """Of the machine."""
        if self.device == "cpu":
            one = CPU_SPEED[self.arithmetic]
            known = Speed(self.threads * one.gflops, self.threads * one.elements)
        else:
            known = GPU_SPEED[self.device]
        if self.gflops is None:
            return known
        return Speed(self.gflops, known.elements * self.gflops / known.gflops)


@dataclass(frozen=True, kw_only=True)
class _Size:
    """What the budget may change."""

    topology: Topology
    network: NetworkSpec
    batch_size: int


def step_seconds(network: NetworkSpec, patch_size: tuple[int, ...], batch_size: int, *, budget: ComputeBudget) -> float:
    """Estimated time of one training step: convolutions by their FLOPs, all else by the feature maps' size."""
    flops = 2 * TRAINING_PASSES * multiply_adds(network, patch_size)
    elements = feature_map_elements(network, patch_size)
    speed = budget.speed
    return batch_size * (flops / (1e9 * speed.gflops) + elements / (1e6 * speed.elements))


def adapt_plan(plan: Plan, budget: ComputeBudget) -> Plan:
    """``plan`` made affordable; the plan itself where it already is.

    A GPU without a time limit changes nothing. A CPU without one gets the small batch and the narrow network. With a
    limit, the first of these wins that lets enough steps fit: the plan as it is; a smaller batch; also a network 16
    features wide at full resolution; also, but in bf16, that stage 8 wide alone; also a smaller patch; all of the
    network half as wide again.

    With few steps, training does not mirror (:data:`MIRRORING_STEPS`).

    What the user set (:func:`~decathlete.planning.overrides.override`) stays: a patch size or a network set by hand
    is neither shrunk nor narrowed, a batch size neither.
    """
    return _without_mirroring(_fit_size(plan, budget), budget)


def _without_mirroring(plan: Plan, budget: ComputeBudget) -> Plan:
    steps = budget.steps
    if budget.max_time_s is not None:
        steps = _steps(_size_of(plan), budget)
    if steps is None or steps >= MIRRORING_STEPS or _by_hand(plan, "mirror_axes"):
        return plan
    why = f"about {steps} steps are too few to learn each shape in all its mirror images: left out"
    return plan.revised(mirror_axes=(), reasons=plan.reasons | {"mirror_axes": why})


def _fit_size(plan: Plan, budget: ComputeBudget) -> Plan:
    if budget.max_time_s is None and budget.device != "cpu":
        return plan
    planned = _size_of(plan)
    chosen = _choose(plan, planned, budget)
    return plan if chosen == planned else _revised(plan, planned, chosen, budget)


def _size_of(plan: Plan) -> _Size:
    return _Size(
        topology=Topology(patch_size=plan.patch_size, strides=plan.network.strides, kernels=plan.network.kernels),
        network=plan.network,
        batch_size=plan.batch_size,
    )


def _choose(plan: Plan, planned: _Size, budget: ComputeBudget) -> _Size:
    small, narrow = _small(plan, planned), _narrowed(plan, _small(plan, planned), NARROW_FEATURES)
    if budget.max_time_s is None:
        return narrow
    for size in (planned, small, narrow):
        if _steps(size, budget) >= COMFORTABLE_STEPS:
            return size
    smallest = narrow
    for size in _shrinking(plan, narrow):
        thin = _thinned(plan, size, budget)
        if _steps(thin, budget) >= budget.min_steps:
            return thin
        smallest = size
    last = _narrowed(plan, smallest, NARROWEST_FEATURES)
    if _steps(last, budget) < budget.min_steps:
        logger.warning("only about %d training steps fit into %s", _steps(last, budget), _time(budget.max_time_s))
    return last


def _by_hand(plan: Plan, *fields: str) -> bool:
    return any(is_by_hand(plan.reasons, name) for name in fields)


def _small(plan: Plan, size: _Size) -> _Size:
    if _by_hand(plan, "batch_size"):
        return size
    return replace(size, batch_size=min(size.batch_size, _small_batch(plan)))


def _small_batch(plan: Plan) -> int:
    low, high = BATCH_RANGE[plan.dims]
    return min(max(BATCH_VOXELS // math.prod(plan.patch_size), low), high)


def _narrowed(plan: Plan, size: _Size, features: int) -> _Size:
    if size.network.features[0] <= features or _by_hand(plan, *NETWORK_BY_HAND):
        return size
    return replace(size, network=rebuild_network_spec(size.network, size.topology, base_features=features))


def _thinned(plan: Plan, size: _Size, budget: ComputeBudget) -> _Size:
    """The first stage alone narrower, where that saves time: bf16 computes 16 channels nearly as fast as 8."""
    features = size.network.features
    saves_little = budget.device == "cpu" and budget.arithmetic != "fp32"
    if saves_little or features[0] <= THIN_FEATURES or _by_hand(plan, *NETWORK_BY_HAND):
        return size
    return replace(size, network=size.network.revised(features=(THIN_FEATURES, *features[1:])))


def _shrinking(plan: Plan, size: _Size) -> Iterator[_Size]:
    """``size`` and ever smaller patches of it, shortened where they are longest in mm.

    nnU-Net shortens the axis that covers most of the image. Of thick slices that soon leaves few: of ACDC's ten, five
    of 112 x 96 voxels. In the same time patches of 10 x 64 x 64 reached Dice 0.66 and 0.58 (two seeds), those 0.36 and
    0.32.
    """
    yield size
    if _by_hand(plan, "patch_size", *NETWORK_BY_HAND):
        return
    voxels_per_mm = [1 / gap for gap in plan.network_spacing]
    while smaller := shrink(plan.network_spacing, size.topology, voxels_per_mm):
        if math.prod(smaller.patch_size) < SMALLEST_PATCH[plan.dims]:
            return
        size = replace(size, topology=smaller, network=rebuild_network_spec(size.network, smaller))
        yield size


def _seconds(size: _Size, budget: ComputeBudget) -> float:
    return step_seconds(size.network, size.topology.patch_size, size.batch_size, budget=budget)


def _steps(size: _Size, budget: ComputeBudget) -> int:
    assert budget.max_time_s is not None
    return int(TRAINING_SHARE * budget.max_time_s / _seconds(size, budget))


def _revised(plan: Plan, planned: _Size, chosen: _Size, budget: ComputeBudget) -> Plan:
    cause = _cause(budget)
    fresh = why_network(chosen.network, chosen.topology.patch_size)
    reasons = plan.reasons | {key: why for key, why in fresh.items() if not _by_hand(plan, key)}

    def note(key: str, before: str) -> None:
        reasons[key] = f"{before} by the GPU plan ({plan.reasons.get(key, 'as planned')}), smaller for {cause}"

    if chosen.topology.patch_size != planned.topology.patch_size:
        note("patch_size", "×".join(map(str, planned.topology.patch_size)))
    if chosen.batch_size != planned.batch_size:
        note("batch_size", str(planned.batch_size))
    if chosen.network.features[0] != planned.network.features[0]:
        now = fresh["network.features"]
        reasons["network.features"] = f"{now}; {planned.network.features[0]} wide by the GPU plan, narrower for {cause}"
    reasons["budget"] = _summary(planned, chosen, budget)
    return plan.revised(
        patch_size=chosen.topology.patch_size,
        batch_size=chosen.batch_size,
        network=chosen.network.model_dump(),
        reasons=reasons,
    )


def _summary(planned: _Size, chosen: _Size, budget: ComputeBudget) -> str:
    before, after = _seconds(planned, budget), _seconds(chosen, budget)
    text = f"a training step takes an estimated {after:.2g} s instead of {before:.2g} s on {_machine(budget)}"
    if budget.max_time_s is None:
        return text
    return f"{text}: {_steps(chosen, budget)} steps in {_time(budget.max_time_s)} instead of {_steps(planned, budget)}"


def _cause(budget: ComputeBudget) -> str:
    if budget.max_time_s is None:
        return _machine(budget)
    return f"{_time(budget.max_time_s)} on {_machine(budget)}"


def _machine(budget: ComputeBudget) -> str:
    if budget.device == "cpu":
        return f"a CPU with {budget.threads} thread{'s' if budget.threads > 1 else ''}"
    return "a GPU"


def _time(seconds: float) -> str:
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
