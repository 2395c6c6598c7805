"""Structures in DICOM objects: SEG segmentations and RT structure sets, placed on the grid of their image.

Neither is an image by itself: a SEG may lack slices, a structure set has no voxels, and both name structures instead
of numbering classes. So the reader needs the image's grid.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry
from decathlete.errors import ImageError
from decathlete.io.dicom_reading import read_dicom
from decathlete.io.read_warnings import warn_once

_RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
StructureKind = Literal["segmentation", "structure set"]
Warn = Callable[[str, str], None]
"""Function of a problem, and its remedy, of an object that is read nevertheless."""


@dataclass(frozen=True, kw_only=True)
class Structure:
    """One structure of an object.

    Attributes:
        number: of the segment or the region of interest in its object.
    """

    number: int
    name: str


@dataclass(frozen=True, kw_only=True)
class StructureMask:
    """The voxels of a structure in one slice of the grid, or of one frame.

    Attributes:
        indices_ZYX: indices of the voxels along z, y and x.
    """

    number: int
    indices_ZYX: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def structure_kind(path: Path) -> StructureKind | None:
    """Return whether a file is a SEG or a structure set, by its content; ``None``: neither."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream:
            if stream.read(132)[128:] != b"DICM":
                return None
        found = read_dicom(path, specific_tags=["SOPClassUID"], stop_before_pixels=True).get("SOPClassUID", "")
    except Exception:  # pydicom raises anything for what is not DICOM
        return None
    if found == _RTSTRUCT:
        return "structure set"
    return "segmentation" if found in _SEGMENTATIONS else None


def list_structures(path: Path) -> tuple[Structure, ...]:
    """Return the structures that an object declares, in its order.

    Raises:
        ImageError: it is damaged, or neither a SEG nor a structure set.
    """
    kind = _require_kind(path)
    try:
        dataset = read_dicom(path, stop_before_pixels=True)
        if kind == "structure set":
            named = name_structures(path, dataset.StructureSetROISequence, "ROINumber", "ROIName")
        else:
            named = name_structures(path, dataset.SegmentSequence, "SegmentNumber", "SegmentLabel")
            named.pop(0, None)  # the background of a label map
    except ImageError:
        raise
    except Exception as problem:
        raise damaged(path, problem) from problem
    return tuple(Structure(number=number, name=name) for number, name in named.items())


def name_structures(path: Path, items: Iterable[Any], number: str, name: str) -> dict[int, str]:
    """Return number -> name of the structures that a sequence declares.

    Args:
        number, name: keywords of the attributes.

    Raises:
        ImageError: two structures have one number: which contours or frames belong to which of them is not clear.
    """
    named: dict[int, str] = {}
    for item in items:
        key, text = int(item[number].value), str(item[name].value or "").strip()
        if key in named:
            raise _inconsistent(path, f"its structures {named[key]!r} and {text!r} have the same number {key}")
        named[key] = text
    return named


def check_declared(path: Path, numbers: Collection[int], declared: Mapping[int, str]) -> None:
    """Check that contours and frames belong to structures that the object declares.

    Raises:
        ImageError: they do not: their voxels would be background.
    """
    if unknown := sorted(set(numbers) - declared.keys()):
        listed = ", ".join(map(str, unknown[:5]))
        raise _inconsistent(path, f"contains contours or frames of structure {listed}, which it does not declare")


def read_structure_masks(
    path: Path, geometry: Geometry, numbers: frozenset[int], warn: Warn | None = None
) -> Iterator[StructureMask]:
    """Yield the voxels of some structures, slice by slice or frame by frame.

    Args:
        geometry: grid of the image that the object was drawn on.
        numbers: of the structures.
        warn: called for parts of the structures that are not used or are missing; ``None``: a warning is logged.

    Raises:
        ImageError: it is damaged, or does not lie on the slices of the grid.
    """
    from decathlete.io import dicom_seg_reader, dicom_structure_set_reader

    kind = _require_kind(path)
    try:
        if kind == "structure set":
            yield from dicom_structure_set_reader.read(path, geometry, numbers, warn or log_warnings(path))
        else:
            yield from dicom_seg_reader.read(path, geometry, numbers)
    except (ImageError, OSError, MemoryError):
        raise
    except Exception as problem:
        raise damaged(path, problem) from problem


def referenced_series(path: Path) -> frozenset[str]:
    """Return the identifiers of the image series that an object refers to.

    Raises:
        ImageError: it is damaged.
    """
    _require_kind(path)
    try:
        dataset = read_dicom(path, stop_before_pixels=True)
        series = [str(item.SeriesInstanceUID) for item in dataset.get("ReferencedSeriesSequence") or []]
        for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []:
            for study in frame.get("RTReferencedStudySequence") or []:
                series += [str(item.SeriesInstanceUID) for item in study.get("RTReferencedSeriesSequence") or []]
    except Exception as problem:
        raise damaged(path, problem) from problem
    return frozenset(series)


def log_warnings(path: Path) -> Warn:
    """Return a function that logs problems of an object, each once."""
    return lambda problem, remedy: warn_once(f"{path}: {problem}: {remedy}")


def damaged(path: Path, problem: Exception) -> ImageError:
    """Return the error about an object that cannot be read."""
    return ImageError(
        f"is damaged or incomplete ({type(problem).__name__}: {problem})"[:300],
        where=path,
        remedy="export the object again",
        code="E-IMAGE-DAMAGED",
    )


def _inconsistent(path: Path, problem: str) -> ImageError:
    return ImageError(problem, where=path, remedy="export the object again", code="E-IMAGE-DAMAGED")


def misplaced_error(path: Path, problem: str) -> ImageError:
    """Return the error about an object that does not fit the image."""
    return ImageError(
        problem,
        where=path,
        remedy="use it with the image that it was drawn on; resample neither of them",
        code="E-IMAGE-GEOMETRY",
    )


def voxels_of_points(points_LPS: NDArray[Any], geometry: Geometry) -> NDArray[np.float64]:
    """Return indices z, y, x (not rounded) of points (n, 3) in LPS mm."""
    to_voxels = np.linalg.inv(geometry.matrix) @ LPS_TO_RAS
    return np.asarray(points_LPS @ to_voxels[:3, :3].T + to_voxels[:3, 3], dtype=np.float64)


def _require_kind(path: Path) -> StructureKind:
    kind = structure_kind(path)
    if kind is None:
        raise ImageError(
            "is neither a DICOM segmentation nor an RT structure set",
            where=path,
            remedy="name a file of one of these kinds",
            code="E-IMAGE-FORMAT",
        )
    return kind
