"""NIfTI-1 by its specification."""

from __future__ import annotations

import struct
import zlib
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustness.views import MustFailError, UnsureError, View, as_array, check_spacing

_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_MM = {1: 1000.0, 2: 1.0, 3: 0.001, 0: 1.0}
_MOST_BYTES = 2**26


def view(path: Path) -> View:
    """Read a NIfTI-1 file."""
    data = _unpacked(path)
    order = next((o for o in "<>" if len(data) >= 352 and struct.unpack_from(o + "i", data)[0] == 348), "")
    if not order or data[344:348] != b"n+1\0":
        raise UnsureError("not NIfTI-1 in one file")
    sizes = _sizes(struct.unpack_from(order + "8h", data, 40))
    datatype = struct.unpack_from(order + "h", data, 70)[0]
    offset, slope, inter = struct.unpack_from(order + "3f", data, 108)
    if not isfinite(offset) or offset < 0:
        raise MustFailError(f"vox_offset {offset}")
    if datatype not in _TYPES or not 352 <= offset == int(offset):
        raise UnsureError(f"datatype {datatype}, vox_offset {offset}")
    array = as_array(data[int(offset) :], np.dtype(order + _TYPES[datatype]), sizes[::-1])
    affines = _affines(data, order)
    if not (isfinite(slope) and isfinite(inter)):
        raise UnsureError(f"scl_slope {slope}, scl_inter {inter}")
    scaled = array if slope == 0 else array * slope + inter
    return View(array_CZYX=_channels_first(scaled), affines=affines)


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix.lower() != ".gz":
        return data
    unpacker = zlib.decompressobj(31)
    try:
        found = unpacker.decompress(data, _MOST_BYTES)
    except zlib.error as problem:
        raise MustFailError(f"gzip: {problem}") from problem
    if not unpacker.eof:
        raise (UnsureError("too large") if unpacker.unconsumed_tail else MustFailError("gzip: truncated"))
    if unpacker.unused_data:
        raise UnsureError("several gzip members")
    return found


def _sizes(dim: tuple[int, ...]) -> tuple[int, ...]:
    if not 1 <= dim[0] <= 7:
        raise MustFailError(f"dim[0] is {dim[0]}")
    sizes = dim[1 : dim[0] + 1]
    if min(sizes) < 1:
        raise MustFailError(f"dim {dim}")
    return sizes


def _channels_first(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return C, Z, Y, X; trailing axes of one voxel do not count."""
    shape = list(array.shape[::-1])
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) > 4 or len(shape) < 2:
        raise UnsureError(f"{len(shape)} axes")
    shape += [1] * (4 - len(shape))
    return array.reshape(tuple(shape[::-1]))


def _affines(data: bytes, order: str) -> tuple[NDArray[np.float64], ...]:
    qform_code, sform_code = struct.unpack_from(order + "2h", data, 252)
    unit = _MM.get(data[123] & 7)
    if not (0 <= qform_code <= 5 and 0 <= sform_code <= 5) or unit is None:
        return ()
    found = []
    if sform_code:
        rows = np.array(struct.unpack_from(order + "12f", data, 280), float).reshape(3, 4)
        found.append(np.vstack([rows, [0, 0, 0, 1]]))
    if qform_code and (turned := _qform(data, order)) is not None:
        found.append(turned)
    elif qform_code:
        return ()
    for affine in found[:1]:  # what the header prefers must be a grid
        affine[:3] *= unit
        check_spacing(affine)
    for affine in found[1:]:
        affine[:3] *= unit
    if not found:
        check_spacing(np.diag([*(unit * abs(s) for s in struct.unpack_from(order + "3f", data, 80)), 1.0]))
    return tuple(found)


def _qform(data: bytes, order: str) -> NDArray[np.float64] | None:
    b, c, d, x, y, z = struct.unpack_from(order + "6f", data, 256)
    pixdim = struct.unpack_from(order + "4f", data, 76)
    square = 1 - (b * b + c * c + d * d)
    if not isfinite(square) or square < -1e-5 or pixdim[0] not in (-1.0, 1.0, 0.0):
        return None
    a = max(square, 0.0) ** 0.5
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn * np.array([pixdim[1], pixdim[2], pixdim[3] * (-1 if pixdim[0] == -1 else 1)])
    affine[:3, 3] = (x, y, z)
    return affine
