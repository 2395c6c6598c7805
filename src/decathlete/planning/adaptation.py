"""Adapt a plan to a CPU or to a short training time: a step of its own, after planning, with its reasons.

A plan is sized for a GPU's memory. If time is limited, many small steps train better than a few large ones. So the
batch is made smaller first, then the network narrower (most of all at full resolution, where most time is spent), then
the patch smaller, as long as more steps gain more than a smaller view loses
(:mod:`decathlete.planning.learning_curve`). With few cases not all steps are counted, so
that the patch stays larger.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from decathlete.planning.architectures import architecture_of
from decathlete.planning.compute_budget import (
    ComputeBudget,
    describe_budget,
    describe_machine,
    describe_time,
    step_seconds,
)
from decathlete.planning.grid import Spacing
from decathlete.planning.learning_curve import coverage, learned_share, useful_steps
from decathlete.planning.network_spec import NetworkSpec
from decathlete.planning.plan import Plan
from decathlete.planning.topology import Topology, make_topology, shorten, shrink

logger = logging.getLogger(__name__)

TRAINING_SHARE = 0.8
"""Share of the time budget for training steps; the rest is validation, reading and writing."""

MIRRORING_STEPS = 10_000
"""Number of training steps below which mirroring is left out: a network that sees a shape in 4 or 8 orientations needs
several times the steps to learn it. On the hippocampus (fold 1) Dice was 0.845 after 160 steps without mirroring; with
it 0.74 after as many, 0.84 after 1,000."""
OFTEN_SEEN = 80
"""How often each voxel is seen in a training that is planned against overfitting, if there are few cases. On STS_PETCT
(9 cases) mirroring helped when voxels were seen 100 and 160 times, and did harm when they were seen 50 times
(docs/explanation/recipe-search.md, "Twenty minutes on seven cases")."""
COMFORTABLE_STEPS = 4000
"""Number of steps that are enough: with so many in the budget the plan stays as it is."""
FEW_STEPS = 1000
"""Number of steps below which smaller batches learn faster. On the hippocampus in 2D (fold 1, two seeds, equal time),
120 steps of 32 slices reached Dice 0.34 and 0.29 (one of two classes not learned), 480 steps of 8 reached 0.84."""
FEWEST_STEPS = 300
"""Number of steps below which the network becomes narrower."""
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
_GRID = ("target_spacing", "median_shape", "coarse_start")
"""Fields of a plan that differ between its own grid and that of its coarse start."""
_WIDTH = "network.features"
"""Field whose reason is about the width of the network."""


@dataclass(frozen=True, kw_only=True)
class _Size:
    """The part of a plan that the budget may change."""

    topology: Topology
    network: NetworkSpec
    batch_size: int


def adapt_plan(plan: Plan, budget: ComputeBudget, *, n_cases: int | None = None, warn: bool = True) -> Plan:
    """Return ``plan``, adapted to the budget if it is too expensive.

    A GPU without a time limit changes nothing. A CPU without one gets the small batch and the narrow network. With a
    limit, the first of these is chosen that lets enough steps fit (:data:`COMFORTABLE_STEPS`, fewer if there are few
    cases): the plan as it is; a smaller batch; also a network with 16 channels at full resolution. If none does, the
    batch is the smallest, the network has (except in bf16) 8 channels at full resolution, and the patch is the one with
    the best :func:`~decathlete.planning.learning_curve.learned_share`. If that still leaves too few steps, the network
    is half as wide. An architecture that cannot be narrowed keeps its width.

    With few steps, training does not mirror (:data:`MIRRORING_STEPS`), unless there are few cases, each seen often
    (:data:`OFTEN_SEEN`).

    Fields in ``plan.user_set`` stay as they are. If the whole network is among them (that of a trained model), the
    patch becomes smaller by multiples of its strides. A plan with a coarse start is adapted on its coarse grid.

    Args:
        n_cases: number of cases of the dataset, held-out ones among them; ``None``: many.
        warn: log a warning if only a few steps fit.
    """
    if plan.coarse_start is not None:
        adapted = adapt_plan(plan.on_coarse_grid(), budget, n_cases=n_cases, warn=warn)
        adapted = move_to_grid(adapted, plan.target_spacing)
        reasons = {field: plan.reasons[field] for field in _GRID if field in plan.reasons}
        own = {field: getattr(plan, field) for field in _GRID}
        return adapted.revised(**own, reasons=adapted.reasons | reasons)
    return _without_mirroring(_adapt_size(plan, budget, n_cases=n_cases, warn=warn), budget, n_cases)


def move_to_grid(plan: Plan, spacing: Spacing) -> Plan:
    """Return ``plan`` on another grid (mm, working order): with its patch and batch, and a network for that grid.

    The order in which the network pools and the axes of its kernels follow the voxels' shape; its width stays. A
    network that the user set stays as it is. The reason for the width stays, too, with what an adaptation to a budget
    added to it.
    """
    moved = plan.at_spacing(spacing)
    if _network_is_set(plan):
        return moved
    architecture = architecture_of(plan.network)
    topology = make_topology(moved.network_spacing, plan.patch_size, pooling=architecture.pooling(None))
    network = architecture.replanned(topology)
    after = architecture_of(network)
    fresh = {field: why for field, why in after.reasons(topology.patch_size).items() if not _is_set(plan, field)}
    if after.width == architecture.width and _WIDTH in moved.reasons:
        fresh[_WIDTH] = moved.reasons[_WIDTH]
    return moved.revised(patch_size=topology.patch_size, network=network, reasons=moved.reasons | fresh)


def _without_mirroring(plan: Plan, budget: ComputeBudget, n_cases: int | None) -> Plan:
    steps = budget.steps
    if budget.max_time_s is not None:
        steps = training_steps(plan, budget)
    if steps is None or steps >= MIRRORING_STEPS or _is_set(plan, "mirror_axes"):
        return plan
    if _may_overfit(plan, _size_of(plan), steps, budget, n_cases):
        return plan
    why = f"left out: about {steps} steps are too few to learn each shape in all its mirror images"
    return plan.revised(mirror_axes=(), reasons=plan.reasons | {"mirror_axes": why})


def training_steps(plan: Plan, budget: ComputeBudget) -> int:
    """Return the estimated number of training steps that fit into the time of a budget with a time limit."""
    return _steps(_size_of(plan), budget)


def steps_after_adaptation(plan: Plan, budget: ComputeBudget, *, n_cases: int | None = None) -> int:
    """Return the estimated number of training steps in a time limit, once ``plan`` is adapted to it."""
    plan = plan.on_coarse_grid()
    return _steps(_choose(plan, _size_of(plan), budget, n_cases), budget)


def _adapt_size(plan: Plan, budget: ComputeBudget, *, n_cases: int | None, warn: bool) -> Plan:
    if budget.max_time_s is None and budget.device != "cpu":
        return plan
    planned = _size_of(plan)
    chosen = _choose(plan, planned, budget, n_cases)
    if warn and budget.max_time_s is not None and _steps(chosen, budget) < FEWEST_STEPS:
        logger.warning(
            "only about %d training steps fit into %s", _steps(chosen, budget), describe_time(budget.max_time_s)
        )
    if chosen == planned:
        return plan
    return _apply_size(plan, planned, chosen, budget, counted=_counted_steps(plan, chosen, budget, n_cases))


def _size_of(plan: Plan) -> _Size:
    topology = architecture_of(plan.network).topology(plan.patch_size)
    return _Size(topology=topology, network=plan.network, batch_size=plan.batch_size)


def _choose(plan: Plan, planned: _Size, budget: ComputeBudget, n_cases: int | None) -> _Size:
    small, narrow = _small(plan, planned), _narrow(plan, _small(plan, planned), NARROW_FEATURES)
    if budget.max_time_s is None:
        return narrow
    counted = _counted_steps(plan, narrow, budget, n_cases)
    for size in (planned, small, narrow):
        if _steps(size, budget) >= min(counted, COMFORTABLE_STEPS):
            return size
    sizes = list(_shrinking(plan, _smaller_batch(plan, narrow, budget)))
    thin = [_narrow_finest(plan, size, budget) for size in sizes]
    best = max(range(len(sizes)), key=lambda index: _learned_share(plan, thin[index], budget, counted))
    if _steps(thin[best], budget) >= FEWEST_STEPS:
        return thin[best]
    return _narrow(plan, sizes[best], NARROWEST_FEATURES)


def _counted_steps(plan: Plan, size: _Size, budget: ComputeBudget, n_cases: int | None) -> float:
    """Return the number of steps up to which more are better: infinite, unless the training may overfit."""
    if n_cases is None or budget.max_time_s is None:
        return math.inf
    if not _may_overfit(plan, size, _steps(size, budget), budget, n_cases):
        return math.inf
    return _useful_steps(plan, size, budget, n_cases)


def _may_overfit(plan: Plan, size: _Size, steps: int, budget: ComputeBudget, n_cases: int | None) -> bool:
    """Return whether there are few cases and each of their voxels is seen often.

    That hardly depends on the patch: in the same time, twice as many patches of half the voxels are seen.
    """
    if n_cases is None or _useful_steps(plan, size, budget, n_cases) >= COMFORTABLE_STEPS:
        return False
    share = coverage(size.topology.patch_size, plan.median_shape[3 - plan.dims :]) ** plan.dims
    n_patches = steps * size.batch_size * budget.processes
    return n_patches * share >= OFTEN_SEEN * _n_images(plan, n_cases)


def _useful_steps(plan: Plan, size: _Size, budget: ComputeBudget, n_cases: int) -> int:
    return useful_steps(n_images=_n_images(plan, n_cases), batch_size=size.batch_size * budget.processes)


def _n_images(plan: Plan, n_cases: int) -> int:
    """Return the number of images of which patches are cut: in 2D, each slice is one."""
    return n_cases * (plan.median_shape[0] if plan.dims == 2 else 1)


def _learned_share(plan: Plan, size: _Size, budget: ComputeBudget, counted: float) -> float:
    covered = coverage(size.topology.patch_size, plan.median_shape[3 - plan.dims :])
    return learned_share(steps=min(_steps(size, budget), counted), coverage=covered)


def _is_set(plan: Plan, field: str) -> bool:
    """Return whether the user set a field, or the field that it belongs to."""
    return field in plan.user_set or field.partition(".")[0] in plan.user_set


def _network_is_set(plan: Plan) -> bool:
    """Return whether the user set the network, or a part of it that depends on the topology."""
    fields = architecture_of(plan.network).topology_fields
    return any(_is_set(plan, name) for name in ("network", *(f"network.{field}" for field in fields)))


def _small(plan: Plan, size: _Size) -> _Size:
    if _is_set(plan, "batch_size"):
        return size
    return replace(size, batch_size=min(size.batch_size, _small_batch(plan)))


def _small_batch(plan: Plan) -> int:
    low, high = BATCH_RANGE[plan.dims]
    return min(max(BATCH_VOXELS // math.prod(plan.patch_size), low), high)


def _smaller_batch(plan: Plan, size: _Size, budget: ComputeBudget) -> _Size:
    """Halve the batch until enough steps fit or it is the smallest."""
    low, _ = BATCH_RANGE[plan.dims]
    while not _is_set(plan, "batch_size") and _steps(size, budget) < FEW_STEPS and size.batch_size > low:
        size = replace(size, batch_size=max(size.batch_size // 2, low))
    return size


def _narrow(plan: Plan, size: _Size, width: int) -> _Size:
    architecture = architecture_of(size.network)
    if architecture.width <= width or _network_is_set(plan):
        return size
    return replace(size, network=architecture.with_width(width) or size.network)


def _narrow_finest(plan: Plan, size: _Size, budget: ComputeBudget) -> _Size:
    """Narrow full resolution alone, if that saves time: in bf16, 16 channels are nearly as fast as 8."""
    architecture = architecture_of(size.network)
    saves_little = budget.device == "cpu" and budget.arithmetic != "fp32"
    if saves_little or architecture.width <= THIN_FEATURES or _network_is_set(plan):
        return size
    return replace(size, network=architecture.with_width(THIN_FEATURES, finest_only=True) or size.network)


def _shrinking(plan: Plan, size: _Size) -> Iterator[_Size]:
    """Yield ``size`` and smaller patches of it, shortened along the axis that is longest in mm.

    nnU-Net shortens the axis that covers most of the image. With thick slices that soon leaves few of them: five of
    ACDC's ten, of 112 x 96 voxels. In the same time patches of 10 x 64 x 64 reached Dice 0.66 and 0.58 (two seeds),
    those 0.36 and 0.32.
    """
    yield size
    while smaller := _with_smaller_patch(plan, size):
        if math.prod(smaller.topology.patch_size) < SMALLEST_PATCH[plan.dims]:
            return
        size = smaller
        yield size


def _with_smaller_patch(plan: Plan, size: _Size) -> _Size | None:
    if _is_set(plan, "patch_size"):
        return None
    voxels_per_mm = [1 / gap for gap in plan.network_spacing]
    if _is_set(plan, "network"):  # its weights are trained for its strides
        shorter = shorten(size.topology, voxels_per_mm, divisor=size.network.divisor)
        return None if shorter is None else replace(size, topology=shorter)
    if _network_is_set(plan):
        return None
    pooling = architecture_of(plan.network).pooling(None)
    smaller = shrink(plan.network_spacing, size.topology, voxels_per_mm, pooling=pooling)
    if smaller is None:
        return None
    return replace(size, topology=smaller, network=architecture_of(size.network).replanned(smaller))


def _seconds(size: _Size, budget: ComputeBudget) -> float:
    return step_seconds(size.network, size.topology.patch_size, size.batch_size, budget=budget)


def _steps(size: _Size, budget: ComputeBudget) -> int:
    assert budget.max_time_s is not None
    return int(TRAINING_SHARE * budget.max_time_s / _seconds(size, budget))


def _apply_size(plan: Plan, planned: _Size, chosen: _Size, budget: ComputeBudget, *, counted: float) -> Plan:
    cause = describe_budget(budget)
    before, after = architecture_of(planned.network), architecture_of(chosen.network)
    fresh = after.reasons(chosen.topology.patch_size)
    reasons = plan.reasons | {field: why for field, why in fresh.items() if not _is_set(plan, field)}

    def note(field: str, value: str) -> None:
        reasons[field] = f"{value} in the GPU plan ({plan.reasons.get(field, 'as planned')}), smaller for {cause}"

    if chosen.topology.patch_size != planned.topology.patch_size:
        note("patch_size", "×".join(map(str, planned.topology.patch_size)))
    if chosen.batch_size != planned.batch_size:
        note("batch_size", str(planned.batch_size))
    if after.width != before.width:
        why = fresh.get(_WIDTH, f"{after.width} channels at full resolution")
        reasons[_WIDTH] = f"{why}; {before.width} wide in the GPU plan, narrower for {cause}"
    reasons["budget"] = _summary(planned, chosen, budget, counted=counted)
    return plan.revised(
        patch_size=chosen.topology.patch_size, batch_size=chosen.batch_size, network=chosen.network, reasons=reasons
    )


def _summary(planned: _Size, chosen: _Size, budget: ComputeBudget, *, counted: float) -> str:
    before, after = _seconds(planned, budget), _seconds(chosen, budget)
    text = f"a training step takes an estimated {after:.2g} s instead of {before:.2g} s on {describe_machine(budget)}"
    if budget.max_time_s is not None:
        steps = (
            f"{_steps(chosen, budget)} steps in {describe_time(budget.max_time_s)} instead of {_steps(planned, budget)}"
        )
        text = f"{text}: {steps}"
        if counted < math.inf:
            text += f"; with so few cases no more than {counted} steps are counted, so that the patch is larger"
    architecture = architecture_of(planned.network)
    if architecture.width > NARROW_FEATURES and architecture.with_width(NARROW_FEATURES) is None:
        text += f"; the architecture {planned.network.architecture} cannot be narrowed"
    return text
