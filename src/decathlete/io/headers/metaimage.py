"""Headers of MetaImage files, checked line by line: https://itk.org/Wiki/ITK/MetaIO/Documentation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Triple
from decathlete.errors import ImageError
from decathlete.io.headers.raster import Raster, VoxelFile, numbered_names, sibling
from decathlete.io.headers.text import (
    MAX_LINES,
    check_field_length,
    header_error,
    integer,
    integers,
    numbers,
    read_line,
    required_field,
    shorten,
)
from decathlete.io.headers.units import require_mm_per_unit
from decathlete.io.limits import damage_error
from decathlete.io.spacing import complete_axes

_ALIASES = {
    **dict.fromkeys(("Position", "Origin"), "Offset"),
    **dict.fromkeys(("Rotation", "Orientation"), "TransformMatrix"),
}
_CHECKED = frozenset(
    {
        *("NDims", "BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "CompressedData"),
        *("CompressedDataSize", "TransformMatrix", "Offset", "ElementSpacing", "ElementSize", "DimSize"),
        *("HeaderSize", "ElementNumberOfChannels", "ElementType", "DistanceUnits"),
    }
)
_FREE_TEXT = "ElementDataFile"
_UNKNOWN_UNIT = "?"
"""DistanceUnits of a program that does not know them; ITK writes mm without saying so."""
_TYPES = {
    **dict.fromkeys(("MET_CHAR", "MET_ASCII_CHAR"), "i1"),
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    **dict.fromkeys(("MET_INT", "MET_LONG"), "i4"),  # a MET_LONG has 4 bytes, whatever the computer
    **dict.fromkeys(("MET_UINT", "MET_ULONG"), "u4"),
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_SEPARATOR = re.compile("[=:]")
_LIST = re.compile(r"LIST( [0-9]{1,2}D?)?", re.IGNORECASE)


def read_metaimage(path: Path, *, spacing: Triple | None = None) -> Raster:
    """Read and check the header of ``path``.

    Args:
        spacing: z, y, x in mm, for axes whose spacing the file does not contain.

    Raises:
        ImageError: the header is not valid, or the file cannot hold what it declares.
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        fields, listed = _read_fields(stream, path)
        start = stream.tell()
    dimension = integer(path, "NDims", required_field(path, fields, "NDims"))
    if not 1 <= dimension <= 10:
        raise header_error(path, f"declares {dimension} axes")
    spatial = integers(path, "DimSize", required_field(path, fields, "DimSize"), dimension)
    components = integer(path, "ElementNumberOfChannels", fields.get("ElementNumberOfChannels", "1"))
    steps, origin = _grid(path, fields, dimension, spacing)
    sizes = spatial if components == 1 else (components, *spatial)
    compressed = _flag(path, fields, "CompressedData")
    return Raster(
        path=path,
        sizes=sizes,
        component_axis=None if components == 1 else 0,
        dtype=_dtype(path, fields),
        codec="deflate" if compressed else "raw",
        files=_voxel_files(path, fields, listed, start, sizes, compressed),
        steps=steps,
        origin=origin,
    ).check()


def _read_fields(stream: BufferedReader, path: Path) -> tuple[dict[str, str], list[str]]:
    """Fields up to ``ElementDataFile``, and the files of a list."""
    fields: dict[str, str] = {}
    for _ in range(MAX_LINES):
        line = read_line(stream, path)
        if line is None:
            break
        if not line.strip():
            continue
        _add_field(path, fields, line)
        if _FREE_TEXT in fields:
            return fields, _read_list(stream, path, fields[_FREE_TEXT])
    raise damage_error(path, "the header has no field ElementDataFile")


def _add_field(path: Path, fields: dict[str, str], line: str) -> None:
    key, *values = (part.strip() for part in _SEPARATOR.split(line, maxsplit=1))
    if not key or not values:
        raise header_error(path, f"has the line {shorten(line)}, which is not a field and its value")
    name, (value,) = _ALIASES.get(key, key), values
    if name not in _CHECKED and name != _FREE_TEXT:
        return
    if name in fields:
        raise header_error(path, f"has the field {name} twice")
    if name != _FREE_TEXT:
        check_field_length(path, name, value)
    fields[name] = value


