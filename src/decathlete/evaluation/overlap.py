"""How much of two masks is the same: Dice, IoU."""

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

    @property
    def dice(self) -> float | None:
        """2 |A and B| / (|A| + |B|), 0..1; ``None`` when both are empty (Dice 1945)."""
        total = self.n_prediction + self.n_truth
        return 2 * self.n_both / total if total else None

    @property
    def iou(self) -> float | None:
        """|A and B| / |A or B|, 0..1; ``None`` when both are empty (Jaccard 1912)."""
        union = self.n_prediction + self.n_truth - self.n_both
        return self.n_both / union if union else None


def overlap(prediction_ZYX: Mask, truth_ZYX: Mask) -> Overlap:
    """Count two masks of one shape."""
    return Overlap(
        n_prediction=int(np.count_nonzero(prediction_ZYX)),
        n_truth=int(np.count_nonzero(truth_ZYX)),
        n_both=int(np.count_nonzero(prediction_ZYX & truth_ZYX)),
    )


def joint_box(one_ZYX: NDArray[np.generic], other_ZYX: NDArray[np.generic], *, margin: int = 0) -> Box:
    """The smallest box with every non-zero voxel of both (the whole grid if there is none).

    Args:
        margin: voxels added on every side, as far as the grid goes. With a margin of 1 an axis of the box has one
            voxel only where the grid itself has.
    """
    box = nonzero_box(((one_ZYX != 0) | (other_ZYX != 0))[None])
    z, y, x = (max(a - margin, 0) for a in box.start)
    z1, y1, x1 = (min(b + margin, n) for b, n in zip(box.stop, one_ZYX.shape, strict=True))
    return Box(start=(z, y, x), stop=(z1, y1, x1))
