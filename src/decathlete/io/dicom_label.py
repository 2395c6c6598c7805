"""Label maps from DICOM SEG objects and RT structure sets."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry
from decathlete.errors import ImageError
from decathlete.io.dicom_structures import Structure, list_structures, read_structure_masks, structure_kind
from decathlete.io.volumes import LabelMap, smallest_integer

_SUFFIXES = (".dcm", ".dicom", "")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LabelStructures:
    """How an object with structures becomes a label map.

    Attributes:
        image: the image that the structures were drawn on.
        names: pattern of the names of structures (``*``, in any case), and the label value; where structures overlap,
            later ones overwrite earlier ones.
    """

    image: Path
    names: tuple[tuple[str, int], ...]


def is_structure_file(path: Path) -> bool:
    """Return whether a label is a SEG object or a structure set; only files that may be DICOM are opened."""
    return path.suffix.lower() in _SUFFIXES and structure_kind(path) is not None


def structure_names(values: Mapping[str, int], patterns: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """Return the patterns of :class:`LabelStructures`.

    Args:
        values: class -> label value.
        patterns: class -> pattern of its structures; the name of the class by default.
    """
    return tuple((patterns.get(name, name), value) for name, value in values.items() if value != 0)


def read_structure_label(path: Path, geometry: Geometry, names: Sequence[tuple[str, int]]) -> LabelMap:
    """Read a SEG object or a structure set as a label map on the grid of its image.

    Args:
        names: see :class:`LabelStructures`.

    Raises:
        ImageError: it is damaged, has none of the structures, or does not lie on the grid.
    """
    ranks = _ranks(list_structures(path), names)
    if not ranks:
        listed = ", ".join(structure.name for structure in list_structures(path)[:10])
        raise ImageError(
            f"contains none of the structures {', '.join(pattern for pattern, _ in names)} (it has {listed})",
            where=path,
            remedy="name its structures: --structures 'CLASS=NAME', or \"dicom_structures\" in dataset.json",
            code="E-IMAGE-VALUES",
        )
    painted_ZYX = np.zeros(geometry.shape_ZYX, np.uint16)
    n_overwritten = 0
    for mask in read_structure_masks(path, geometry, frozenset(ranks)):
        rank = ranks[mask.number]
        before = painted_ZYX[mask.indices_ZYX]
        n_overwritten += int(((before != 0) & (before != rank)).sum())
        painted_ZYX[mask.indices_ZYX] = np.maximum(before, rank)
    if n_overwritten:
        _log.warning(
            "%s: %d voxels belong to several structures; the class that is declared later counts", path, n_overwritten
        )
    table = np.array([0, *(value for _, value in names)])
    values: NDArray[Any] = table.astype(smallest_integer(table))
    return LabelMap(array_ZYX=values[painted_ZYX], geometry=geometry)


def contour_gaps(path: Path, geometry: Geometry, names: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Return how many slices between the contours of a structure have none; structures without gaps are left out.

    Args:
        names: see :class:`LabelStructures`.

    Raises:
        ImageError: the object is damaged, or does not lie on the grid.
    """
    from decathlete.io import dicom_structure_set_reader

    if structure_kind(path) != "structure set":
        return {}
    structures = list_structures(path)
    gaps = dicom_structure_set_reader.contour_gaps(path, geometry, frozenset(_ranks(structures, names)))
    return {structure.name: gaps[structure.number] for structure in structures if structure.number in gaps}


def _ranks(structures: Sequence[Structure], names: Sequence[tuple[str, int]]) -> dict[int, int]:
    """Return number of the structure -> place in ``names``, from 1; the first pattern that fits decides."""
    ranks = {}
    for structure in structures:
        fitting = [k for k, (pattern, _) in enumerate(names, start=1) if _fits(structure.name, pattern)]
        if fitting:
            ranks[structure.number] = fitting[0]
    return ranks


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name.lower().strip(), pattern.lower().strip())