def _read_list(stream: BufferedReader, path: Path, text: str) -> list[str]:
    names: list[str] = []
    if not _LIST.fullmatch(text):
        return names
    while (line := read_line(stream, path)) is not None:
        names += [line.strip()] if line.strip() else []
        if len(names) > MAX_LINES:
            raise header_error(path, f"lists more than {MAX_LINES:,} files")
    if not names:
        raise header_error(path, "lists no files with voxels")
    return names


def _flag(path: Path, fields: Mapping[str, str], name: str, default: str = "False") -> bool:
    text = fields.get(name, default)
    if text.lower() not in ("true", "false", "1", "0", "t", "f"):
        raise header_error(path, f"has {shorten(text)} in {name}, which is neither True nor False")
    return text.lower() in ("true", "1", "t")


def _dtype(path: Path, fields: Mapping[str, str]) -> np.dtype[Any]:
    name = required_field(path, fields, "ElementType")
    kind = _TYPES.get(name.removesuffix("_ARRAY"))
    if kind is None:
        raise header_error(path, f"declares numbers of the type {shorten(name)}")
    if not _flag(path, fields, "BinaryData", "True"):
        raise ImageError(
            "has voxels as text, which is not supported",
            where=path,
            remedy="save it as MetaImage with binary voxels",
            code="E-IMAGE-FORMAT",
        )
    orders = {name: _flag(path, fields, name) for name in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")}
    declared = [order for name, order in orders.items() if name in fields]
    if len(set(declared)) > 1:
        raise header_error(path, "declares two byte orders")
    return np.dtype(kind).newbyteorder(">" if any(declared) else "<")


def _grid(
    path: Path, fields: Mapping[str, str], dimension: int, given: Triple | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the step of each axis (columns) and the origin, LPS mm."""
    name = "ElementSpacing" if "ElementSpacing" in fields else "ElementSize"
    unit = fields.get("DistanceUnits", "")
    mm = require_mm_per_unit(path, "DistanceUnits", "" if unit == _UNKNOWN_UNIT else unit)
    stored: list[float | None] = [None] * dimension
    if name in fields:
        stored = [value * mm for value in numbers(path, name, fields[name], dimension)]
    spacing = np.array(complete_axes(stored, given, path))
    origin, cosines = np.zeros(dimension), np.eye(dimension)
    if "Offset" in fields:
        origin = np.array(numbers(path, "Offset", fields["Offset"], dimension)) * mm
    if "TransformMatrix" in fields:
        values = numbers(path, "TransformMatrix", fields["TransformMatrix"], dimension**2)
        cosines = (
            np.array(values).reshape(dimension, dimension).T
        )  # the file has the direction of one axis after another
    return cosines * spacing, origin


def _voxel_files(
    path: Path, fields: Mapping[str, str], listed: list[str], start: int, sizes: tuple[int, ...], compressed: bool
) -> tuple[VoxelFile, ...]:
    text = fields[_FREE_TEXT]
    header_size = integer(path, "HeaderSize", fields.get("HeaderSize", "0"))
    local = text.upper() == "LOCAL"
    if header_size < -1 or (header_size > 0 and (local or compressed)):
        raise header_error(path, f"declares {header_size} bytes before the voxels (HeaderSize)")
    names = [] if local else listed or numbered_names(path, text) or [text]
    if compressed:
        return (_compressed_file(path, fields, names, start),)
    n_bytes = prod(sizes) * _dtype(path, fields).itemsize // max(len(names), 1)
    if local:
        return (_raw_file(path, start, header_size, n_bytes),)
    return tuple(_raw_file(sibling(path, name), header_size, header_size, n_bytes) for name in names)


def _raw_file(path: Path, start: int, header_size: int, n_bytes: int) -> VoxelFile:
    end = path.stat().st_size
    start = max(end - n_bytes, max(start, 0)) if header_size == -1 else start
    return VoxelFile(path=path, start=start, stored=max(end - start, 0))


def _compressed_file(path: Path, fields: Mapping[str, str], names: list[str], start: int) -> VoxelFile:
    """The zlib stream, whose size the header has to declare."""
    if len(names) > 1:
        raise header_error(path, "declares several compressed files")
    stored = integer(path, "CompressedDataSize", required_field(path, fields, "CompressedDataSize"))
    file, start = (sibling(path, names[0]), 0) if names else (path, start)
    held = file.stat().st_size - start
    if stored != held:
        raise damage_error(
            file, f"the header declares {stored:,} bytes of compressed voxels, and the file contains {held:,}"
        )
    return VoxelFile(path=file, start=start, stored=stored)
