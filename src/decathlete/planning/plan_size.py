"""The part of a plan that a compute budget may change, and smaller forms of it: batch, width and patch.

Fields that the user set stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from decathlete.planning.architectures import architecture_of
from decathlete.planning.compute_budget import ComputeBudget, step_seconds
from decathlete.planning.network_spec import NetworkSpec
from decathlete.planning.plan import Plan
from decathlete.planning.topology import Topology, shorten, shrink

TRAINING_SHARE = 0.8
"""Share of the time budget for training steps; the rest is validation, reading and writing."""

FEW_STEPS = 1000
"""Number of steps below which smaller batches learn faster. On the hippocampus in 2D (fold 1, two seeds, equal time),
120 steps of 32 slices reached Dice 0.34 and 0.29 (one of two classes not learned), 480 steps of 8 reached 0.84."""
NARROW_FEATURES, THIN_FEATURES, NARROWEST_FEATURES = 16, 8, 8
"""Channels at full resolution: of a narrow network, of one that is narrower at full resolution alone, and of the
narrowest. Full resolution costs most and matters least: on the hippocampus (fold 1, two threads, two minutes) a U-Net
with 8, 32, 64, 128 channels reached Dice 0.860, one with 16, 32, 64, 128 channels 0.841."""
BATCH_VOXELS = 180_000
"""Voxels of a small batch."""
BATCH_RANGE: dict[int, tuple[int, int]] = {2: (8, 32), 3: (2, 8)}
"""Smallest and largest small batch."""
SMALLEST_PATCH: dict[int, int] = {2: 64**2, 3: 20_000}
"""Voxels of the smallest patch."""


@dataclass(frozen=True, kw_only=True)
class PlanSize:
    """The part of a plan that a budget may change."""

    topology: Topology
    network: NetworkSpec
    batch_size: int

    @classmethod
    def of(cls, plan: Plan) -> PlanSize:
        """Return the size of a plan."""
        topology = architecture_of(plan.network).topology(plan.patch_size)
        return cls(topology=topology, network=plan.network, batch_size=plan.batch_size)

    def step_seconds(self, budget: ComputeBudget) -> float:
        """Return the estimated time of a training step, s."""
        return step_seconds(self.network, self.topology.patch_size, self.batch_size, budget=budget)

    def steps(self, budget: ComputeBudget) -> int:
        """Return the estimated number of training steps that fit into the time of a budget with a time limit."""
        assert budget.max_time_s is not None
        return int(TRAINING_SHARE * budget.max_time_s / self.step_seconds(budget))


def is_set(plan: Plan, field: str) -> bool:
    """Return whether the user set a field, or the field that it belongs to."""
    return field in plan.user_set or field.partition(".")[0] in plan.user_set


def network_is_set(plan: Plan) -> bool:
    """Return whether the user set the network, or a part of it that depends on the topology."""
    fields = architecture_of(plan.network).topology_fields
    return any(is_set(plan, name) for name in ("network", *(f"network.{field}" for field in fields)))


def limit_batch(plan: Plan, size: PlanSize) -> PlanSize:
    """Limit the batch to one of about :data:`BATCH_VOXELS`."""
    if is_set(plan, "batch_size"):
        return size
    low, high = BATCH_RANGE[plan.dims]
    small = min(max(BATCH_VOXELS // math.prod(plan.patch_size), low), high)
    return replace(size, batch_size=min(size.batch_size, small))


def halve_batch(plan: Plan, size: PlanSize, budget: ComputeBudget) -> PlanSize:
    """Halve the batch until enough steps fit (:data:`FEW_STEPS`) or it is the smallest."""
    low, _ = BATCH_RANGE[plan.dims]
    while not is_set(plan, "batch_size") and size.steps(budget) < FEW_STEPS and size.batch_size > low:
        size = replace(size, batch_size=max(size.batch_size // 2, low))
    return size


def narrow_network(plan: Plan, size: PlanSize, width: int) -> PlanSize:
    """Reduce the network to ``width`` channels at full resolution; an architecture without such a form stays."""
    architecture = architecture_of(size.network)
    if architecture.width <= width or network_is_set(plan):
        return size
    return replace(size, network=architecture.with_width(width) or size.network)


def narrow_full_resolution(plan: Plan, size: PlanSize, budget: ComputeBudget) -> PlanSize:
    """Narrow full resolution alone, if that saves time: in bf16, 16 channels are nearly as fast as 8."""
    architecture = architecture_of(size.network)
    saves_little = budget.device == "cpu" and budget.arithmetic != "fp32"
    if saves_little or architecture.width <= THIN_FEATURES or network_is_set(plan):
        return size
    return replace(size, network=architecture.with_width(THIN_FEATURES, finest_only=True) or size.network)


def iterate_smaller_patches(plan: Plan, size: PlanSize) -> Iterator[PlanSize]:
    """Yield ``size`` and smaller patches of it, shortened along the axis that is longest in mm.

    nnU-Net shortens the axis that covers most of the image. With thick slices that soon leaves few of them: five of
    ACDC's ten, of 112 x 96 voxels. In the same time patches of 10 x 64 x 64 reached Dice 0.66 and 0.58 (two seeds),
    those 0.36 and 0.32.
    """
    yield size
    while smaller := _shrink_patch(plan, size):
        if math.prod(smaller.topology.patch_size) < SMALLEST_PATCH[plan.dims]:
            return
        size = smaller
        yield size


def _shrink_patch(plan: Plan, size: PlanSize) -> PlanSize | None:
    if is_set(plan, "patch_size"):
        return None
    voxels_per_mm = [1 / gap for gap in plan.network_spacing]
    if is_set(plan, "network"):  # its weights are trained for its strides
        shorter = shorten(size.topology, voxels_per_mm, divisor=size.network.divisor)
        return None if shorter is None else replace(size, topology=shorter)
    if network_is_set(plan):
        return None
    pooling = architecture_of(plan.network).pooling(None)
    smaller = shrink(plan.network_spacing, size.topology, voxels_per_mm, pooling=pooling)
    if smaller is None:
        return None
    return replace(size, topology=smaller, network=architecture_of(size.network).replanned(smaller))
