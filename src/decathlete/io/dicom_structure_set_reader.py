"""Contours of RT structure sets as voxels of the image that they were drawn on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry
from decathlete.io.contour_fill import fill_contours
from decathlete.io.dicom_reading import read_dicom
from decathlete.io.dicom_structures import (
    StructureMask,
    Warn,
    check_declared,
    damaged,
    misplaced_error,
    name_structures,
    voxels_of_points,
)

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_FLATNESS = 0.25
"""Maximum distance between a contour's points along the normal, and of their mean from its slice, slices."""
_MARGIN = 1.0
"""Distance by which contours may reach beyond the image without a warning, voxels."""
_SAME = 3
"""Decimals of points, in voxels, that are equal in two copies of a contour."""


def read(path: Path, geometry: Geometry, numbers: frozenset[int], warn: Warn) -> Iterator[StructureMask]:
    """Yield the filled contours of each region of interest, slice by slice.

    Args:
        warn: called for contours that are not used, and for slices without contours between others.

    Raises:
        ImageError: contours are not drawn on the slices of the grid, or belong to a region that is not declared.
    """
    dataset = read_dicom(path)
    declared = name_structures(path, dataset.StructureSetROISequence, "ROINumber", "ROIName")
    items = dataset.get("ROIContourSequence") or []
    check_declared(path, {int(item.ReferencedROINumber) for item in items if item.get("ContourSequence")}, declared)
    for item in items:
        number = int(item.ReferencedROINumber)
        if number in numbers:
            region = _Region(path, declared[number], geometry)
            region.add(item.get("ContourSequence") or [])
            region.describe(warn)
            yield from region.fill_slices(number)


class _Region:
    """The contours of one region, in voxels of the image."""

    def __init__(self, path: Path, name: str, geometry: Geometry) -> None:
        self._path, self._name, self._geometry = path, name, geometry
        self._outlines: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
        self._n_open = self._n_short = self._n_beyond = self._n_cut = 0

    def add(self, contours: Any) -> None:
        for contour in contours:
            if contour.get("ContourGeometricType") not in _CLOSED:
                self._n_open += 1
                continue
            points = _points_of(self._path, contour)
            if len(points) < 3:
                self._n_short += 1
                continue
            place, points_XY = self._slice_of(points)
            excess = self._excess(place, points_XY)
            self._n_beyond += excess == np.inf
            self._n_cut += _MARGIN < excess < np.inf
            if excess < np.inf:
                self._outlines[place].append(points_XY)
        if self._n_beyond and not self._outlines:
            raise misplaced_error(
                self._path, f"none of the {self._n_beyond} contours of structure {self._name!r} lies in the image"
            )

    def describe(self, warn: Warn) -> None:
        n_copies = 0
        for place, of_slice in self._outlines.items():
            distinct = _without_copies(of_slice)
            n_copies += len(of_slice) - len(distinct)
            self._outlines[place] = distinct
        export, image = "export the structure set again", "use it with the image that it was drawn on"
        for count, problem, remedy in (
            (self._n_open, "contours are points or open lines, and are not used", export),
            (self._n_short, "contours have fewer than three points, and are not used", export),
            (self._n_beyond, "contours lie beyond the image, and are not used", image),
            (self._n_cut, "contours reach beyond the image, and are cut off at its border", image),
            (n_copies, "contours are copies of others in their slice, and are not used", "remove the copies"),
            (
                _count_gaps(self._outlines),
                "slices between its contours have none, and are background",
                "interpolate the missing contours, unless the structure really consists of several parts",
            ),
        ):
            if count:
                warn(f"{self._name}: {count} {problem}", remedy)

    def fill_slices(self, number: int) -> Iterator[StructureMask]:
        _, height, width = self._geometry.shape_ZYX
        for place, of_slice in sorted(self._outlines.items()):
            y, x = np.nonzero(fill_contours(of_slice, (height, width)))
            yield StructureMask(number=number, indices_ZYX=(np.full(len(y), place), y, x))

    def _slice_of(self, points: NDArray[np.float64]) -> tuple[int, NDArray[np.float64]]:
        """Return the slice of a contour, and its points as x and y in voxels."""
        voxels = voxels_of_points(points, self._geometry)
        height = float(voxels[:, 0].mean())
        place = int(np.floor(height + 0.5))
        if self._geometry.shape_ZYX[0] > 1:  # the distance of a single slice is not known well
            problem = "its contours are not drawn on the slices of this image: they"
            if np.ptp(voxels[:, 0]) > _FLATNESS:
                raise misplaced_error(self._path, f"{problem} cross several of them")
            if abs(height - place) > _FLATNESS:  # two contours would become one slice, and erase each other
                raise misplaced_error(self._path, f"{problem} lie between them")
        return place, voxels[:, :0:-1]

    def _excess(self, place: int, points_XY: NDArray[np.float64]) -> float:
        """Return how far a contour reaches beyond the image in its slice, voxels; infinite: it lies beyond it."""
        n_slices, height, width = self._geometry.shape_ZYX
        end = np.array([width, height]) - 0.5  # the image begins at -0.5, half a voxel before the first centre
        least, greatest = points_XY.min(axis=0), points_XY.max(axis=0)
        if not 0 <= place < n_slices or (greatest < -0.5).any() or (least > end).any():
            return np.inf
        return float(max((-0.5 - least).max(), (greatest - end).max()))


def _points_of(path: Path, contour: Any) -> NDArray[np.float64]:
    values = contour.get("ContourData")
    listed = [values] if isinstance(values, str | float) else values or []
    numbers = np.array([float(value) for value in listed])
    if len(numbers) % 3 or not np.isfinite(numbers).all():
        raise damaged(path, ValueError("a contour is not a list of points"))
    points = numbers.reshape(-1, 3)
    if len(points) < (n_declared := int(contour.get("NumberOfContourPoints") or 0)):
        raise damaged(path, ValueError(f"a contour has {len(points)} of {n_declared} points"))
    return points


def _without_copies(outlines: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Drop outlines with the same points as another one: by the rule of even and odd, two copies are a hole."""
    if len(outlines) == 1:
        return list(outlines)
    return list({np.unique(points.round(_SAME) + 0.0, axis=0).tobytes(): points for points in outlines}.values())


def _count_gaps(places: Collection[int]) -> int:
    return max(places) - min(places) + 1 - len(places) if places else 0
