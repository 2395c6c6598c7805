"""The grid to train on: target spacing, order of the axes, and the median image on that grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Shape, Triple
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.network_spec import Dims

ANISOTROPY = 3.0
"""An axis is coarse when its spacing is more than this times the others' (and its voxels that much fewer)."""

AxisOrder = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class WorkingGrid:
    """The grid that a dataset is resampled to, in the working order of the axes.

    Attributes:
        order: the working axes, in the fingerprint's numbering.
        spacing: target spacing of each axis, mm.
        median: size of the median image at that spacing, voxels; may end in a half.
        n_slices: number of slices of the median image before resampling, along the first axis.
        coarse: whether the spacing of an axis is so coarse that the target is not the median.
    """

    order: AxisOrder
    spacing: Triple
    median: Triple
    n_slices: float
    coarse: bool

    def target_spacing(self, dims: Dims) -> tuple[float | None, float, float]:
        """Return the plan's target spacing; in 2D slices keep their own distance."""
        return self.spacing if dims == 3 else (None, *self.spacing[1:])

    def median_shape(self, dims: Dims) -> Shape:
        """Return the plan's median shape; in 2D the number of slices does not change."""
        return round_to_shape(self.median if dims == 3 else (self.n_slices, *self.median[1:]))


Spacing = tuple[float | None, float | None, float | None]
"""Target spacing of each working axis, mm; ``None``: of the dataset."""


def working_grid(
    fingerprint: Fingerprint, order: AxisOrder | None = None, spacing: Spacing = (None, None, None)
) -> WorkingGrid:
    """Return the grid of a dataset.

    Args:
        order: order of the axes; ``None``: the coarsest first.
        spacing: target spacing along the ordered axes, mm; ``None`` along an axis: the dataset's.
    """
    full, coarse = full_spacing(fingerprint)
    order = order or axis_order(fingerprint, full)
    for axis, value in zip(order, spacing, strict=True):
        full = full if value is None else _replaced(full, axis, value)
    return WorkingGrid(
        order=order,
        spacing=permute(full, order),
        median=permute(median_size(fingerprint, full), order),
        n_slices=float(np.median([case.shape[order[0]] for case in fingerprint.cases])),
        coarse=coarse is not None,
    )


def full_spacing(fingerprint: Fingerprint) -> tuple[Triple, int | None]:
    """Return the target spacing in the fingerprint's axis order (mm), and the coarse axis, if there is one.

    The target is the median of each axis. For a coarse axis it is the 10th percentile, but never finer than the other
    axes: with the median, half of the cases would lose slices.
    """
    spacings, shapes = _table(fingerprint)
    target, size = np.median(spacings, axis=0), np.median(shapes, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    coarse_mm = target[worst] > ANISOTROPY * target[others].max()
    few_voxels = size[worst] * ANISOTROPY < size[others].min()
    if not (coarse_mm and few_voxels):
        return _triple(target), None
    target[worst] = _coarse_spacing(spacings[:, worst], float(target[others].max()))
    return _triple(target), worst


def _coarse_spacing(spacings: NDArray[np.float64], others: float) -> float:
    tenth = float(np.percentile(spacings, 10))
    return tenth if tenth >= others else others + 1e-5


def axis_order(fingerprint: Fingerprint, spacing: Triple) -> AxisOrder:
    """Return the order of the axes: the coarsest first (for single slices the thin one), then the others."""
    _, shapes = _table(fingerprint)
    single = np.flatnonzero(shapes.max(axis=0) == 1)
    first = int(single[0]) if single.size else int(np.argmax(spacing))
    second, third = (axis for axis in range(3) if axis != first)
    return (first, second, third)


def median_size(fingerprint: Fingerprint, spacing: Triple) -> Triple:
    """Return the median size of all cases resampled to ``spacing`` (fingerprint's axis order), voxels."""
    shapes = [
        [round(old / new * edge) for old, new, edge in zip(case.spacing, spacing, case.shape, strict=True)]
        for case in fingerprint.cases
    ]
    return _triple(np.median(shapes, axis=0))


def is_flat(fingerprint: Fingerprint) -> bool:
    """Return whether the typical image is a single slice."""
    _, shapes = _table(fingerprint)
    return bool((np.median(shapes, axis=0) <= 1).any())


def permute(values: Triple, order: AxisOrder) -> Triple:
    """Return ``values`` in working order."""
    return (values[order[0]], values[order[1]], values[order[2]])


def round_to_shape(size: Triple) -> Shape:
    """Return a median size as a shape."""
    return (round(size[0]), round(size[1]), round(size[2]))


def _table(fingerprint: Fingerprint) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    spacings = np.array([case.spacing for case in fingerprint.cases], np.float64)
    return spacings, np.array([case.shape for case in fingerprint.cases], np.float64)


def _replaced(values: Triple, axis: int, value: float) -> Triple:
    z, y, x = (value if index == axis else old for index, old in enumerate(values))
    return (z, y, x)


def _triple(values: NDArray[np.float64]) -> Triple:
    return (float(values[0]), float(values[1]), float(values[2]))
