"""Is the foreground of a dataset one connected component, so that a prediction keeps only its largest one?

A network with little training time finds false components far away from an organ that it otherwise segments well. If
the foreground of every training case is connected, all but the largest component of a prediction are false. nnU-Net
decides this by held-out predictions (Isensee et al., Nature Methods 18, 203-211, 2021, Post-processing); the label maps
alone show it before training, and for a single fold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from decathlete.core.labels import LabelSet, foreground_mask

LEAST_SHARE = 0.99
"""Share of the foreground in its largest component from which it counts as connected: a few stray voxels of an
annotation are no second component."""
FEWEST_CASES = 10
"""Training cases with foreground, at least; fewer do not show that it is always connected."""
LEAST_CASES_SHARE = 0.95
"""Share of these cases in which it must be connected."""

_NEIGHBOURS = np.ones((3, 3, 3), bool)


def largest_share(label_ZYX: NDArray[np.uint8], n_classes: int) -> float | None:
    """Return the share (0..1) of the foreground that is in its largest component; ``None`` if it is unknown.

    Voxels that touch at a face, an edge or a corner are connected. The share is unknown without foreground, and where
    voxels are ignored or not annotated.

    Args:
        label_ZYX: class indices, the background 0; indices from ``n_classes`` on are no class.

    >>> largest_share(np.array([[[1, 1, 2, 0, 1]]], np.uint8), n_classes=3)
    0.75
    """
    boxes = ndimage.find_objects((label_ZYX > 0).view(np.uint8))
    if not boxes or label_ZYX.max() >= n_classes:
        return None
    components_ZYX, n = ndimage.label(foreground_mask(label_ZYX[boxes[0]], n_classes), _NEIGHBOURS)
    counts = np.zeros(n + 1, np.int64)
    for components_YX in components_ZYX:  # slice by slice: bincount converts every voxel to 8 bytes
        counts += np.bincount(components_YX.ravel(), minlength=n + 1)
    return float(counts[1:].max() / counts[1:].sum())


def is_connected(shares: Sequence[float | None]) -> bool:
    """Return whether the foreground is one component in (nearly) all cases, by their :func:`largest_share`."""
    known = [share for share in shares if share is not None]
    n_connected = sum(share >= LEAST_SHARE for share in known)
    return len(known) >= FEWEST_CASES and n_connected >= LEAST_CASES_SHARE * len(known)


def cover_foreground(labels: LabelSet) -> bool:
    """Return whether every foreground class is part of a structure; regions may leave some out."""
    covered = {value for structure in labels.structures for value in structure.values}
    return covered >= {label.value for label in labels.foreground}
