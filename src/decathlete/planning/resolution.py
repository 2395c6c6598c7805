"""Choose the resolution for a training time: the grid with the best expected Dice.

A network that has little time sees too few of the voxels of a large image. On a coarser grid it sees more of the image
in the same time, but fine structures lose their shape. Both are known before training: what a grid costs is measured
on the label maps (:class:`Ceiling`), what the time buys is estimated from the cost of a training step.

A training that begins on a coarse grid continues on a finer one with the same weights (progressive resolution): the
first gives it the view, the second the borders.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from decathlete.core.schema import Schema
from decathlete.errors import OptionError, PlanError
from decathlete.planning.adaptation import adapt_plan, move_to_grid, training_steps
from decathlete.planning.compute_budget import ComputeBudget, describe_budget
from decathlete.planning.explain import format_spacing
from decathlete.planning.grid import Spacing
from decathlete.planning.learning_curve import coverage, learned_share
from decathlete.planning.plan import CoarseStart, Plan

FACTORS = tuple(2 ** (k / 3) for k in range(7))
"""How many times coarser than full resolution a grid may be: 1 to 4, in steps that halve the number of voxels."""
CEILING_POWER = 1.5
"""Exponent of the ceiling: a network loses more on a coarse grid than labels do (docs/explanation/recipe-search.md)."""
SMALLEST_GAIN = 0.03
"""Least gain in expected Dice of a coarser grid, since easy structures are learned faster than estimated. See
docs/explanation/recipe-search.md."""

FINER_AT_THE_END = 2
"""By how many of :data:`FACTORS` the grid at the end is finer than the chosen one, with which the training begins: at
most 1.6 times. See docs/explanation/recipe-search.md."""
FEWEST_CASES = 20
"""Fewest cases of a dataset for which the grid at the end is finer: with fewer, the coarse grid is better alone. See
docs/explanation/recipe-search.md."""


class Ceiling(Schema):
    """The highest Dice that a grid allows: of the training labels, resampled to the grid and back.

    Attributes:
        spacing: working order, mm; ``None`` where slices keep their own distance.
        dice: of each structure (region or foreground class), 0..1; mean over the cases that contain it.
    """

    spacing: Spacing
    dice: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the structures."""
        return sum(self.dice) / len(self.dice)


