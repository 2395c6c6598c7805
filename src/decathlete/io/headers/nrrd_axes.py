"""The axes of an NRRD header: which one is not in space, and the grid of the others, as ITK reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Triple
from decathlete.errors import ImageError
from decathlete.io.headers.text import header_error, integer, numbers, numbers_of, shorten
from decathlete.io.headers.units import require_mm_per_unit
from decathlete.io.spacing import complete_axes

_SPATIAL_KINDS = frozenset({"domain", "space", "time", "???", "none"})
_COMPONENT_KINDS = frozenset(
    {
        *("list", "vector", "covariant-vector", "normal", "point", "stub", "scalar"),
        *("2-vector", "3-vector", "4-vector", "3-gradient", "3-normal", "quaternion"),
        *("3-color", "rgb-color", "hsv-color", "xyz-color", "4-color", "rgba-color"),
    }
)
_SPACES = {
    "right-anterior-superior": (3, (-1.0, -1.0, 1.0)),
    "left-anterior-superior": (3, (1.0, -1.0, 1.0)),
    "left-posterior-superior": (3, (1.0, 1.0, 1.0)),
    "ras": (3, (-1.0, -1.0, 1.0)),
    "las": (3, (1.0, -1.0, 1.0)),
    "lps": (3, (1.0, 1.0, 1.0)),
    "scanner-xyz": (3, (1.0, 1.0, 1.0)),
    "3d-right-handed": (3, (1.0, 1.0, 1.0)),
    "3d-left-handed": (3, (1.0, 1.0, 1.0)),
}
_VECTOR = re.compile(r"\(([^()]*)\)|none", re.IGNORECASE)
_VECTORS = re.compile(r"\s*(?:(?:\([^()]*\)|none)\s*)+", re.IGNORECASE)
_WORD = re.compile(r'"([^"]*)"|([^\s"]+)')

Fields = Mapping[str, str]


def component_axis(path: Path, fields: Fields, sizes: Sequence[int]) -> int | None:
    """Return the axis that holds the components of a voxel, by the kinds of the axes.

    Raises:
        ImageError: kinds are unknown, more than one axis is not in space, or voxels are tensors or complex.
    """
    if "kinds" not in fields:
        return None
    kinds = [kind.lower() for kind in fields["kinds"].split()]
    if len(kinds) != len(sizes):
        raise header_error(path, f"has {len(kinds)} kinds for {len(sizes)} axes")
    others = [axis for axis, kind in enumerate(kinds) if kind not in _SPATIAL_KINDS]
    if unknown := [kinds[axis] for axis in others if kinds[axis] not in _COMPONENT_KINDS]:
        raise ImageError(
            f"has an axis of the kind {shorten(unknown[0])}, not one number per voxel and channel",
            where=path,
            remedy="store each component as a channel of its own (an axis of the kind list)",
            code="E-IMAGE-FORMAT",
        )
    if len(others) > 1:
        raise ImageError(
            f"has {len(others)} axes that are not in space ({', '.join(kinds[axis] for axis in others)})",
            where=path,
            remedy="store it with one axis for the channels",
            code="E-IMAGE-FORMAT",
        )
    return others[0] if others else None


def grid(
    path: Path, fields: Fields, axes: Sequence[int], spacing: Triple | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the step of each spatial axis (columns) and the origin, LPS mm.

    Args:
        axes: the spatial ones.
        spacing: z, y, x in mm, for axes without one.

    Raises:
        ImageError: numbers that cannot be read, too few or too many, or no spacing.
    """
    space_axes, to_LPS = _space(path, fields)
    if not space_axes:
        return _plain_grid(path, fields, axes, spacing)
    if space_axes != len(axes):
        raise header_error(path, f"has {len(axes)} spatial axes in a space of {space_axes} dimensions")
    signs = np.array(to_LPS) * _units(path, "space units", fields.get("spaceunits", ""), space_axes, range(space_axes))
    vectors = _vectors(path, "space directions", fields.get("spacedirections", ""), space_axes)
    if len(vectors) != _n_axes(path, fields):
        raise header_error(path, f"has {len(vectors)} space directions, one for each axis is needed")
    steps = [vectors[axis] for axis in axes]
    if any(step is None for step in steps):
        raise header_error(path, "has no space direction for an axis in space, so the spacing is unknown")
    origin = _vectors(path, "space origin", fields.get("spaceorigin", "none"), space_axes)
    if len(origin) != 1:
        raise header_error(path, "has a space origin that is not one point")
    start = np.zeros(space_axes) if origin[0] is None else np.array(origin[0])
    return signs[:, None] * np.array(steps).T, signs * start


