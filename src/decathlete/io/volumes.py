"""What a reader gives: a volume on its grid. Readers differ by file format, all follow one protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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
    """What the file holds, channels first, scaling applied, in whatever number type that gives."""

    array_CZYX: NDArray[Any]
    geometry: Geometry


class Reader(Protocol):
    """One file format. Both methods raise ``ImageError`` where the file is missing, damaged or of another kind."""

    def accepts(self, path: Path) -> bool:
        """Whether ``path`` is of this format, by its suffix or its content."""

    def grid(self, path: Path) -> tuple[int, Geometry]:
        """Number of channels and the grid, from the header alone where the format allows it."""

    def volume(self, path: Path, *, as_float32: bool) -> Volume:
        """All voxels; ``as_float32`` converts while reading, otherwise integers stay integers."""

    def holds_integers(self, path: Path) -> bool:
        """Whether the voxels are integers, by the header: of an integer type, and not scaled."""


def smallest_integer(values: NDArray[Any]) -> np.dtype[Any]:
    """The smallest integer type for ``values`` that every viewer reads (uint8, then signed before unsigned)."""
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    for candidate in (np.uint8, np.int16, np.uint16, np.int32, np.uint32):
        limits = np.iinfo(candidate)
        if limits.min <= low and high <= limits.max:
            return np.dtype(candidate)
    return np.dtype(np.int64)
