"""Voxels of each structure in DICOM segmentations and structure sets, counted without any code of Decathlete."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from robustness.phantom import SHAPE_XYZ
from robustness.views import MustFailError, UnsureError

_SPACING_XYZ, _ORIGIN_XYZ = np.array([1.1, 0.9, 2.0]), np.array([-30.0, 20.0, 5.0])
"""Grid of the series that :mod:`robustness.formats.dicom_labels` draws on."""

_ON_IT = 1e-3
"""Distance from an outline, voxels, at which a voxel lies on it."""


def count_voxels(path: Path) -> dict[str, tuple[int, int]]:
    """Return name of a structure -> voxels, and how many of them depend on the rule for points on an outline.

    Raises:
        MustFailError: the object must not be accepted.
        UnsureError: it cannot be told what it means.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            return _segments(dataset) if "SegmentSequence" in dataset else _contours(dataset)
    except (MustFailError, UnsureError):
        raise
    except Exception as problem:
        raise UnsureError(f"{type(problem).__name__}: {problem}") from problem


def _segments(dataset: Any) -> dict[str, tuple[int, int]]:
    if str(dataset.SegmentationType) != "BINARY" or dataset.BitsAllocated != 1:
        raise UnsureError("not a bit mask")
    groups, size = list(dataset.PerFrameFunctionalGroupsSequence), dataset.Rows * dataset.Columns
    if len(groups) != int(dataset.NumberOfFrames):
        raise MustFailError("frames and their groups differ in number")
    if 8 * len(dataset.PixelData) < len(groups) * size:
        raise MustFailError("fewer voxels than declared")
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    of_number: Counter[int] = Counter()
    seen = set()
    for place, group in enumerate(groups):
        number = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        position = (number, *map(float, group.PlanePositionSequence[0].ImagePositionPatient))
        if position in seen:
            raise UnsureError("two frames in one place")
        seen.add(position)
        of_number[number] += int(bits[place * size : (place + 1) * size].sum())
    return _by_name([(int(s.SegmentNumber), str(s.SegmentLabel)) for s in dataset.SegmentSequence], of_number, {})


def _contours(dataset: Any) -> dict[str, tuple[int, int]]:
    of_number: Counter[int] = Counter()
    doubtful: dict[int, int] = defaultdict(int)
    for roi in dataset.ROIContourSequence:
        slices: dict[int, NDArray[np.bool_]] = {}
        for contour in roi.ContourSequence:
            if contour.ContourGeometricType != "CLOSED_PLANAR":
                raise UnsureError("not a closed contour")
            points = np.array(contour.ContourData, float)
            if points.size % 3 or not np.isfinite(points).all():
                raise MustFailError("not a list of points")
            if points.size < 9:  # a mark, which encloses nothing
                continue
            voxels = (points.reshape(-1, 3) - _ORIGIN_XYZ) / _SPACING_XYZ
            if np.ptp(voxels[:, 2]) > 0.5:
                raise MustFailError("a contour across slices")
            place = round(float(voxels[:, 2].mean()))
            if abs(voxels[:, 2].mean() - place) > 0.45:
                raise UnsureError("between two slices")
            if 0 <= place < SHAPE_XYZ[2]:
                inside, n_doubtful = _inside(voxels[:, :2])
                slices[place] = slices.get(place, np.zeros(SHAPE_XYZ[1::-1], bool)) ^ inside
                doubtful[int(roi.ReferencedROINumber)] += n_doubtful
        if not slices:
            raise MustFailError("no contour on a slice")
        of_number[int(roi.ReferencedROINumber)] += sum(int(mask.sum()) for mask in slices.values())
    names = [(int(item.ROINumber), str(item.ROIName)) for item in dataset.StructureSetROISequence]
    return _by_name(names, of_number, doubtful)


def _inside(points_XY: NDArray[np.float64]) -> tuple[NDArray[np.bool_], int]:
    """Return the voxels inside an outline, and how many of all lie on it."""
    x, y, _ = SHAPE_XYZ
    centres = np.stack(np.meshgrid(np.arange(x), np.arange(y)), -1).reshape(-1, 2)
    outline = Outline(np.vstack([points_XY, points_XY[:1]]))
    inside, wider, narrower = (outline.contains_points(centres, radius=r) for r in (0.0, _ON_IT, -_ON_IT))
    return inside.reshape(y, x), int((wider != narrower).sum())


def _by_name(
    names: list[tuple[int, str]], counts: Counter[int], doubtful: dict[int, int]
) -> dict[str, tuple[int, int]]:
    if len({number for number, _ in names}) != len(names):
        raise UnsureError("two structures of one number")
    found: dict[str, tuple[int, int]] = {}
    for number, name in names:
        total, more = found.get(name.strip().lower(), (0, 0))
        found[name.strip().lower()] = (total + counts[number], more + doubtful.get(number, 0))
    return found
