"""Images, label maps and volumes on their grids, as they are read from files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry

MAX_CLASSES = 254
"""Values of a label map; a file with more is probably an image."""
SPLIT_4D = "store each volume of a 4D image (a point in time, an echo) as an image of its own"
"""Remedy for several volumes where one channel is expected."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """Intensities, channels first, float32, any stored scaling applied."""

    array_CZYX: NDArray[np.float32]
    geometry: Geometry


def describe_misplaced_channels(image: Image, n_expected: int) -> str:
    """Return which axis of space may hold the channels of an image that has another number of them.

    Returns:
        A clause that starts with ``; ``, or an empty text if no axis is as long as the channels are many.
    """
    n_channels, (z, _, x) = len(image.array_CZYX), image.geometry.shape_ZYX
    if n_channels == n_expected or n_expected == 1:
        return ""
    if n_channels > 1 and x == n_expected:
        return f"; its first axis has {x} voxels: if these are the channels, make them the last axis"
    if n_channels == 1 and z == n_expected:
        return f"; its last axis has {z} slices: if these are the channels, store it as (x, y, 1, {z})"
    return ""


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
