"""What an image may declare: sizes that its file can hold, and grids that a scanner can make.

A header is text or a few numbers, which anybody can write. These limits are checked before memory is allocated.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, prod
from pathlib import Path
from typing import Literal

from decathlete.core.geometry import Geometry
from decathlete.errors import ImageError

Codec = Literal["raw", "deflate", "text", "hex"]
"""How voxels are stored: as they are, compressed by gzip or zlib, as decimal numbers, or as hexadecimal digits."""

MAX_AXIS = 32_767
"""Maximum number of voxels along an axis, and of channels; NIfTI-1 cannot represent more."""

MIN_SPACING_MM = 1e-6
MAX_SPACING_MM = 200.0
"""Range of plausible distances between neighbouring voxels, mm: from electron microscopes to whole-body localisers."""

GZIP_MARK = b"\x1f\x8b"
"""First bytes of a file that is compressed by gzip."""

_ARCHIVES = {b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7z", b"Rar!": "rar"}
"""First bytes of archives that are sometimes stored under the name of the image in them."""

MAX_INFLATION = 1032
"""Deflate stores 258 bytes in two bits at best: https://zlib.net/zlib_tech.html."""


def possible_bytes(stored: int, codec: Codec, *, itemsize: int = 1) -> int:
    """Return how many bytes of voxels ``stored`` bytes of a file can hold at most.

    >>> possible_bytes(100, "raw"), possible_bytes(100, "deflate"), possible_bytes(100, "hex")
    (100, 103200, 50)
    >>> possible_bytes(5, "text", itemsize=2)  # 1 2 3
    6
    """
    if codec == "deflate":
        return stored * MAX_INFLATION
    if codec == "text":
        return (stored + 1) // 2 * itemsize
    return stored // 2 if codec == "hex" else stored


def check_claim(path: Path, *, claimed: int, stored: int, codec: Codec, itemsize: int = 1) -> None:
    """Reject a header that declares more voxels than the file can hold; raw voxels have to fill the file.

    Args:
        path: of the file with the voxels.
        claimed: bytes of voxels by the header.
        stored: bytes of the file that hold them.
        itemsize: bytes of a number.

    Raises:
        ImageError: the file is too short, or raw voxels do not end where it ends.
    """
    possible = possible_bytes(stored, codec, itemsize=itemsize)
    if claimed > possible:
        how = {"raw": "", "deflate": ", compressed,", "text": " of text", "hex": " of digits"}[codec]
        raise damage_error(
            path,
            f"the header declares {claimed:,} bytes of voxels, and {stored:,} bytes{how} can hold at most {possible:,}",
        )
    if codec == "raw" and stored > claimed:
        raise excess_error(path)


def damage_error(path: Path, detail: str) -> ImageError:
    """Return the error of a file whose content contradicts itself."""
    return ImageError(
        f"is truncated, damaged, or of another format: {detail}",
        where=path,
        remedy="download or export this file again",
        code="E-IMAGE-DAMAGED",
    )


def excess_error(path: Path) -> ImageError:
    """Return the error of a file that holds more voxels than its header declares."""
    return damage_error(path, "the file contains more voxels than the header declares")


def check_gzip(path: Path, *, plain_marks: tuple[bytes, ...]) -> None:
    """Reject an image that is not compressed by gzip although its name says so (``.gz``, ``.mgz``).

    Args:
        plain_marks: beginnings of files of this format that are not compressed.

    Raises:
        ImageError: it begins with one of them, or as an archive.
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        start = stream.read(8)
    archive = next((kind for mark, kind in _ARCHIVES.items() if start.startswith(mark)), None)
    if archive is not None:
        raise ImageError(
            f"is an archive ({archive}), not an image", where=path, remedy="unpack it", code="E-IMAGE-FORMAT"
        )
    if not start.startswith(plain_marks):
        return
    plain = path.name[:-3] if path.name.lower().endswith(".gz") else f"{path.name[:-4]}.mgh"
    raise ImageError(
        f"is not compressed by gzip, but its name ends with {path.suffix}",
        where=path,
        remedy=f"rename it to {plain}, or compress it",
        code="E-IMAGE-FORMAT",
    )


def check_sizes(path: Path, sizes: Sequence[int]) -> int:
    """Return the number of voxels of an array with these axes.

    Raises:
        ImageError: an axis is empty or longer than :data:`MAX_AXIS`.
    """
    if not sizes or min(sizes) < 1 or max(sizes) > MAX_AXIS:
        shown = " x ".join(str(n) if abs(n) < 10**18 else "a huge number" for n in sizes[:8])
        raise ImageError(
            f"declares {shown} voxels; each axis must have 1 to {MAX_AXIS}",
            where=path,
            remedy="fix the header, export this file again, or cut the image into parts",
            code="E-IMAGE-RANGE",
        )
    return prod(sizes)


def check_grid(path: Path, channels: int, geometry: Geometry) -> None:
    """Reject a grid that no scanner makes; the limits are those of all formats.

    An axis of one voxel has no neighbours, and any spacing: nnU-Net v1 writes 999 mm between the slices of 2D images.

    Raises:
        ImageError: an axis or the channels are too many, or a spacing is not plausible.
    """
    check_sizes(path, (*geometry.shape_ZYX[::-1], channels))
    spacing_XYZ = geometry.spacing_ZYX[::-1]
    with_neighbours = [mm for mm, n in zip(spacing_XYZ, geometry.shape_ZYX[::-1], strict=True) if n > 1]
    if not all(isfinite(mm) and MIN_SPACING_MM <= mm <= MAX_SPACING_MM for mm in with_neighbours):
        raise ImageError(
            f"has an implausible spacing (x, y, z): {', '.join(f'{mm:.4g}' for mm in spacing_XYZ)} mm; "
            f"each must be {MIN_SPACING_MM:g} to {MAX_SPACING_MM:g} mm",
            where=path,
            remedy="correct the spacing or its unit in the header",
            code="E-IMAGE-RANGE",
        )
