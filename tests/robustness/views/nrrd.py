"""NRRD by its specification: three axes, raw or gzipped."""

from __future__ import annotations

import re
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustness.views import MustFailError, UnsureError, View, as_array, check_spacing, lps_affine

_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    "float": "f4",
    "double": "f8",
}
_SPACES = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
_VECTOR = re.compile(r"\(([^()]*)\)")


def view(path: Path) -> View:
    """Read a NRRD file, attached or detached."""
    data = path.read_bytes()
    if not re.match(rb"NRRD000[1-5]\r?\n", data):
        raise UnsureError("no magic")
    text, _, rest = data.partition(b"\n\n")
    fields = _fields(text.decode("ascii"))
    if "data file" in fields or "datafile" in fields:
        rest = _other_file(path, fields.get("data file", fields.get("datafile", "")))
    elif b"\n\n" not in data:
        raise MustFailError("no voxels")
    if int(fields["dimension"]) != len(fields["sizes"].split()):
        raise MustFailError("dimension and sizes differ")
    sizes = tuple(int(n) for n in fields["sizes"].split())
    if int(fields.get("byte skip", fields.get("byteskip", 0))) or int(
        fields.get("line skip", fields.get("lineskip", 0))
    ):
        raise UnsureError("skips")
    dtype = np.dtype(({"big": ">", "little": "<"}[fields.get("endian", "little")]) + _TYPES[fields["type"]])
    array = as_array(_unpacked(rest, fields["encoding"], prod(sizes) * dtype.itemsize), dtype, sizes[::-1])
    if len(sizes) != 3:
        raise UnsureError(f"{len(sizes)} axes")
    return View(array_CZYX=array[None], affines=_affines(fields))


def _fields(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        if line.startswith("#") or ":=" in line:
            continue
        name, separator, value = line.partition(":")
        name = name.strip().lower()
        if not separator or name in found:
            raise UnsureError(f"line {line[:40]!r}")
        found[name] = value.strip()
    return found


def _other_file(path: Path, name: str) -> bytes:
    if name.startswith("/") or ".." in name:
        raise MustFailError(f"voxels in {name}")
    if not name or name.startswith("LIST") or "%" in name:
        raise UnsureError("several files")
    if not (path.parent / name).is_file():
        raise MustFailError("no voxels")
    return (path.parent / name).read_bytes()


def _unpacked(data: bytes, encoding: str, need: int) -> bytes:
    if encoding == "raw":
        return data
    if encoding not in ("gzip", "gz"):
        raise UnsureError(encoding)
    try:
        return zlib.decompressobj(31).decompress(data, max(min(need, 2**28), 1))
    except zlib.error as problem:
        raise MustFailError("damaged compressed voxels") from problem


def _affines(fields: dict[str, str]) -> tuple[NDArray[np.float64], ...]:
    if "space directions" not in fields:
        if "spacings" not in fields:
            raise MustFailError("no spacing")
        check_spacing(np.diag([*map(abs, map(float, fields["spacings"].split())), 1.0]))
        return ()
    columns = np.array([_vector(v) for v in _VECTOR.findall(fields["space directions"])]).T
    if columns.shape != (3, 3) or _VECTOR.sub("", fields["space directions"]).strip():
        raise UnsureError("directions")
    signs = _SPACES.get(fields.get("space", "").lower())
    origin = _VECTOR.fullmatch(fields.get("space origin", ""))
    found = lps_affine(columns, np.array(_vector(origin[1])) if origin else np.zeros(3))
    if signs is None or origin is None:
        return ()
    return (np.diag([*signs, 1.0]) @ found,)


def _vector(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]
