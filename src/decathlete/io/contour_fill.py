"""Fill closed contours by the pixel-centre rule: a voxel is inside if its centre is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def fill_contours(contours_XY: Iterable[NDArray[np.float64]], shape_YX: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the voxels whose centres lie within an odd number of contours.

    So a contour within another is a hole, and one within the hole is filled again. A centre exactly on a contour
    belongs to the side of higher x, or of higher y on horizontal edges: neighbouring structures that share an edge
    share no voxel.

    Args:
        contours_XY: points (n, 2) of each contour, x and y in voxels; the last point is connected with the first.
    """
    height, width = shape_YX
    crossings = np.zeros((height, width + 1), np.int64)  # where a row enters or leaves; the last column is beyond it
    for points in contours_XY:
        start, end = points, np.roll(points, -1, axis=0)
        low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
        first = np.clip(np.ceil(low), 0, height).astype(np.int64)
        last = np.clip(np.ceil(high), 0, height).astype(np.int64)  # rows with low <= y < high
        counts = last - first
        edges = np.repeat(np.arange(len(points)), counts)
        rows = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts) + first[edges]
        share = (rows - start[edges, 1]) / (end[edges, 1] - start[edges, 1])
        x = start[edges, 0] + share * (end[edges, 0] - start[edges, 0])
        np.add.at(crossings, (rows, np.clip(np.ceil(x), 0, width).astype(np.int64)), 1)
    return np.asarray((crossings[:, :width].cumsum(axis=1) % 2).astype(bool))
