"""Headers of MGH and MGZ files (FreeSurfer), checked before the voxels are read."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.io.headers.text import header_error
from decathlete.io.limits import check_claim, check_gzip, check_sizes, damage_error

VOXELS_AT = 284
_VERSION = struct.pack(">i", 1)
MAX_FOOTER = 2**24
"""Bytes after the voxels: scan parameters and the history of commands."""

_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_DEFAULT_COSINES = (-1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 1.0, 0.0)
"""To the left, down, forward."""
_FORM = struct.Struct(">7ih15f")


@dataclass(frozen=True, kw_only=True)
class MghHeader:
    """A checked header.

    Attributes:
        shape_IJKC: voxels along the three axes, and channels (frames).
        spacing_IJK: mm; ``None`` for an axis without one.
        cosines: directions of the axes in RAS, as columns; FreeSurfer's default in files without a grid.
        centre: RAS mm.
    """

    shape_IJKC: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    spacing_IJK: tuple[float | None, ...]
    cosines: NDArray[np.float64]
    centre: NDArray[np.float64]

    @property
    def n_bytes(self) -> int:
        """Bytes of all voxels."""
        return prod(self.shape_IJKC) * self.dtype.itemsize


def is_compressed(path: Path) -> bool:
    """Whether a file is gzipped, by its name."""
    return path.name.lower().endswith((".mgz", ".gz"))


def read_mgh(path: Path) -> MghHeader:
    """Read and check the header of ``path``.

    Raises:
        ImageError: the header is not valid, or the file cannot hold what it declares.
        OSError, EOFError: the file cannot be read.
    """
    if is_compressed(path):
        check_gzip(path, plain_marks=(_VERSION,))
    with gzip.open(path) if is_compressed(path) else path.open("rb") as stream:
        content = stream.read(_FORM.size)
    if len(content) < _FORM.size:
        raise damage_error(path, "the file ends within the header")
    version, i, j, k, channels, kind, _, has_grid, *numbers = _FORM.unpack(content)
    if version != 1:
        raise damage_error(path, "the file does not begin with an MGH header")
    if kind not in _TYPES:
        raise header_error(path, f"declares numbers of the type {kind}")
    check_sizes(path, (i, j, k, channels))
    if has_grid and not all(isfinite(number) for number in numbers):
        raise header_error(path, "has a number that is not finite")
    header = MghHeader(
        shape_IJKC=(i, j, k, channels),
        dtype=np.dtype(_TYPES[kind]),
        spacing_IJK=tuple(numbers[:3]) if has_grid else (None, None, None),
        cosines=np.array(numbers[3:12] if has_grid else _DEFAULT_COSINES).reshape(3, 3).T,
        centre=np.array(numbers[12:15] if has_grid else (0.0, 0.0, 0.0)),
    )
    stored, claimed = path.stat().st_size, VOXELS_AT + header.n_bytes
    compressed = is_compressed(path)
    check_claim(
        path,
        claimed=claimed,
        stored=stored if compressed else min(stored, claimed),
        codec="deflate" if compressed else "raw",
    )
    return header