def _n_axes(path: Path, fields: Fields) -> int:
    return integer(path, "dimension", fields["dimension"])


def _space(path: Path, fields: Fields) -> tuple[int, tuple[float, ...]]:
    """Number of dimensions of the space (0: none is declared) and the signs that turn it into LPS."""
    if "space" in fields:
        name = fields["space"].lower()
        if "spacedimension" in fields or name not in _SPACES:
            raise header_error(path, f"declares the space {shorten(name)}, which is not supported")
        return _SPACES[name]
    n_axes = integer(path, "space dimension", fields.get("spacedimension", "0"))
    if not 0 <= n_axes <= 4:
        raise header_error(path, f"declares a space of {n_axes} dimensions")
    return n_axes, (1.0,) * n_axes


def _vectors(path: Path, field: str, text: str, count: int) -> list[tuple[float, ...] | None]:
    """Vectors ``(x,y,z)``, each of ``count`` numbers, or ``none``."""
    if not text or not _VECTORS.fullmatch(text):
        raise header_error(path, f"has {field} {shorten(text)}, which are not vectors such as (1,0,0)")
    found = []
    for match in _VECTOR.finditer(text):
        parts = None if match[1] is None else [part.strip() for part in match[1].split(",")]
        found.append(None if parts is None else numbers_of(path, field, parts, count))
    return found


def _plain_grid(
    path: Path, fields: Fields, axes: Sequence[int], given: Triple | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The grid of a header without a space: spacings along the axes, the origin from the borders of the axes."""
    stored: list[float | None] = [None] * len(axes)
    mm = _units(path, "units", fields.get("units", ""), _n_axes(path, fields), axes)
    if "spacings" in fields:
        spacings = _per_axis(path, "spacings", fields["spacings"], fields)
        stored = [spacings[axis] * unit for axis, unit in zip(axes, mm, strict=True)]
    spacing = np.array(complete_axes(stored, given, path))
    return np.diag(spacing), _plain_origin(path, fields, axes, spacing, mm)


def _units(path: Path, field: str, text: str, count: int, axes: Sequence[int]) -> NDArray[np.float64]:
    """Return the unit of each of ``axes``, mm; axes after the third are not in space.

    Args:
        text: of the field: a word in quotation marks for each of ``count`` axes; empty: mm.
    """
    names = [quoted or plain for quoted, plain in _WORD.findall(text)] or [""] * count
    if len(names) != count:
        raise header_error(path, f"has {len(names)} {field} for {count} axes")
    mm = [require_mm_per_unit(path, field, names[axis]) for axis in axes[:3]]
    return np.array([*mm, *[1.0] * (len(axes) - len(mm))])


def _plain_origin(
    path: Path, fields: Fields, axes: Sequence[int], spacing: NDArray[np.float64], mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    if "axismins" not in fields:
        return np.zeros(len(axes))
    mins = _per_axis(path, "axis mins", fields["axismins"], fields)
    low = np.array([mins[axis] for axis in axes]) * mm
    if not np.isfinite(low).all():
        return np.zeros(len(axes))
    centers = fields.get("centers", fields.get("centerings", "")).lower().split() or ["cell"] * _n_axes(path, fields)
    if len(centers) != _n_axes(path, fields):
        raise header_error(path, f"has {len(centers)} centers for {_n_axes(path, fields)} axes")
    cells = np.array([centers[axis] != "node" for axis in axes])
    return np.asarray(low + cells * spacing / 2, dtype=np.float64)


def _per_axis(path: Path, field: str, text: str, fields: Fields) -> list[float]:
    """One number for each axis; ``nan`` where an axis has none."""
    parts = text.split()
    known = numbers(path, field, " ".join("0" if p.lower() == "nan" else p for p in parts), _n_axes(path, fields))
    values = [float("nan") if part.lower() == "nan" else value for part, value in zip(parts, known, strict=True)]
    return [value if isfinite(value) else float("nan") for value in values]
