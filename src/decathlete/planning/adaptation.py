"""Adapt a plan to a CPU or to a short training time: a step of its own, after planning, with its reasons.

A plan is sized for a GPU's memory. If time is limited, many small steps train better than a few large ones. So the
batch is made smaller first, then the network narrower (most of all at full resolution, where most time is spent), then
the patch smaller, as long as more steps gain more than a smaller view loses
(:mod:`decathlete.planning.learning_curve`). With few cases not all steps are counted, so that the patch stays larger
(:mod:`decathlete.planning.few_cases`).
"""

from __future__ import annotations

import logging
import math

from decathlete.planning.architectures import architecture_of
from decathlete.planning.compute_budget import ComputeBudget, describe_budget, describe_machine, describe_time
from decathlete.planning.few_cases import counted_steps, may_overfit
from decathlete.planning.grid import Spacing
from decathlete.planning.learning_curve import COMFORTABLE_STEPS, coverage, learned_share
from decathlete.planning.plan import Plan
from decathlete.planning.plan_size import (
    NARROW_FEATURES,
    NARROWEST_FEATURES,
    PlanSize,
    halve_batch,
    is_set,
    iterate_smaller_patches,
    limit_batch,
    narrow_full_resolution,
    narrow_network,
    network_is_set,
)
from decathlete.planning.topology import make_topology

logger = logging.getLogger(__name__)

MIRRORING_STEPS = 10_000
"""Number of training steps below which mirroring is left out: a network that sees a shape in 4 or 8 orientations needs
several times the steps to learn it. On the hippocampus (fold 1) Dice was 0.845 after 160 steps without mirroring; with
it 0.74 after as many, 0.84 after 1,000."""
FEWEST_STEPS = 300
"""Number of steps below which the network becomes narrower."""
_GRID = ("target_spacing", "median_shape", "coarse_start")
"""Fields of a plan that differ between its own grid and that of its coarse start."""
_WIDTH = "network.features"
"""Field whose reason is about the width of the network."""