class Ceilings(Schema):
    """The ceilings of one dataset.

    Attributes:
        key: digest of what they were measured from.
    """

    version: int = 1
    key: str
    ceilings: tuple[Ceiling, ...]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A plan at one resolution, and what its adaptation to the budget promises.

    Attributes:
        plan: before the adaptation.
        ceiling: highest mean Dice that the grid allows.
        steps: number of training steps in the time.
        coverage: of the median image by the patch, 0..1.
    """

    plan: Plan
    ceiling: float
    steps: int
    coverage: float

    @property
    def expected_dice(self) -> float:
        """Ceiling (with an exponent) times the share that is learned; for comparisons between grids of one dataset."""
        share = learned_share(steps=self.steps, coverage=self.coverage)
        return float(self.ceiling**CEILING_POWER * share)


def candidate_spacings(plan: Plan) -> tuple[Spacing, ...]:
    """Return the target spacing of ``plan`` and coarser ones, mm, working order.

    The finest axes are coarsened first: thick slices keep their distance until the voxels are as long in plane.
    """
    finest = min(plan.network_spacing)
    coarser = (_coarsened(plan.target_spacing, factor * finest) for factor in FACTORS[1:])
    return tuple(dict.fromkeys((plan.target_spacing, *coarser)))


def _coarsened(spacing: Spacing, least: float) -> Spacing:
    n_digits = max(4, 3 - math.floor(math.log10(least)))  # spacings of microscopy, in mm, are far below 0.001
    first, second, third = (None if s is None else max(s, round(least, n_digits)) for s in spacing)
    return (first, second, third)


def resolution_is_open(plan: Plan, budget: ComputeBudget) -> bool:
    """Return whether the budget may choose the resolution: time is limited and the user did not set the grid."""
    fixed = {"target_spacing", "patch_size", "median_shape", "network"} & plan.user_set.keys()
    fixed |= {"coarse_start"} if plan.coarse_start is not None else set()
    resampled = all(s is not None for s in plan.target_spacing[3 - plan.dims :])
    return budget.max_time_s is not None and not fixed and resampled


def choose_resolution(
    plan: Plan,
    ceilings: Sequence[Ceiling],
    budget: ComputeBudget,
    *,
    n_cases: int,
    replan: Callable[[Spacing], Plan],
    as_trained: Callable[[Plan], Plan] = lambda plan: plan,
) -> Plan:
    """Return the plan at the resolution with the best expected Dice for the time, not adapted to it yet.

    If that is coarser than full resolution, the training begins there and ends on a finer grid, unless there are few
    cases, or the user set that it has no coarse start. Patch and batch are those of the coarse grid, on which the time
    was weighed; the network is one for the grid at the end.

    Args:
        plan: at full resolution.
        ceilings: of each candidate (:func:`candidate_spacings`), finest first.
        n_cases: number of cases of the dataset.
        replan: returns the plan at another target spacing.
        as_trained: returns a plan with the network that is trained, of which the steps are counted.
    """
    full, *others = (_candidate(plan, ceiling, budget, replan=replan, as_trained=as_trained) for ceiling in ceilings)
    assert full is not None  # for the type checker: it is not planned again
    coarser = [candidate for candidate in others if candidate is not None]
    best = max(coarser, key=lambda candidate: candidate.expected_dice, default=full)
    if best.expected_dice < full.expected_dice + SMALLEST_GAIN:
        return plan
    coarse, reasons = best.plan, best.plan.reasons
    trained = [_steps_and_coverage(as_trained(grid.plan), budget, n_cases=n_cases) for grid in (full, best)]
    reason = _why_coarse(*trained, ceiling=best.ceiling, budget=budget)
    if n_cases < FEWEST_CASES or "coarse_start" in plan.user_set:
        why = f"coarser than full resolution ({_describe_grid(full.plan)}) {reason}"
        return coarse.revised(reasons=reasons | {"target_spacing": why})
    place = [ceiling.spacing for ceiling in ceilings].index(coarse.target_spacing)
    final = ceilings[max(place - FINER_AT_THE_END, 0)]
    both = with_coarse_start(plan, coarse, final.spacing)
    return both.revised(
        reasons=both.reasons
        | {
            "coarse_start": reason,
            "target_spacing": _why_finer(full.plan, final),
            "patch_size": f"on the coarse grid: {reasons['patch_size']}",
        },
    )


def with_coarse_start(full: Plan, coarse: Plan, spacing: Spacing) -> Plan:
    """Return the plan of a training that begins on the grid of ``coarse`` and ends on a finer one.

    Args:
        full: at full resolution, from which the size of the median image follows without a second rounding.
        coarse: planned for the grid of the beginning.
        spacing: of the grid at the end (mm, working order).
    """
    return move_to_grid(coarse, spacing).revised(
        median_shape=full.at_spacing(spacing).median_shape,
        coarse_start=CoarseStart(target_spacing=coarse.target_spacing),
    )


def _candidate(
    plan: Plan,
    ceiling: Ceiling,
    budget: ComputeBudget,
    *,
    replan: Callable[[Spacing], Plan],
    as_trained: Callable[[Plan], Plan],
) -> Candidate | None:
    """Return the candidate of a grid; ``None`` if the network that the user set does not fit it."""
    try:
        planned = plan if ceiling.spacing == plan.target_spacing else replan(ceiling.spacing)
    except (OptionError, PlanError):
        return None
    # not with the number of cases: with few of them, time is spent on a larger patch, not on a finer grid
    steps, covered = _steps_and_coverage(as_trained(planned), budget, n_cases=None)
    return Candidate(plan=planned, ceiling=ceiling.mean, steps=steps, coverage=covered)


def _steps_and_coverage(plan: Plan, budget: ComputeBudget, *, n_cases: int | None) -> tuple[int, float]:
    adapted = adapt_plan(plan, budget, n_cases=n_cases, warn=False)  # the training warns of few steps
    return training_steps(adapted, budget), coverage(adapted.patch_size, adapted.median_shape[3 - plan.dims :])


def _why_coarse(full: tuple[int, float], best: tuple[int, float], *, ceiling: float, budget: ComputeBudget) -> str:
    """Return the reason for a coarser grid, from the steps and the coverage of both trainings."""
    return (
        f"for {describe_budget(budget)}: {best[0]} steps with patches of {best[1]:.0%} of the image's length "
        f"instead of {full[0]} with {full[1]:.0%} at full resolution; resampled to this grid and back, the "
        f"labels keep a Dice of {ceiling:.3f}"
    )


def _why_finer(full: Plan, final: Ceiling) -> str:
    """Return the reason for the grid on which a training ends that begins on a coarser one."""
    if final.spacing == full.target_spacing:
        return f"{full.reasons['target_spacing']}; the training begins on a coarser grid"
    return (
        "the training begins on a coarser grid and ends here, on one coarser than full resolution "
        f"({_describe_grid(full)}); resampled to this grid and back, the labels keep a Dice of {final.mean:.3f}"
    )


def _describe_grid(plan: Plan) -> str:
    return f"{format_spacing(plan.target_spacing, plan.spacing_unit)}: {plan.reasons['target_spacing']}"


LEAST_COVERAGE = 0.25
"""Share of the median image's voxels that a patch at full resolution must cover; below it, a low resolution helps."""
LOW_RESOLUTION_STEP = 1.03
"""Factor by which a low resolution is made coarser until a patch covers enough of it."""
FEWEST_TIMES_SMALLER = 2.0
"""A low resolution has at least this many times fewer voxels, or it is too similar to full resolution."""


