"""Contours of RT structure sets as voxels of the image that they were drawn on."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry
from decathlete.io.contour_fill import fill_contours
from decathlete.io.dicom_grid import warn_once
from decathlete.io.dicom_reading import read_dicom
from decathlete.io.dicom_structures import StructureMask, damaged, misplaced_error, voxels_of_points

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_FLATNESS = 0.25
"""Maximum distance between a contour's points along the normal, and of their mean from its slice, slices."""

_log = logging.getLogger(__name__)


def read(path: Path, geometry: Geometry, numbers: frozenset[int]) -> Iterator[StructureMask]:
    """Yield the filled contours of each region of interest, slice by slice.

    Raises:
        ImageError: contours are not drawn on the slices of the grid.
    """
    dataset = read_dicom(path)
    for item in dataset.get("ROIContourSequence") or []:
        number = int(item.ReferencedROINumber)
        if number in numbers:
            yield from _fill_region(path, number, item.get("ContourSequence") or [], geometry)


def contour_gaps(path: Path, geometry: Geometry, numbers: frozenset[int]) -> dict[int, int]:
    """Return how many slices between the contours of a region have none, for each region that has such slices.

    Raises:
        ImageError: contours are not drawn on the slices of the grid.
    """
    places: dict[int, set[int]] = defaultdict(set)
    for item in read_dicom(path).get("ROIContourSequence") or []:
        number = int(item.ReferencedROINumber)
        for contour in item.get("ContourSequence") or [] if number in numbers else []:
            if contour.get("ContourGeometricType") in _CLOSED:
                place, _ = _slice_of(path, contour, geometry)
                places[number] |= {place} & set(range(geometry.shape_ZYX[0]))
    return {number: n for number, of_region in places.items() if of_region and (n := _count_gaps(of_region))}


def _count_gaps(places: Collection[int]) -> int:
    return max(places) - min(places) + 1 - len(places)


def _fill_region(path: Path, number: int, contours: Any, geometry: Geometry) -> Iterator[StructureMask]:
    outlines: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    n_other, n_outside = 0, 0
    for contour in contours:
        if contour.get("ContourGeometricType") not in _CLOSED:
            n_other += 1
            continue
        place, points_XY = _slice_of(path, contour, geometry)
        if 0 <= place < geometry.shape_ZYX[0]:
            outlines[place].append(points_XY)
        else:
            n_outside += 1
    if n_outside and not outlines:
        raise misplaced_error(path, f"none of the {n_outside} contours of region {number} lies on a slice of the image")
    if n_outside or n_other:
        _log.warning(
            "%s: region %d: not used: %d contours beyond the image, %d that are not closed",
            path,
            number,
            n_outside,
            n_other,
        )
    if outlines and (n_gaps := _count_gaps(outlines)):
        warn_once(f"{path}: region {number}: {n_gaps} slices between its contours have none, and are background")
    _, height, width = geometry.shape_ZYX
    for place, of_slice in sorted(outlines.items()):
        y, x = np.nonzero(fill_contours(of_slice, (height, width)))
        yield StructureMask(number=number, indices_ZYX=(np.full(len(y), place), y, x))


def _slice_of(path: Path, contour: Any, geometry: Geometry) -> tuple[int, NDArray[np.float64]]:
    """Return the slice of a contour, and its points as x and y in voxels."""
    numbers = np.array([float(value) for value in contour.ContourData])
    if len(numbers) % 3 or len(numbers) < 9 or not np.isfinite(numbers).all():
        raise damaged(path, ValueError("a contour is not a list of at least three points"))
    voxels = voxels_of_points(numbers.reshape(-1, 3), geometry)
    height = float(voxels[:, 0].mean())
    place = int(np.floor(height + 0.5))
    if geometry.shape_ZYX[0] > 1:  # the distance of a single slice is not known well
        if np.ptp(voxels[:, 0]) > _FLATNESS:
            raise misplaced_error(
                path, "its contours are not drawn on the slices of this image: they cross several of them"
            )
        if abs(height - place) > _FLATNESS:  # two contours would become one slice, and erase each other
            raise misplaced_error(path, "its contours are not drawn on the slices of this image: they lie between them")
    return place, voxels[:, :0:-1]
