"""MetaImage by its documentation: three axes, plain or compressed."""

from __future__ import annotations

import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustness.views import MustFailError, UnsureError, View, as_array, lps_affine

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_SYNONYMS = {
    "Position": "Offset",
    "Origin": "Offset",
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "ElementSize": "ElementSpacing",
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}


def view(path: Path) -> View:
    """Read a MetaImage, attached or detached."""
    fields, rest = _fields(path.read_bytes())
    if fields["ObjectType"] != "Image" or fields.get("HeaderSize", "0") != "0" or not _flag(fields, "BinaryData"):
        raise UnsureError("not a plain image")
    rest = rest if fields["ElementDataFile"] == "LOCAL" else _other_file(path, fields["ElementDataFile"])
    sizes = tuple(int(n) for n in fields["DimSize"].split())
    if int(fields["NDims"]) != len(sizes):
        raise MustFailError("NDims and DimSize differ")
    channels = int(fields.get("ElementNumberOfChannels", 1))
    order = ">" if _flag(fields, "BinaryDataByteOrderMSB") else "<"
    dtype = np.dtype(order + _TYPES[fields["ElementType"]])
    shape = (*sizes[::-1], channels)
    array = as_array(_unpacked(rest, fields, prod(shape) * dtype.itemsize), dtype, shape)
    if len(sizes) != 3:
        raise UnsureError(f"{len(sizes)} axes")
    return View(array_CZYX=np.moveaxis(array, -1, 0), affines=_affines(fields))


def _fields(data: bytes) -> tuple[dict[str, str], bytes]:
    found: dict[str, str] = {}
    while data and "ElementDataFile" not in found:
        line, _, data = data.partition(b"\n")
        name, separator, value = line.decode("ascii").partition("=")
        name = _SYNONYMS.get(name.strip(), name.strip())
        if not separator or name in found:
            raise UnsureError(f"line {line[:40]!r}")
        found[name] = value.strip()
    return found, data


def _flag(fields: dict[str, str], name: str) -> bool:
    return fields.get(name, "False").lower() in ("true", "t", "1")


def _other_file(path: Path, name: str) -> bytes:
    if name.startswith("/") or ".." in name:
        raise MustFailError(f"voxels in {name}")
    if not name or name.startswith("LIST") or "%" in name:
        raise UnsureError("several files")
    if not (path.parent / name).is_file():
        raise MustFailError("no voxels")
    return (path.parent / name).read_bytes()


def _unpacked(data: bytes, fields: dict[str, str], need: int) -> bytes:
    if not _flag(fields, "CompressedData"):
        return data
    try:
        return zlib.decompressobj().decompress(data, max(min(need, 2**28), 1))
    except zlib.error as problem:
        raise MustFailError("damaged compressed voxels") from problem


def _affines(fields: dict[str, str]) -> tuple[NDArray[np.float64], ...]:
    if "ElementSpacing" not in fields:
        raise MustFailError("no spacing")
    spacing = _numbers(fields["ElementSpacing"], 3)
    matrix = _numbers(fields.get("TransformMatrix", "1 0 0 0 1 0 0 0 1"), 9).reshape(3, 3).T
    origin = _numbers(fields.get("Offset", "0 0 0"), 3)
    if (spacing <= 0).any():
        raise MustFailError(f"spacing {spacing}")
    affine = lps_affine(matrix * spacing, origin)
    return (affine,) if "Offset" in fields and "TransformMatrix" in fields else ()


def _numbers(text: str, n: int) -> NDArray[np.float64]:
    try:
        found = np.array([float(part) for part in text.split()])
    except ValueError as problem:
        raise MustFailError("text instead of numbers") from problem
    if len(found) != n:
        raise MustFailError(f"{len(found)} numbers, not {n}")
    return found
