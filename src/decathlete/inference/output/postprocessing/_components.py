"""Connected components of a mask."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Connectivity = Literal[6, 18, 26]
"""Neighbours of a voxel: those that share a face, also an edge, also a corner (in a single slice: 4, 8, 8)."""

_RANKS = {6: 1, 18: 2, 26: 3}


def label_components(
    mask_ZYX: NDArray[np.bool_], connectivity: Connectivity
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number the components of a mask.

    Returns:
        The number of each voxel's component (0: outside the mask), and voxels by number (of 0: zero).
    """
    structure = ndimage.generate_binary_structure(3, _RANKS[connectivity])
    components_ZYX = np.empty(mask_ZYX.shape, np.int32)
    n = ndimage.label(mask_ZYX, structure, output=components_ZYX)
    counts = np.zeros(n + 1, np.int64)
    for components_YX in components_ZYX:  # slice by slice: bincount converts every voxel to 8 bytes
        counts += np.bincount(components_YX.ravel(), minlength=n + 1)
    counts[0] = 0
    return components_ZYX, counts
