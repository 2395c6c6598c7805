"""Label maps from DICOM SEG objects and RT structure sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry
from decathlete.errors import ImageError
from decathlete.io.dicom_structures import (
    Structure,
    Warn,
    list_structures,
    log_warnings,
    read_structure_masks,
    structure_kind,
)
from decathlete.io.volumes import LabelMap, smallest_integer

_SUFFIXES = (".dcm", ".dicom", "")


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


@dataclass(frozen=True, kw_only=True)
class StructureMatch:
    """How the structures of an object fit patterns of names.

    Attributes:
        missing: label values that no structure becomes.
        unused: names of the structures that fit no pattern.
    """

    missing: tuple[int, ...]
    unused: tuple[str, ...]


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


def read_structure_label(
    path: Path, geometry: Geometry, names: Sequence[tuple[str, int]], warn: Warn | None = None
) -> LabelMap:
    """Read a SEG object or a structure set as a label map on the grid of its image.

    Args:
        names: see :class:`LabelStructures`.
        warn: called for parts of the structures that are not used or are missing; ``None``: a warning is logged.

    Raises:
        ImageError: it is damaged, has none of the structures, or does not lie on the grid.
    """
    warn = warn or log_warnings(path)
    structures = list_structures(path)
    ranks = _ranks(structures, names)
    if not ranks:
        listed = ", ".join(structure.name for structure in structures[:10])
        raise ImageError(
            f"contains none of the structures {', '.join(pattern for pattern, _ in names)} (it has {listed})",
            where=path,
            remedy="name its structures: --structures 'CLASS=NAME', or \"dicom_structures\" in dataset.json",
            code="E-IMAGE-VALUES",
        )
    painted_ZYX = np.zeros(geometry.shape_ZYX, np.uint16)
    n_overwritten, seen = 0, set()
    for mask in read_structure_masks(path, geometry, frozenset(ranks), warn):
        rank = ranks[mask.number]
        before = painted_ZYX[mask.indices_ZYX]
        n_overwritten += int(((before != 0) & (before != rank)).sum())
        painted_ZYX[mask.indices_ZYX] = np.maximum(before, rank)
        if len(before):
            seen.add(mask.number)
    if n_overwritten:
        warn(
            f"{n_overwritten} voxels belong to several structures; the class that is declared later counts",
            "change the order of the classes if another one should",
        )
    for structure in structures:
        if structure.number in ranks and structure.number not in seen:
            warn(f"{structure.name}: the structure contains no voxel of the image", "draw it, or remove it")
    table = np.array([0, *(value for _, value in names)])
    values: NDArray[Any] = table.astype(smallest_integer(table))
    return LabelMap(array_ZYX=values[painted_ZYX], geometry=geometry)


def match_structures(path: Path, names: Sequence[tuple[str, int]]) -> StructureMatch:
    """Compare the structures of an object with the patterns of :class:`LabelStructures`; only its header is read.

    Raises:
        ImageError: it is damaged, or neither a SEG nor a structure set.
    """
    structures = list_structures(path)
    ranks = _ranks(structures, names)
    found = {names[rank - 1][1] for rank in ranks.values()}
    return StructureMatch(
        missing=tuple(value for _, value in names if value not in found),
        unused=tuple(structure.name for structure in structures if structure.number not in ranks),
    )


def _ranks(structures: Sequence[Structure], names: Sequence[tuple[str, int]]) -> dict[int, int]:
    """Return number of the structure -> place in ``names``, from 1; the first pattern that fits decides."""
    ranks = {}
    for structure in structures:
        fitting = [k for k, (pattern, _) in enumerate(names, start=1) if _fits(structure.name, pattern)]
        if fitting:
            ranks[structure.number] = fitting[0]
    return ranks


def _fits(name: str, pattern: str) -> bool:
    name, pattern = name.lower().strip(), pattern.lower().strip()
    return name == pattern or fnmatchcase(name, pattern)  # a name may contain brackets
