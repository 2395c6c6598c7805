"""Images, label maps and volumes on their grids, as they are read from files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry


@dataclass(frozen=True, kw_only=True)
class Image:
    """Intensities, channels first, float32, any stored scaling applied."""

    array_CZYX: NDArray[np.float32]
    geometry: Geometry


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """Integer label values as the file holds them (not class indices)."""

    array_ZYX: NDArray[np.integer[Any]]
    geometry: Geometry


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Voxels of a file, channels first, scaling applied, in the number type that this gives."""

    array_CZYX: NDArray[Any]
    geometry: Geometry


def smallest_integer(values: NDArray[Any]) -> np.dtype[Any]:
    """Return the smallest integer type for ``values`` that every viewer reads (uint8, then signed before unsigned)."""
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    for candidate in (np.uint8, np.int16, np.uint16, np.int32, np.uint32):
        limits = np.iinfo(candidate)
        if limits.min <= low and high <= limits.max:
            return np.dtype(candidate)
    return np.dtype(np.int64)
