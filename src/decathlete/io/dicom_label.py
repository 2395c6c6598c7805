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
        others: further objects with structures of the same image, such as one SEG object for each organ.
    """

    image: Path
    names: tuple[tuple[str, int], ...] = ()
    others: tuple[Path, ...] = ()


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


def list_all_structures(paths: Sequence[Path]) -> dict[Path, tuple[Structure, ...]]:
    """Return the structures that each of several objects of one image declares, in their order.

    Raises:
        ImageError: an object is damaged, or several have structures of the same name.
    """
    found = {path: list_structures(path) for path in paths}
    path_of: dict[str, Path] = {}
    for path, structures in found.items():
        for structure in structures:
            if (other := path_of.setdefault(structure.name.lower(), path)) != path:
                raise ImageError(
                    f"contains the structure {structure.name!r}, as does {other}, which belongs to the same image",
                    where=path,
                    remedy="keep one of them, or put the others outside the folder of labels",
                    code="E-DATASET-CONTOURS",
                )
    return found


def read_structure_label(
    path: Path,
    geometry: Geometry,
    names: Sequence[tuple[str, int]],
    warn: Warn | None = None,
    *,
    others: Sequence[Path] = (),
) -> LabelMap:
    """Read a SEG object or a structure set, or several, as one label map on the grid of their image.

    Args:
        names, others: see :class:`LabelStructures`.
        warn: called for parts of the structures that are not used or are missing; ``None``: a warning is logged.

    Raises:
        ImageError: an object is damaged or does not lie on the grid, several have structures of the same name, or none
            has a structure that is named.
    """
    found = list_all_structures((path, *others))
    ranks = {file: _ranks(structures, names) for file, structures in found.items()}
    if not any(ranks.values()):
        listed = ", ".join([structure.name for structures in found.values() for structure in structures][:10])
        raise ImageError(
            f"contains none of the structures {', '.join(pattern for pattern, _ in names)} (it has {listed})",
            where=path,
            remedy="name its structures: --structures 'CLASS=NAME', or \"dicom_structures\" in dataset.json",
            code="E-IMAGE-VALUES",
        )
    painted_ZYX = np.zeros(geometry.shape_ZYX, np.uint16)
    n_overwritten = 0
    for file, structures in found.items():
        rank_of, warn_of_file = ranks[file], _name_file(warn, file) if warn and others else warn or log_warnings(file)
        if not rank_of:
            continue
        seen = set()
        for mask in read_structure_masks(file, geometry, frozenset(rank_of), warn_of_file):
            rank = rank_of[mask.number]
            before = painted_ZYX[mask.indices_ZYX]
            n_overwritten += int(((before != 0) & (before != rank)).sum())
            painted_ZYX[mask.indices_ZYX] = np.maximum(before, rank)
            if len(before):
                seen.add(mask.number)
        for structure in structures:
            if structure.number in rank_of and structure.number not in seen:
                warn_of_file(f"{structure.name}: the structure contains no voxel of the image", "draw it, or remove it")
    if n_overwritten:
        (warn or log_warnings(path))(
            f"{n_overwritten} voxels belong to several structures; the class that is declared later counts",
            "change the order of the classes if another one should",
        )
    table = np.array([0, *(value for _, value in names)])
    values: NDArray[Any] = table.astype(smallest_integer(table))
    return LabelMap(array_ZYX=values[painted_ZYX], geometry=geometry)


def match_structures(path: Path, label: LabelStructures) -> StructureMatch:
    """Compare the structures of a label's objects with its patterns; only headers are read.

    Raises:
        ImageError: an object is damaged or neither a SEG nor a structure set, or several have structures of the same
            name.
    """
    found, unused = set[int](), []
    for structures in list_all_structures((path, *label.others)).values():
        ranks = _ranks(structures, label.names)
        found |= {label.names[rank - 1][1] for rank in ranks.values()}
        unused += [structure.name for structure in structures if structure.number not in ranks]
    return StructureMatch(
        missing=tuple(value for _, value in label.names if value not in found),
        unused=tuple(unused),
    )


def _name_file(warn: Warn, file: Path) -> Warn:
    """Return a function that warns of problems with the name of their file."""
    return lambda problem, remedy: warn(f"{file.name}: {problem}", remedy)


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
