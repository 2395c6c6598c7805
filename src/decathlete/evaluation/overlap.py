"""Voxel counts of two masks, and the box that holds both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Box, nonzero_box

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Voxel counts of two masks on one grid."""

    n_prediction: int
    n_truth: int
    n_both: int


def count_overlap(prediction_ZYX: Mask, truth_ZYX: Mask) -> Overlap:
    """Count the voxels of two masks of one shape, and those that they share."""
    return Overlap(
        n_prediction=int(np.count_nonzero(prediction_ZYX)),
        n_truth=int(np.count_nonzero(truth_ZYX)),
        n_both=int(np.count_nonzero(prediction_ZYX & truth_ZYX)),
    )


def joint_box(one_ZYX: NDArray[np.generic], other_ZYX: NDArray[np.generic], *, margin: int = 0) -> Box:
    """Return the smallest box with every non-zero voxel of both arrays (the whole grid if there is none).

    Args:
        margin: voxels added on every side, up to the border of the grid. With a margin of 1 an axis of the box has one
            voxel only where the grid itself has.
    """
    box = nonzero_box(((one_ZYX != 0) | (other_ZYX != 0))[None])
    z, y, x = (max(a - margin, 0) for a in box.start)
    z1, y1, x1 = (min(b + margin, n) for b, n in zip(box.stop, one_ZYX.shape, strict=True))
    return Box(start=(z, y, x), stop=(z1, y1, x1))
