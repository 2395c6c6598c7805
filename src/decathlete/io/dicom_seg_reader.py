"""Frames of DICOM SEG objects as voxels of the image that they were drawn on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry
from decathlete.core.lazy_import import lazy_import
from decathlete.errors import ImageError
from decathlete.io.dicom_frames import read_frames
from decathlete.io.dicom_header import read_pixel_layout
from decathlete.io.dicom_reading import read_dicom
from decathlete.io.dicom_structures import (
    StructureMask,
    check_declared,
    damaged,
    misplaced_error,
    name_structures,
    voxels_of_points,
)

pydicom = lazy_import("pydicom")

_TOLERANCE = 0.1
"""Maximum distance of a frame's voxels from those of the image, voxels."""


def read(path: Path, geometry: Geometry, numbers: frozenset[int]) -> Iterator[StructureMask]:
    """Yield the voxels of each segment, frame by frame; only one frame is in memory.

    Raises:
        ImageError: the object is fractional, has frames of a segment that it does not declare, or its frames do not
            lie on the voxels of the grid.
    """
    header = read_dicom(path)
    kind = str(header.get("SegmentationType") or "BINARY")
    if kind not in ("BINARY", "LABELMAP"):
        raise ImageError(
            f"is a segmentation of type {kind}: its values are probabilities or fractions, not labels",
            where=path,
            remedy="export it as a BINARY or LABELMAP segmentation",
            code="E-IMAGE-FORMAT",
        )
    declared = name_structures(path, header.SegmentSequence, "SegmentNumber", "SegmentLabel")
    if header.get("PixelPaddingValue") is not None:
        declared.setdefault(int(header.PixelPaddingValue), "background")
    per_frame, shared = list(header.PerFrameFunctionalGroupsSequence), header.SharedFunctionalGroupsSequence[0]
    for place, (groups, frame_YX) in enumerate(zip(per_frame, read_frames(read_pixel_layout(path)), strict=True)):
        segment = _item(groups, shared, "SegmentIdentificationSequence", path) if kind == "BINARY" else None
        for number, mask_YX in _segments(segment, frame_YX):
            check_declared(path, [number], declared)
            if number in numbers and mask_YX.any():
                corner = _Placement(header, groups, geometry, path, place)
                yield StructureMask(number=number, indices_ZYX=corner.indices(mask_YX))


def _segments(segment: Any, frame_YX: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield numbers and masks of the segments of a frame; ``segment`` identifies the only one of a bit mask."""
    if segment is not None:
        yield int(segment.ReferencedSegmentNumber), frame_YX != 0
        return
    for number in np.unique(frame_YX).tolist():
        if number:
            yield number, frame_YX == number


class _Placement:
    """Where the voxels of a frame lie on the grid: the index of its first voxel, and steps to the next voxels."""

    def __init__(self, header: Any, groups: Any, geometry: Geometry, path: Path, place: int) -> None:
        shared = header.SharedFunctionalGroupsSequence[0]
        position = np.array(_item(groups, shared, "PlanePositionSequence", path).ImagePositionPatient, float)
        cosines = np.array(_item(groups, shared, "PlaneOrientationSequence", path).ImageOrientationPatient, float)
        spacing_YX = np.array(_item(groups, shared, "PixelMeasuresSequence", path).PixelSpacing, float)
        corners = np.array([position, position + cosines[:3] * spacing_YX[1], position + cosines[3:] * spacing_YX[0]])
        voxels = voxels_of_points(corners, geometry)
        size = max(header.Rows, header.Columns)
        exact = np.array([voxels[0], voxels[1] - voxels[0], voxels[2] - voxels[0]])
        rounded = np.rint(exact)
        away = np.abs(exact - rounded)
        near = away[0].max() <= _TOLERANCE and away[1:].max() * size <= 2 * _TOLERANCE  # False for NaN
        if not near or not _are_neighbours(rounded[1:]):
            raise misplaced_error(path, f"frame {place + 1} does not lie on the voxels of the image")
        self._start, self._along_row, self._along_column = rounded.astype(np.int64)
        self._shape_ZYX, self._path, self._place = geometry.shape_ZYX, path, place

    def indices(self, mask_YX: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the grid's indices of the voxels of a mask."""
        rows, columns = np.nonzero(mask_YX)
        z, y, x = (
            self._start[axis] + rows * self._along_column[axis] + columns * self._along_row[axis] for axis in range(3)
        )
        for index, size in zip((z, y, x), self._shape_ZYX, strict=True):
            if index.min() < 0 or index.max() >= size:
                raise misplaced_error(self._path, f"frame {self._place + 1} has voxels beyond the image")
        return z, y, x


def _are_neighbours(steps: NDArray[np.float64]) -> bool:
    """Return whether two steps lead to the next voxel, each along its own axis: a coarser frame would leave gaps."""
    lengths = np.abs(steps)
    return bool((lengths.sum(axis=1) == 1).all() and (lengths.sum(axis=0) <= 1).all())


def _item(groups: Any, shared: Any, name: str, path: Path) -> Any:
    for group in (groups, shared):
        if group.get(name):
            return group.get(name)[0]
    raise damaged(path, ValueError(f"its frames have no {name}"))
