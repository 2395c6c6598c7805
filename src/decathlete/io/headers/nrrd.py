"""Headers of NRRD files, checked line by line: https://teem.sourceforge.net/nrrd/format.html."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from decathlete.core.geometry import Triple
from decathlete.errors import ImageError
from decathlete.io.headers import nrrd_axes
from decathlete.io.headers.raster import Raster, VoxelFile, numbered_names, sibling
from decathlete.io.headers.text import (
    MAX_LINES,
    check_field_length,
    header_error,
    integer,
    integers,
    read_line,
    required_field,
    shorten,
)
from decathlete.io.limits import Codec, damage_error

_FREE_TEXT = frozenset({"content", "labels", "units", "spaceunits", "sampleunits", "datafile"})
_FIELDS = _FREE_TEXT | {
    *("number", "type", "blocksize", "dimension", "space", "spacedimension", "sizes", "spacings", "thicknesses"),
    *("axismins", "axismaxs", "spacedirections", "centers", "centerings", "kinds", "min", "max", "oldmin", "oldmax"),
    *("endian", "encoding", "lineskip", "byteskip", "spaceorigin", "measurementframe"),
}
_CODECS: Mapping[str, Codec] = {
    **dict.fromkeys(("raw",), "raw"),
    **dict.fromkeys(("gz", "gzip"), "deflate"),
    **dict.fromkeys(("txt", "text", "ascii"), "text"),
    "hex": "hex",
}
_TYPES = {
    **dict.fromkeys(("signed char", "char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(
        ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"), "i8"
    ),
    **dict.fromkeys(
        ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
        "u8",
    ),
    "float": "f4",
    "double": "f8",
}
_MAGIC = re.compile(r"NRRD000[1-5]")
_REMEDY = "save it as NRRD with the encoding gzip or raw"


def read_nrrd(path: Path, *, spacing: Triple | None = None) -> Raster:
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
    dimension = integer(path, "dimension", required_field(path, fields, "dimension"))
    if not 1 <= dimension <= 16:
        raise header_error(path, f"declares {dimension} axes")
    sizes = integers(path, "sizes", required_field(path, fields, "sizes"), dimension)
    component_axis = nrrd_axes.component_axis(path, fields, sizes)
    spatial = [axis for axis in range(dimension) if axis != component_axis]
    steps, origin = nrrd_axes.grid(path, fields, spatial, spacing)
    codec = _codec(path, fields)
    dtype = _dtype(path, fields, codec)
    return Raster(
        path=path,
        sizes=sizes,
        component_axis=component_axis,
        dtype=dtype,
        codec=codec,
        files=_voxel_files(path, fields, listed, start, codec, prod(sizes) * dtype.itemsize),
        steps=steps,
        origin=origin,
    ).check()


def _read_fields(stream: BufferedReader, path: Path) -> tuple[dict[str, str], list[str]]:
    """Fields by their lower-case name without spaces, and the files of ``data file: LIST``."""
    magic = read_line(stream, path)
    if magic is None or not _MAGIC.fullmatch(magic):
        raise damage_error(path, f"the file begins with {shorten(magic or '')} instead of NRRD0001 to NRRD0005")
    fields: dict[str, str] = {}
    for _ in range(MAX_LINES):
        line = read_line(stream, path)
        if not line:
            return fields, []
        if not line.startswith("#"):
            _add_field(path, fields, line)
        if fields.get("datafile", "").split(" ")[0] == "LIST":
            return fields, _read_list(stream, path)
    raise header_error(path, f"has more than {MAX_LINES:,} lines")


def _add_field(path: Path, fields: dict[str, str], line: str) -> None:
    name, separator, text = line.partition(": ")
    key = name.lower().replace(" ", "")
    if not separator or key not in _FIELDS:
        if ":=" not in line:
            raise header_error(
                path, f"has the line {shorten(line)}, which is neither a known field nor a key and value"
            )
        return
    if key in fields:
        raise header_error(path, f"has the field {shorten(name)} twice")
    if key not in _FREE_TEXT:
        check_field_length(path, name, text)
    fields[key] = text.strip()


def _read_list(stream: BufferedReader, path: Path) -> list[str]:
    names: list[str] = []
    while line := read_line(stream, path):
        names.append(line.strip())
        if len(names) > MAX_LINES:
            raise header_error(path, f"lists more than {MAX_LINES:,} files")
    return names


def _codec(path: Path, fields: Mapping[str, str]) -> Codec:
    encoding = required_field(path, fields, "encoding").lower()
    if encoding not in _CODECS:
        raise ImageError(
            f"has voxels in the encoding {shorten(encoding)}, which is not supported",
            where=path,
            remedy=_REMEDY,
            code="E-IMAGE-FORMAT",
        )
    return _CODECS[encoding]


def _dtype(path: Path, fields: Mapping[str, str], codec: Codec) -> np.dtype[Any]:
    name = required_field(path, fields, "type").lower()
    if name not in _TYPES:
        raise header_error(path, f"declares numbers of the type {shorten(name)}")
    kind = np.dtype(_TYPES[name])
    if kind.itemsize == 1 or codec == "text":
        return kind
    endian = required_field(path, fields, "endian").lower()
    if endian not in ("little", "big"):
        raise header_error(path, f"declares the byte order {shorten(endian)}")
    return kind.newbyteorder("<" if endian == "little" else ">")


def _voxel_files(
    path: Path, fields: Mapping[str, str], listed: list[str], start: int, codec: Codec, n_bytes: int
) -> tuple[VoxelFile, ...]:
    lines = integer(path, "line skip", fields.get("lineskip", "0"))
    skip = integer(path, "byte skip", fields.get("byteskip", "0"))
    if not 0 <= lines <= MAX_LINES or skip < (-1 if codec == "raw" else 0) or (skip and codec in ("text", "hex")):
        raise header_error(path, f"skips {lines} lines and {skip} bytes before the voxels")
    names = _file_names(path, fields, listed)
    if not names:
        return (_voxel_file(path, start, lines, skip, codec, n_bytes),)
    each = n_bytes // len(names)
    return tuple(_voxel_file(sibling(path, name), 0, lines, skip, codec, each) for name in names)


def _file_names(path: Path, fields: Mapping[str, str], listed: list[str]) -> list[str]:
    text = fields.get("datafile", "")
    if listed or text.split(" ")[0] == "LIST":
        if not listed:
            raise header_error(path, "lists no files with voxels")
        return listed
    numbered = numbered_names(path, text)
    if numbered is not None:
        return numbered
    return [text] if text else []


def _voxel_file(path: Path, start: int, lines: int, skip: int, codec: Codec, n_bytes: int) -> VoxelFile:
    end = path.stat().st_size
    if lines:
        with path.open("rb") as stream:
            stream.seek(start)
            for _ in range(lines):
                read_line(stream, path)
            start = stream.tell()
    if codec != "raw":
        return VoxelFile(path=path, start=start, stored=max(end - start, 0), skip=skip)
    start = max(end - n_bytes, start) if skip == -1 else start + skip
    return VoxelFile(path=path, start=start, stored=max(end - start, 0))
