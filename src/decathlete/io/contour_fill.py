"""Fill closed contours by the pixel-centre rule: a voxel is inside if its centre is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 2**10
"""Edges that are filled at once: each crosses at most all rows of the image."""


def fill_contours(contours_XY: Iterable[NDArray[np.float64]], shape_YX: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the voxels whose centres lie within an odd number of contours.

    So a contour within another is a hole, and one within the hole is filled again. A centre exactly on a contour
    belongs to the side of higher x, or of higher y on horizontal edges: neighbouring structures that share an edge
    share no voxel.

    Args:
        contours_XY: points (n, 2) of each contour, x and y in voxels; the last point is connected with the first.
    """
    height, width = shape_YX
    crossings = np.zeros(height * (width + 1), np.int64)  # where a row enters or leaves; the last column is beyond it
    for start, end in _edges(contours_XY):
        low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
        first = np.clip(np.ceil(low), 0, height).astype(np.int64)
        counts = np.clip(np.ceil(high), 0, height).astype(np.int64) - first  # rows with low <= y < high
        edges = np.repeat(np.arange(len(start)), counts)
        rows = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts) + first[edges]
        share = (rows - start[edges, 1]) / (end[edges, 1] - start[edges, 1])
        x = start[edges, 0] + share * (end[edges, 0] - start[edges, 0])
        columns = np.clip(np.ceil(x), 0, width).astype(np.int64)
        crossings += np.bincount(rows * (width + 1) + columns, minlength=len(crossings))
    return np.asarray((crossings.reshape(height, width + 1)[:, :width].cumsum(axis=1) % 2).astype(bool))


def _edges(contours_XY: Iterable[NDArray[np.float64]]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield first and last points of edges, so many at once that their crossings need little memory."""
    contours = list(contours_XY)
    starts = np.concatenate([np.zeros((0, 2)), *contours])
    ends = np.concatenate([np.zeros((0, 2)), *(np.roll(points, -1, axis=0) for points in contours)])
    for k in range(0, len(starts), _AT_ONCE):
        yield starts[k : k + _AT_ONCE], ends[k : k + _AT_ONCE]