def adapt_plan(plan: Plan, budget: ComputeBudget, *, n_cases: int | None = None, warn: bool = True) -> Plan:
    """Return ``plan``, adapted to the budget if it is too expensive.

    A GPU without a time limit changes nothing. A CPU without one gets the small batch and the narrow network. With a
    limit, the first of these is chosen that lets enough steps fit
    (:data:`~decathlete.planning.learning_curve.COMFORTABLE_STEPS`, fewer if there are few cases): the plan
    as it is; a smaller batch; also a network with 16 channels at full resolution. If none does, the batch is the
    smallest, the network has (except in bf16) 8 channels at full resolution, and the patch is the one with the best
    :func:`~decathlete.planning.learning_curve.learned_share`. If that still leaves too few steps, the network is half
    as wide. An architecture that cannot be narrowed keeps its width.

    With few steps, training does not mirror (:data:`MIRRORING_STEPS`), unless there are few cases, each seen often
    (:func:`~decathlete.planning.few_cases.may_overfit`).

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
    if network_is_set(plan):
        return moved
    architecture = architecture_of(plan.network)
    topology = make_topology(moved.network_spacing, plan.patch_size, pooling=architecture.pooling(None))
    network = architecture.replanned(topology)
    after = architecture_of(network)
    fresh = {field: why for field, why in after.reasons(topology.patch_size).items() if not is_set(plan, field)}
    if after.width == architecture.width and _WIDTH in moved.reasons:
        fresh[_WIDTH] = moved.reasons[_WIDTH]
    return moved.revised(patch_size=topology.patch_size, network=network, reasons=moved.reasons | fresh)


def _without_mirroring(plan: Plan, budget: ComputeBudget, n_cases: int | None) -> Plan:
    steps = budget.steps
    if budget.max_time_s is not None:
        steps = training_steps(plan, budget)
    if steps is None or steps >= MIRRORING_STEPS or is_set(plan, "mirror_axes"):
        return plan
    size = PlanSize.of(plan)
    if n_cases is not None and may_overfit(
        steps=steps,
        batch_size=size.batch_size * budget.processes,
        patch_share=_patch_share(plan, size),
        n_images=_n_images(plan, n_cases),
    ):
        return plan
    why = f"left out: about {steps} steps are too few to learn each shape in all its mirror images"
    return plan.revised(mirror_axes=(), reasons=plan.reasons | {"mirror_axes": why})


def training_steps(plan: Plan, budget: ComputeBudget) -> int:
    """Return the estimated number of training steps that fit into the time of a budget with a time limit."""
    return PlanSize.of(plan).steps(budget)


def steps_after_adaptation(plan: Plan, budget: ComputeBudget, *, n_cases: int | None = None) -> int:
    """Return the estimated number of training steps in a time limit, once ``plan`` is adapted to it."""
    plan = plan.on_coarse_grid()
    return _choose(plan, PlanSize.of(plan), budget, n_cases).steps(budget)


def _adapt_size(plan: Plan, budget: ComputeBudget, *, n_cases: int | None, warn: bool) -> Plan:
    if budget.max_time_s is None and budget.device != "cpu":
        return plan
    planned = PlanSize.of(plan)
    chosen = _choose(plan, planned, budget, n_cases)
    if warn and budget.max_time_s is not None and chosen.steps(budget) < FEWEST_STEPS:
        logger.warning(
            "only about %d training steps fit into %s", chosen.steps(budget), describe_time(budget.max_time_s)
        )
    if chosen == planned:
        return plan
    with_many_cases = _choose(plan, planned, budget, None)
    return _apply_size(plan, planned, chosen, budget, with_many_cases=with_many_cases)


def _choose(plan: Plan, planned: PlanSize, budget: ComputeBudget, n_cases: int | None) -> PlanSize:
    small = limit_batch(plan, planned)
    narrow = narrow_network(plan, small, NARROW_FEATURES)
    if budget.max_time_s is None:
        return narrow
    counted = _counted_steps(plan, narrow, budget, n_cases)
    for size in (planned, small, narrow):
        if size.steps(budget) >= min(counted, COMFORTABLE_STEPS):
            return size
    sizes = list(iterate_smaller_patches(plan, halve_batch(plan, narrow, budget)))
    thin = [narrow_full_resolution(plan, size, budget) for size in sizes]
    best = max(range(len(sizes)), key=lambda index: _learned_share(plan, thin[index], budget, counted))
    if thin[best].steps(budget) >= FEWEST_STEPS:
        return thin[best]
    return narrow_network(plan, sizes[best], NARROWEST_FEATURES)


def _counted_steps(plan: Plan, size: PlanSize, budget: ComputeBudget, n_cases: int | None) -> float:
    """Return the number of steps up to which more are better; infinite without a time limit or with many cases."""
    if n_cases is None or budget.max_time_s is None:
        return math.inf
    return counted_steps(
        steps=size.steps(budget),
        batch_size=size.batch_size * budget.processes,
        patch_share=_patch_share(plan, size),
        n_images=_n_images(plan, n_cases),
    )


def _n_images(plan: Plan, n_cases: int) -> int:
    """Return the number of images of which patches are cut: in 2D, each slice is one."""
    return n_cases * (plan.median_shape[0] if plan.dims == 2 else 1)


def _learned_share(plan: Plan, size: PlanSize, budget: ComputeBudget, counted: float) -> float:
    return learned_share(steps=min(size.steps(budget), counted), coverage=_coverage(plan, size))


def _patch_share(plan: Plan, size: PlanSize) -> float:
    return _coverage(plan, size) ** plan.dims


def _coverage(plan: Plan, size: PlanSize) -> float:
    return coverage(size.topology.patch_size, plan.median_shape[3 - plan.dims :])


def _apply_size(
    plan: Plan, planned: PlanSize, chosen: PlanSize, budget: ComputeBudget, *, with_many_cases: PlanSize
) -> Plan:
    cause = describe_budget(budget)
    before, after = architecture_of(planned.network), architecture_of(chosen.network)
    fresh = after.reasons(chosen.topology.patch_size)
    reasons = plan.reasons | {field: why for field, why in fresh.items() if not is_set(plan, field)}

    def note(field: str, value: str) -> None:
        reasons[field] = f"{value} in the GPU plan ({plan.reasons.get(field, 'as planned')}), smaller for {cause}"

    if chosen.topology.patch_size != planned.topology.patch_size:
        note("patch_size", "×".join(map(str, planned.topology.patch_size)))
    if chosen.batch_size != planned.batch_size:
        note("batch_size", str(planned.batch_size))
    if after.width != before.width:
        why = fresh.get(_WIDTH, f"{after.width} channels at full resolution")
        reasons[_WIDTH] = f"{why}; {before.width} wide in the GPU plan, narrower for {cause}"
    reasons["budget"] = _summary(planned, chosen, budget, with_many_cases=with_many_cases)
    return plan.revised(
        patch_size=chosen.topology.patch_size, batch_size=chosen.batch_size, network=chosen.network, reasons=reasons
    )


def _summary(planned: PlanSize, chosen: PlanSize, budget: ComputeBudget, *, with_many_cases: PlanSize) -> str:
    before, after = planned.step_seconds(budget), chosen.step_seconds(budget)
    text = f"a training step takes an estimated {after:.2g} s instead of {before:.2g} s on {describe_machine(budget)}"
    if budget.max_time_s is not None:
        steps = f"{chosen.steps(budget)} steps in {describe_time(budget.max_time_s)} instead of {planned.steps(budget)}"
        text = f"{text}: {steps}"
        if chosen != with_many_cases:
            larger = "patch" if chosen.topology != with_many_cases.topology else "network"
            text += f"; with so few cases more steps would not help, so that the {larger} is larger"
    architecture = architecture_of(planned.network)
    if architecture.width > NARROW_FEATURES and architecture.with_width(NARROW_FEATURES) is None:
        text += f"; the architecture {planned.network.architecture} cannot be narrowed"
    return text
