"""Distances between the surfaces of two masks, mm.

The surface of a mask is its voxels with at least one of the six face neighbours outside the mask; everything beyond
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


@dataclass(frozen=True, kw_only=True)
class SurfaceDistances:
    """Distances from each surface voxel of one mask to the nearest one of the other, mm; both ways, never empty."""

    prediction_to_truth: NDArray[np.float32]
    truth_to_prediction: NDArray[np.float32]

    @property
    def both_directions(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Both directions."""
        return self.prediction_to_truth, self.truth_to_prediction


def measure_surface_distances(prediction_ZYX: Mask, truth_ZYX: Mask, spacing_ZYX: Triple) -> SurfaceDistances:
    """Measure the distances between the surfaces of two masks on one grid; each has at least one voxel.

    Args:
        spacing_ZYX: mm.
    """
    # All surface voxels of both lie in the joint box; the margin keeps flat volumes apart from flat masks.
    box = joint_box(prediction_ZYX, truth_ZYX, margin=1).slices
    prediction, truth = surface(prediction_ZYX[box]), surface(truth_ZYX[box])
    return SurfaceDistances(
        prediction_to_truth=_distance_to(truth, spacing_ZYX)[prediction],
        truth_to_prediction=_distance_to(prediction, spacing_ZYX)[truth],
    )


def surface(mask_ZYX: Mask) -> Mask:
    """Return the voxels of a mask with a face neighbour outside it or beyond the array (but for axes of one voxel)."""
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
