"""Headers of NIfTI files, checked before nibabel reads them: https://nifti.nimh.nih.gov/nifti-1."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from math import isinf
from pathlib import Path

from decathlete.errors import ImageError
from decathlete.io.headers.text import header_error
from decathlete.io.limits import GZIP_MARK, check_claim, check_gzip, check_sizes, damage_error

_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64} | {
    32: 64,
    128: 24,
    1792: 128,
    2304: 32,
}
"""Bits per voxel of each data type: numbers, then complex numbers and colours."""

_MARKS = tuple(struct.pack(f"{order}i", size) for order in "<>" for size in (348, 540))
"""First bytes of a header: its size, in either byte order."""

_COLOURS = {128: "RGB", 2304: "RGBA"}
_COMPLEX = {32, 1792}
_RARE = {1: "single bits", 1536: "numbers of 128 bits", 2048: "numbers of 256 bits"}
_MAX_CODE = 5
"""Maximum code of a transform: a template's other space."""


@dataclass(frozen=True, kw_only=True)
class _Fields:
    """Fields of a header, of version 1 or 2.

    Attributes:
        dim: number of axes, then the size of each.
        start: offset of the voxels.
        slope: of the stored numbers; not used if it is 0 or no number.
        codes: of the qform and of the sform.
    """

    version: int
    dim: tuple[int, ...]
    datatype: int
    bits: int
    start: float
    slope: float
    codes: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class NiftiHeader:
    """A checked header.

    Attributes:
        version: 1 or 2.
        start: offset of the voxels, after decompression.
        n_bytes: bytes of all voxels.
    """

    version: int
    start: int
    n_bytes: int


def read_nifti(path: Path) -> NiftiHeader:
    """Read and check the header of ``path``; a name that ends with ``.gz`` means compressed.

    Raises:
        ImageError: the header is not valid, or the file cannot hold what it declares.
        OSError, EOFError: the file cannot be read.
    """
    compressed = path.name.lower().endswith(".gz")
    if compressed:
        check_gzip(path, plain_marks=_MARKS)
    with gzip.open(path) if compressed else path.open("rb") as stream:
        fields = _parse(stream.read(540), path)
    _check_voxel_type(fields, path)
    _check_transforms(fields, path)
    n_axes = fields.dim[0]
    if not 1 <= n_axes <= 7:
        raise header_error(path, f"declares {n_axes} axes")
    n_bytes = check_sizes(path, fields.dim[1 : n_axes + 1]) * fields.bits // 8
    header = NiftiHeader(version=fields.version, start=_start(fields, path), n_bytes=n_bytes)
    stored = path.stat().st_size
    check_claim(path, claimed=header.start + n_bytes, stored=stored, codec="deflate" if compressed else "raw")
    return header


def _parse(content: bytes, path: Path) -> _Fields:
    if content[:2] == GZIP_MARK and path.name.lower().endswith(".gz"):
        raise ImageError("is compressed twice", where=path, remedy="decompress it once (gunzip)", code="E-IMAGE-FORMAT")
    if content[:2] == GZIP_MARK:
        raise ImageError(
            "is compressed, but its name does not end with .gz",
            where=path,
            remedy=f"rename it to {path.name}.gz",
            code="E-IMAGE-FORMAT",
        )
    for order in "<>":
        (size,) = struct.unpack(f"{order}i", content[:4].ljust(4, b"\0"))
        if size == 348 and len(content) >= 348 and content[344:348] == b"n+1\0":
            datatype, bits = struct.unpack(f"{order}2h", content[70:74])
            dim = struct.unpack(f"{order}8h", content[40:56])
            start, slope = struct.unpack(f"{order}2f", content[108:116])
            codes = struct.unpack(f"{order}2h", content[252:256])
            return _Fields(
                version=1, dim=dim, datatype=datatype, bits=bits, start=start, slope=slope, codes=(codes[0], codes[1])
            )
        if size == 540 and len(content) == 540 and content[4:7] == b"n+2":
            datatype, bits = struct.unpack(f"{order}2h", content[12:16])
            dim = struct.unpack(f"{order}8q", content[16:80])
            start, slope = struct.unpack(f"{order}qd", content[168:184])
            codes = struct.unpack(f"{order}2i", content[344:352])
            return _Fields(
                version=2, dim=dim, datatype=datatype, bits=bits, start=start, slope=slope, codes=(codes[0], codes[1])
            )
    raise damage_error(path, "the file does not begin with a NIfTI header")


def _check_transforms(fields: _Fields, path: Path) -> None:
    """Reject codes and slopes that nibabel would ignore without a word: the image would lie elsewhere, or be dimmer."""
    for name, code in zip(("qform", "sform"), fields.codes, strict=True):
        if not 0 <= code <= _MAX_CODE:
            raise header_error(path, f"declares the {name} code {code}, which does not exist")
    if isinf(fields.slope):
        raise header_error(path, "declares an infinite slope of the intensities (scl_slope)")


def _check_voxel_type(fields: _Fields, path: Path) -> None:
    """Reject types that are not one number per voxel, and those that the format does not know."""
    if fields.datatype in _RARE:
        raise ImageError(
            f"contains {_RARE[fields.datatype]}, which are not supported",
            where=path,
            remedy="save it with whole numbers or as float32",
            code="E-IMAGE-FORMAT",
        )
    if _BITS.get(fields.datatype) != fields.bits:
        raise header_error(path, f"declares the data type {fields.datatype} with {fields.bits} bits per voxel")
    if fields.datatype in _COLOURS or fields.datatype in _COMPLEX:
        kind = f"colours ({_COLOURS[fields.datatype]})" if fields.datatype in _COLOURS else "complex numbers"
        raise ImageError(
            f"contains {kind}, not one number per voxel and channel",
            where=path,
            remedy="store each component as a channel of its own (4D, channels last), or convert it to gray values",
            code="E-IMAGE-FORMAT",
        )


def _start(fields: _Fields, path: Path) -> int:
    low = 352 if fields.version == 1 else 544
    if not low <= fields.start <= 2**31 or fields.start != int(fields.start):
        raise header_error(path, f"declares that the voxels begin at byte {fields.start:g} (vox_offset)")
    return int(fields.start)