def plan_low_resolution(full: Plan, *, replan: Callable[[Spacing], Plan]) -> Plan | None:
    """Return the plan at a low resolution by nnU-Net's rule; ``None`` if the data do not justify one.

    The grid is made coarser, the finest axes first while one is more than twice as coarse, until the patch covers a
    quarter of the median image (Isensee et al., Nature Methods 18, 203-211, 2021).

    Args:
        full: 3D, at full resolution.
        replan: returns the plan at another target spacing.
    """
    spacing = [1.0 if s is None else s for s in full.target_spacing]
    finest, low = tuple(spacing), None
    covered = math.prod(full.patch_size)
    while covered < LEAST_COVERAGE * _voxels_at(full, finest, spacing):
        spacing = _one_step_coarser(spacing)
        low = replan((spacing[0], spacing[1], spacing[2]))
        covered = math.prod(low.patch_size)
    if low is None or _voxels_at(full, finest, spacing) * FEWEST_TIMES_SMALLER > math.prod(full.median_shape):
        return None
    return low.revised(reasons=low.reasons | {"target_spacing": _why_low(full, low)})


def image_coverage(plan: Plan) -> float:
    """Return the share of the median image's voxels that a patch covers."""
    return math.prod(plan.patch_size) / math.prod(plan.median_shape[3 - plan.dims :])


def _voxels_at(full: Plan, finest: Sequence[float], spacing: Sequence[float]) -> float:
    """Return the number of voxels of the median image at a spacing, not rounded."""
    return math.prod(n * old / new for n, old, new in zip(full.median_shape, finest, spacing, strict=True))


def _one_step_coarser(spacing: Sequence[float]) -> list[float]:
    coarsest = max(spacing)
    anisotropic = any(coarsest / s > 2 for s in spacing)
    return [s * LOW_RESOLUTION_STEP if not anisotropic or coarsest / s > 2 else s for s in spacing]


def _why_low(full: Plan, low: Plan) -> str:
    finest = format_spacing(full.target_spacing, full.spacing_unit)
    return (
        f"coarser than full resolution ({finest}), where the patch covers "
        f"{image_coverage(full):.0%} of the median image; here it covers {min(image_coverage(low), 1):.0%}"
    )
