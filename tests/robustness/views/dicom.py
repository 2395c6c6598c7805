"""DICOM through pydicom: uncompressed slices of one series in a folder, or one enhanced file."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian

from robustness.views import MustFailError, UnsureError, View, as_array, lps_affine

_OFF_GRID = 0.35
"""Distance from one grid that no tolerance may accept, in slice distances (and at least 0.5 mm)."""

Plane = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[Any]]
"""Position, voxel steps along x and y as columns, and voxels."""


def view(path: Path) -> View:
    """Read a folder of slices, or a file with frames."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.is_dir():
            planes = [_slice(pydicom.dcmread(p)) for p in sorted(path.glob("*.dcm"))]
        else:
            planes = _frames(pydicom.dcmread(path))
    return _stack(planes)


def _pixels(dataset: Any, n_frames: int) -> NDArray[Any]:
    if dataset.file_meta.TransferSyntaxUID != ExplicitVRLittleEndian:
        raise UnsureError("transfer syntax")
    shape = (n_frames, int(dataset.Rows), int(dataset.Columns))
    bits, signed = int(dataset.BitsAllocated), int(dataset.PixelRepresentation)
    plain = (int(dataset.SamplesPerPixel), str(dataset.PhotometricInterpretation)) == (1, "MONOCHROME2")
    if not plain or bits not in (8, 16, 32) or signed not in (0, 1):
        raise UnsureError("not plain pixels")
    array = as_array(dataset.PixelData, np.dtype(f"<{'ui'[signed]}{bits // 8}"), shape)
    if int(dataset.BitsStored) != bits or int(dataset.HighBit) != bits - 1:
        raise UnsureError("bits stored")
    return array


def _rescaled(array: NDArray[Any], values: Any) -> NDArray[Any]:
    if "RescaleSlope" not in values or "RescaleIntercept" not in values:
        return array
    slope, intercept = float(values.RescaleSlope), float(values.RescaleIntercept)
    if not (np.isfinite(slope) and np.isfinite(intercept) and slope):
        raise UnsureError("rescale")
    return array * slope + intercept


def _steps(orientation: Any, measures: Any) -> NDArray[np.float64]:
    if "PixelSpacing" not in measures or measures.PixelSpacing is None:
        raise MustFailError("no PixelSpacing")
    spacing = np.array([float(v) for v in np.atleast_1d(measures.PixelSpacing)])
    if spacing.shape != (2,) or not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise MustFailError(f"PixelSpacing {spacing}")
    cosines = np.array([float(v) for v in np.atleast_1d(orientation.ImageOrientationPatient)])
    if cosines.shape != (6,) or not np.isfinite(cosines).all():
        raise MustFailError(f"ImageOrientationPatient {cosines}")
    lengths = np.linalg.norm(cosines.reshape(2, 3), axis=1)
    if (abs(lengths - 1) > 0.05).any() or abs(cosines[:3] @ cosines[3:]) > 0.05:
        raise MustFailError(f"ImageOrientationPatient {cosines}")
    return cosines.reshape(2, 3).T * spacing[::-1]


def _position(dataset: Any) -> NDArray[np.float64]:
    if "ImagePositionPatient" not in dataset:
        raise MustFailError("no position")
    position = np.array([float(v) for v in np.atleast_1d(dataset.ImagePositionPatient)])
    if position.shape != (3,) or not np.isfinite(position).all():
        raise MustFailError(f"ImagePositionPatient {position}")
    return position


def _slice(dataset: Any) -> Plane:
    pixels = _pixels(dataset, 1)[0]
    return _position(dataset), _steps(dataset, dataset), _rescaled(pixels, dataset)


def _frames(dataset: Any) -> list[Plane]:
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        raise UnsureError("no functional groups")
    groups, shared = dataset.PerFrameFunctionalGroupsSequence, dataset.SharedFunctionalGroupsSequence[0]
    pixels = _pixels(dataset, int(dataset.NumberOfFrames))
    if len(groups) != len(pixels):
        raise MustFailError(f"{len(groups)} functional groups, {len(pixels)} frames")
    steps = _steps(shared.PlaneOrientationSequence[0], shared.PixelMeasuresSequence[0])
    values = shared.PixelValueTransformationSequence[0]
    positions = [_position(group.PlanePositionSequence[0]) for group in groups]
    return [(p, steps, _rescaled(frame, values)) for p, frame in zip(positions, pixels, strict=True)]


def _stack(planes: list[Plane]) -> View:
    _, steps, pixels = planes[0]
    if any(p[2].shape != pixels.shape or not np.allclose(p[1], steps, atol=0.05) for p in planes):
        raise MustFailError("planes of different size, spacing or direction")
    normal = np.cross(steps[:, 0], steps[:, 1])
    normal /= np.linalg.norm(normal)
    planes = sorted(planes, key=lambda plane: float(plane[0] @ normal))
    array = np.stack([plane[2] for plane in planes])[None]
    if len(planes) < 3:
        return View(array_CZYX=array)
    positions = np.array([plane[0] for plane in planes])
    step = (positions[-1] - positions[0]) / (len(planes) - 1)
    _check_grid(positions, step, normal)
    return View(array_CZYX=array, affines=(lps_affine(np.column_stack([steps, step]), positions[0]),))


def _check_grid(positions: NDArray[np.float64], step: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    gaps = [float((b - a) @ normal) for a, b in pairwise(positions)]
    if min(gaps) < 1e-3:
        raise MustFailError("two planes at one place")
    grid = positions[0] + np.arange(len(positions))[:, None] * step
    worst = float(np.linalg.norm(positions - grid, axis=1).max())
    if worst > max(_OFF_GRID * float(np.median(gaps)), 0.5):
        raise MustFailError(f"planes lie {worst:.2f} mm off one grid")
