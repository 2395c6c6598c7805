"""Where the voxels of a file lie and what they are, as a text header (NRRD, MetaImage) declares it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.nearest_files import nearest_files
from decathlete.errors import ImageError
from decathlete.io.headers.text import MAX_LINES, header_error
from decathlete.io.limits import Codec, check_claim, check_sizes
from decathlete.io.missing_files import placeholder_image

_PATTERN = re.compile(r"(?P<name>[^%\s]*%0?[0-9]?d[^%\s]*) (?P<numbers>-?[0-9]{1,9}( -?[0-9]{1,9}){1,3})")


@dataclass(frozen=True, kw_only=True)
class VoxelFile:
    """The part of a file that holds voxels.

    Attributes:
        start: offset of the first byte.
        stored: bytes from there to the end of the voxels.
        skip: bytes to leave out after decompression.
    """

    path: Path
    start: int
    stored: int
    skip: int = 0


@dataclass(frozen=True, kw_only=True)
class Raster:
    """A checked header.

    Attributes:
        sizes: of all axes, the fastest first.
        component_axis: the axis of ``sizes`` that is not in space; ``None``: there is one number per voxel.
        dtype: of a stored number, with its byte order.
        files: hold the voxels one after another, the same number each.
        steps: step of each spatial axis, LPS mm, as columns.
        origin: of the first voxel, LPS mm.
    """

    path: Path
    sizes: tuple[int, ...]
    component_axis: int | None
    dtype: np.dtype[Any]
    codec: Codec
    files: tuple[VoxelFile, ...]
    steps: NDArray[np.float64]
    origin: NDArray[np.float64]

    @property
    def bytes_per_file(self) -> int:
        """Bytes of voxels in each of ``files``."""
        return prod(self.sizes) * self.dtype.itemsize // len(self.files)

    @property
    def spatial_sizes(self) -> tuple[int, ...]:
        """Sizes of the axes in space, the fastest first."""
        return tuple(n for axis, n in enumerate(self.sizes) if axis != self.component_axis)

    def check(self) -> Raster:
        """Compare what is declared with what the files can hold.

        Raises:
            ImageError: an axis is too long, a file too short or too long, or one is named twice.
        """
        n_voxels = check_sizes(self.path, self.sizes)
        if len({file.path for file in self.files}) < len(self.files):
            raise header_error(self.path, "names the same file with voxels several times")
        if n_voxels % len(self.files):
            raise header_error(self.path, f"divides {n_voxels:,} voxels among {len(self.files)} files")
        for file in self.files:
            claimed = self.bytes_per_file + (file.skip if self.codec == "deflate" else 0)
            check_claim(file.path, claimed=claimed, stored=file.stored, codec=self.codec, itemsize=self.dtype.itemsize)
        return self


def numbered_names(path: Path, text: str) -> list[str] | None:
    """Return the file names of a pattern with its range, such as ``slice%03d.raw 1 90 1``; ``None``: it is none.

    Raises:
        ImageError: it names no file, or too many.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        return None
    first, last, step = ([int(n) for n in match["numbers"].split()] + [1])[:3]
    numbers = range(first, last + (1 if step > 0 else -1), step) if step else range(0)
    if not 1 <= len(numbers) <= MAX_LINES:
        raise header_error(path, f"names {len(numbers)} files with voxels")
    return [match["name"] % number for number in numbers]


def sibling(header: Path, name: str) -> Path:
    """Return the file ``name`` beside ``header``.

    Raises:
        ImageError: it would lie elsewhere, or does not exist.
    """
    if not name or name in (".", "..") or any(c in name for c in "/\\:\0"):
        raise ImageError(
            f"names its voxels by a path ({name[:80]!r}); they are read only from the folder of the header",
            where=header,
            remedy="move the file with the voxels beside the header, and write its name there without a folder",
            code="E-IMAGE-HEADER",
        )
    path = header.parent / name
    if not path.is_file():
        raise placeholder_image(path) or ImageError(
            f"names {name[:80]} as the file with its voxels, which is not there{nearest_files(path)}",
            where=header,
            remedy="copy this file beside the header, too",
            code="E-IMAGE-NOT-FOUND",
        )
    return path
