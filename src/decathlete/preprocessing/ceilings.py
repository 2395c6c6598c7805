"""Measure the highest Dice that a grid allows: resample the training labels to it and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decathlete.core.geometry import Box, Triple
from decathlete.core.parallel import map_cases
from decathlete.dataset.spec import Case
from decathlete.errors import CasesFailedError
from decathlete.io.images import read_label
from decathlete.planning.grid import Spacing
from decathlete.planning.plan import Plan
from decathlete.planning.resolution import Ceiling
from decathlete.preprocessing.resample import resample_label, resampled_shape, separated_axis

MOST_CASES = 24
"""Number of cases that are measured: the mean over them is known to about 0.002."""
MARGIN = 4
"""Voxels of the coarsest grid around the labelled structures; beyond them nothing changes."""


@dataclass(frozen=True, kw_only=True)
class _LabelledBox:
    """The labelled part of a case: class indices in working order, and their spacing, mm."""

    label_ZYX: Tensor
    spacing: Triple


def measure_ceilings(
    cases: Sequence[Case], plan: Plan, spacings: Sequence[Spacing], *, workers: int = 2
) -> tuple[Ceiling, ...]:
    """Return the ceiling of each target spacing, measured on at most :data:`MOST_CASES` labelled cases.

    Args:
        plan: its labels, axes and resampling are used.
        spacings: working order, mm.

    Raises:
        CasesFailedError: a label map cannot be read.
    """
    labelled = [case for case in cases if case.label is not None]
    chosen = {case.id: case for case in labelled[:: -(-len(labelled) // MOST_CASES)]}

    def measure(case: Case) -> NDArray[np.float64]:
        return _measure(_labelled_box(case, plan, spacings), plan, spacings)

    outcomes = list(map_cases(measure, chosen, workers=workers))
    failures = {o.case_id: o.error for o in outcomes if o.error is not None}
    if failures:
        raise CasesFailedError(failures, n_done=len(chosen) - len(failures), doing="measure")
    by_case = {o.case_id: o.value for o in outcomes if o.value is not None}
    return _mean(by_case, list(chosen), spacings)


def _mean(
    by_case: Mapping[str, NDArray[np.float64]], order: Sequence[str], spacings: Sequence[Spacing]
) -> tuple[Ceiling, ...]:
    """Return the mean over the cases that contain a structure; a structure that none contains has a ceiling of 1."""
    dice_CSK = np.array([by_case[case_id] for case_id in order])  # cases, spacings, structures
    present = np.isfinite(dice_CSK)
    n_SK = present.sum(axis=0)
    mean_SK = np.where(n_SK > 0, np.where(present, dice_CSK, 0).sum(axis=0) / np.maximum(n_SK, 1), 1.0)
    return tuple(
        Ceiling(spacing=spacing, dice=tuple(row.tolist())) for spacing, row in zip(spacings, mean_SK, strict=True)
    )


def _labelled_box(case: Case, plan: Plan, spacings: Sequence[Spacing]) -> _LabelledBox:
    assert case.label is not None  # for the type checker: only labelled cases are measured
    label = read_label(case.label)
    axes = plan.axes(label.geometry)
    label_ZYX = axes.apply(plan.labels.to_indices(label.array_ZYX))
    spacing = axes.geometry(label.geometry).spacing_ZYX
    box = _box(label_ZYX, spacing, spacings)
    return _LabelledBox(label_ZYX=torch.from_numpy(np.ascontiguousarray(label_ZYX[box.slices])), spacing=spacing)


def _box(label_ZYX: NDArray[np.uint8], spacing: Triple, spacings: Sequence[Spacing]) -> Box:
    """Return the box of the labelled voxels with a margin."""
    start, stop = [], []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        hit = np.flatnonzero(label_ZYX.any(axis=others))
        coarsest = max(s[axis] or spacing[axis] for s in spacings)
        margin = max(round(MARGIN * coarsest / spacing[axis]), 1)
        start.append(max(int(hit[0]) - margin, 0) if hit.size else 0)
        stop.append(min(int(hit[-1]) + 1 + margin, label_ZYX.shape[axis]) if hit.size else 1)
    return Box(start=(start[0], start[1], start[2]), stop=(stop[0], stop[1], stop[2]))


def _measure(case: _LabelledBox, plan: Plan, spacings: Sequence[Spacing]) -> NDArray[np.float64]:
    """Return the Dice of each spacing (rows) and structure; NaN for a structure that the case does not contain."""
    n_classes = plan.labels.n_classes
    z, y, x = case.label_ZYX.shape
    rows = []
    for target in (_target(case.spacing, spacing) for spacing in spacings):
        shape = resampled_shape((z, y, x), case.spacing, target)
        there = separated_axis(plan.resampling, case.spacing, target)
        back = separated_axis(plan.resampling, target, case.spacing)
        coarse_ZYX = resample_label(case.label_ZYX, shape, n_classes, separate_axis=there)
        back_ZYX = resample_label(coarse_ZYX, (z, y, x), n_classes, separate_axis=back)
        rows.append([_dice(case.label_ZYX, back_ZYX, indices) for indices in plan.labels.structure_indices])
    return np.array(rows)


def _target(own: Triple, spacing: Spacing) -> Triple:
    z, y, x = (o if s is None else s for o, s in zip(own, spacing, strict=True))
    return (z, y, x)


def _dice(truth_ZYX: Tensor, back_ZYX: Tensor, indices: tuple[int, ...]) -> float:
    values = torch.tensor(indices, dtype=torch.uint8)
    truth, back = torch.isin(truth_ZYX, values), torch.isin(back_ZYX, values)
    if not truth.any():
        return float("nan")
    return float(2 * (truth & back).sum() / (truth.sum() + back.sum()))
