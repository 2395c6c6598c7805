"""How far two surfaces lie apart, mm: HD95 and the normalised surface Dice.

The surface of a mask are its voxels with at least one of the six face neighbours outside the mask; what lies beyond
the border of the volume is outside. An axis of one voxel has no neighbours, so the surface of a single slice is its
outline. Distances run between voxel centres and are exact (Euclidean distance transform, Felzenszwalb and
Huttenlocher 2012, as in the ``edt`` package). A sheared grid is measured by the spacing along its axes, as if they
were orthogonal.
"""

from __future__ import annotations

from dataclasses import dataclass

import edt
import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Triple
from decathlete.evaluation.overlap import Mask, joint_box

# Distances are float32: a surface exactly at the tolerance must not fall out of it by rounding.
_ROUNDING = 1 + 1e-5


@dataclass(frozen=True, kw_only=True)
class SurfaceDistances:
    """From each surface voxel of one mask to the nearest surface voxel of the other, mm; both ways, never empty."""

    prediction_to_truth: NDArray[np.float32]
    truth_to_prediction: NDArray[np.float32]

    @property
    def hd95_mm(self) -> float:
        """The larger of the two directed 95th percentiles (linear between ranks), mm."""
        directed = (self.prediction_to_truth, self.truth_to_prediction)
        return float(max(np.percentile(d, 95) for d in directed))

    def nsd(self, tolerance_mm: float) -> float:
        """Normalised surface Dice, 0..1: the share of both surfaces within ``tolerance_mm`` of the other.

        Every surface voxel counts once, whatever patch of surface it stands for (Nikolov et al. 2021 weigh by
        area; on isotropic grids the two agree closely).
        """
        limit = tolerance_mm * _ROUNDING
        near = sum(int(np.count_nonzero(d <= limit)) for d in (self.prediction_to_truth, self.truth_to_prediction))
        return near / (self.prediction_to_truth.size + self.truth_to_prediction.size)


def surface_distances(prediction_ZYX: Mask, truth_ZYX: Mask, spacing_ZYX: Triple) -> SurfaceDistances | None:
    """Distances between the surfaces of two masks on one grid; ``None`` when either is empty.

    Args:
        spacing_ZYX: mm.
    """
    if not prediction_ZYX.any() or not truth_ZYX.any():
        return None
    # All surface voxels of both lie in the joint box; the margin keeps flat volumes apart from flat masks.
    box = joint_box(prediction_ZYX, truth_ZYX, margin=1).slices
    prediction, truth = surface(prediction_ZYX[box]), surface(truth_ZYX[box])
    return SurfaceDistances(
        prediction_to_truth=_distance_to(truth, spacing_ZYX)[prediction],
        truth_to_prediction=_distance_to(prediction, spacing_ZYX)[truth],
    )


def surface(mask_ZYX: Mask) -> Mask:
    """The voxels of a mask with a face neighbour outside it or beyond the array (axes of one voxel apart)."""
    inside = mask_ZYX.copy()
    for axis in (a for a, n in enumerate(mask_ZYX.shape) if n > 1):
        line, eroded = np.moveaxis(mask_ZYX, axis, 0), np.moveaxis(inside, axis, 0)
        eroded[:-1] &= line[1:]
        eroded[1:] &= line[:-1]
        eroded[0] = eroded[-1] = False
    return mask_ZYX & ~inside


def _distance_to(surface_ZYX: Mask, spacing_ZYX: Triple) -> NDArray[np.float32]:
    away = np.ascontiguousarray(~surface_ZYX)
    return np.asarray(edt.edt(away, anisotropy=spacing_ZYX, black_border=False, parallel=1), dtype=np.float32)
