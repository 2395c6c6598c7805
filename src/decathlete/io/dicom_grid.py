"""The grid of DICOM slices or frames: their order, and whether their positions fit one grid.

Slice k has to lie within a tenth of a voxel (:data:`POSITION_TOLERANCE`) of its place on the grid, along each axis of
the grid. The step between slices is the measured mean, so slices of a tilted gantry, which shift by the same amount
from one to the next, keep their shear (up to :data:`MAX_TILT`); a shift or drift of some of them is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry, HeaderCodes, Triple
from decathlete.errors import ImageError
from decathlete.io.dicom_header import DicomFile, Frame
from decathlete.io.itk import ras_matrix
from decathlete.io.read_warnings import warn_once
from decathlete.io.spacing import complete_spacing

POSITION_TOLERANCE = 0.1
"""Maximum distance of a slice from its place on the grid along each axis, voxels."""
MAX_TILT = 45.0
"""Maximum angle between the normal of the slices and the step from one to the next, degrees."""
ROUNDING_MM = 0.01
"""Distance that is always tolerated, mm: positions are stored with few digits."""
GAP_WARNING = 0.01
"""Deviation of a distance between slices, share of the usual one, above which a warning is logged."""
STEP_TOLERANCE_MM = 1e-3
"""Maximum difference of the steps between voxels of two slices of one grid, mm."""

_ONE_STACK = "export it again, with one file for each stack, echo and time point: this one contains several"


@dataclass(frozen=True, kw_only=True)
class FrameGrid:
    """Frames in the order of the array's first axis, and their grid."""

    frames: tuple[Frame, ...]
    geometry: Geometry


def place_frames(frames: Sequence[Frame], size_XY: tuple[int, int], where: Path, spacing: Triple | None) -> FrameGrid:
    """Sort frames by their position along the normal, and derive their grid.

    Args:
        where: folder or file, for messages.
        spacing: z, y, x in mm, for what the files do not contain.

    Raises:
        ImageError: the frames do not lie on one grid, or their spacing or positions are missing.
    """
    if len(frames) > 1 and any(f.position is None or f.cosines is None for f in frames):
        return _stack_without_positions(frames, size_XY, where, spacing)
    first = frames[0]
    z, y, x = _spacing_of(first, spacing, alone=len(frames) == 1)
    cosines, position = first.cosines, first.position
    is_placed = cosines is not None and position is not None
    steps = (np.eye(3)[:, :2] if cosines is None else cosines) * np.array([x, y])
    ordered = _in_order(frames, steps, where, spacing)
    step = _normal(steps) * z
    if len(ordered) > 1:
        step = (_position(ordered[-1]) - _position(ordered[0])) / (len(ordered) - 1)
    origin = _position(ordered[0]) if ordered[0].position is not None else np.zeros(3)
    columns_XYZ = np.column_stack([steps, step])
    _check_positions(ordered, columns_XYZ, where)
    shape = (len(frames), size_XY[1], size_XY[0])
    codes = HeaderCodes(axes=3 if is_placed else 2)
    return FrameGrid(
        frames=tuple(ordered), geometry=Geometry.from_matrix(shape, ras_matrix(columns_XYZ, origin), header=codes)
    )


def check_alike(files: Sequence[DicomFile], where: Path) -> None:
    """Check that files are slices of one volume.

    Raises:
        ImageError: they belong to several series, or differ in size or in the meaning of their numbers.
    """
    series = [file.series for file in files]
    counts = [str(series.count(one)) for one in dict.fromkeys(series)]
    if len(counts) > 1:
        raise ImageError(
            f"contains {len(counts)} DICOM series (of {', '.join(counts)} files), and which one is meant is not clear",
            where=where,
            remedy="put each series into a folder of its own",
            code="E-IMAGE-DICOM",
        )
    for one in files[1:]:
        if one.size_XYC != files[0].size_XYC:
            raise _different(files[0].frames[0], one.frames[0], where)
        if one.pixels.photometric != files[0].pixels.photometric:
            raise ImageError(
                f"slices {files[0].path.name} and {one.path.name} differ in their PhotometricInterpretation "
                f"({files[0].pixels.photometric}, {one.pixels.photometric})",
                where=where,
                remedy="keep only the slices of one volume in the folder, or export the series again",
                code="E-IMAGE-DICOM",
            )


def _stack_without_positions(
    frames: Sequence[Frame], size_XY: tuple[int, int], where: Path, spacing: Triple | None
) -> FrameGrid:
    if spacing is None:
        raise ImageError(
            f"does not say where its {len(frames)} frames lie (ImagePositionPatient, ImageOrientationPatient of each)",
            where=where,
            remedy="export it with positions; if the frames are slices in order, add --spacing Z,Y,X (mm)",
            code="E-IMAGE-DICOM",
        )
    first = frames[0]
    y, x = _in_plane(first, spacing)
    steps = (np.eye(3)[:, :2] if first.cosines is None else first.cosines) * np.array([x, y])
    columns_XYZ = np.column_stack([steps, _normal(steps) * spacing[0]])
    matrix = ras_matrix(columns_XYZ, np.zeros(3) if first.position is None else first.position)
    shape = (len(frames), size_XY[1], size_XY[0])
    return FrameGrid(frames=tuple(frames), geometry=Geometry.from_matrix(shape, matrix))


def _in_plane(frame: Frame, spacing: Triple | None) -> tuple[float, float]:
    _, y, x = complete_spacing((1.0, *(frame.spacing_YX or (None, None))), spacing, frame.path)
    return (y, x)


def _spacing_of(frame: Frame, spacing: Triple | None, *, alone: bool) -> Triple:
    y, x = _in_plane(frame, spacing)
    if not alone or frame.position is None:  # measured; or a picture of two axes, such as a radiograph
        return (1.0, y, x)
    distance = next((d for d in frame.distances if d > 0), None)
    return complete_spacing((distance, y, x), spacing, frame.path)


def _position(frame: Frame) -> NDArray[np.float64]:
    assert frame.position is not None  # for the type checker: frames without a position are not sorted
    return frame.position


def _normal(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    normal = np.cross(steps[:, 0], steps[:, 1])
    return np.asarray(normal / np.linalg.norm(normal), dtype=np.float64)


def _in_order(frames: Sequence[Frame], steps: NDArray[np.float64], where: Path, spacing: Triple | None) -> list[Frame]:
    if len(frames) == 1:
        return list(frames)
    for frame in frames[1:]:
        y, x = _in_plane(frame, spacing)
        assert frame.cosines is not None  # for the type checker: checked by the caller
        if not np.allclose(frame.cosines * np.array([x, y]), steps, rtol=1e-5, atol=STEP_TOLERANCE_MM):
            raise _different(frames[0], frame, where)
    normal = _normal(steps)
    ordered = sorted(frames, key=lambda f: float(_position(f) @ normal))
    _check_gaps(ordered, normal, where)
    return ordered


def _different(first: Frame, other: Frame, where: Path) -> ImageError:
    return ImageError(
        f"{first.name} and {other.name} differ in size, pixel spacing or direction",
        where=where,
        remedy=_ONE_STACK
        if first.number
        else "keep only the slices of one volume in the folder (move localisers away)",
        code="E-IMAGE-DICOM",
    )


def _check_gaps(ordered: Sequence[Frame], normal: NDArray[np.float64], where: Path) -> None:
    """Reject slices that are not evenly spaced: a regular grid would put anatomy in the wrong place."""
    gaps = np.diff([float(_position(f) @ normal) for f in ordered])
    usual = float(np.median(gaps))
    if gaps.min() < 1e-3:
        at = int(gaps.argmin())
        raise ImageError(
            f"several slices lie at one position ({ordered[at].name} and {ordered[at + 1].name})",
            where=where,
            remedy=_ONE_STACK
            if ordered[at].number
            else "keep one time point or reconstruction per folder, and no copies",
            code="E-IMAGE-DICOM",
        )
    worst = int(np.abs(gaps - usual).argmax())
    excess = abs(float(gaps[worst]) - usual)
    between = f"{gaps[worst]:.3g} mm between {ordered[worst].name} and {ordered[worst + 1].name}"
    if excess > POSITION_TOLERANCE * usual:
        raise ImageError(
            f"slices are not evenly spaced: usually {usual:.3g} mm, but {between}",
            where=where,
            remedy="add the missing slices, or resample the series to even slices first",
            code="E-IMAGE-DICOM",
        )
    if excess > GAP_WARNING * usual:
        warn_once(f"{where}: slices are not quite evenly spaced: usually {usual:.3g} mm, but {between}")


def _check_positions(ordered: Sequence[Frame], columns_XYZ: NDArray[np.float64], where: Path) -> None:
    """Reject slices that are shifted in their plane, or drift: each has its place on the grid."""
    if len(ordered) < 2:
        return
    step = columns_XYZ[:, 2]
    tilt = np.degrees(np.arccos(np.clip(step @ _normal(columns_XYZ) / np.linalg.norm(step), -1, 1)))
    if tilt > MAX_TILT:
        raise ImageError(
            f"its slices are stacked at an angle of {tilt:.3g} degrees to their normal (at most {MAX_TILT:g})",
            where=where,
            remedy="export the series again, or resample its slices to one grid first",
            code="E-IMAGE-DICOM",
        )
    steps = np.arange(len(ordered))[:, None] * step
    away = np.array([_position(f) for f in ordered]) - _position(ordered[0]) - steps
    voxels = np.abs(np.linalg.solve(columns_XYZ, away.T).T)  # along x, y, z of the grid
    allowed = np.maximum(POSITION_TOLERANCE, ROUNDING_MM / np.linalg.norm(columns_XYZ, axis=0))
    excess = (voxels / allowed).max(axis=1)
    worst = int(excess.argmax())
    if excess[worst] > 1:
        raise ImageError(
            f"slice {ordered[worst].name} lies {np.linalg.norm(away[worst]):.3g} mm away from its place on the grid of "
            f"the others (x, y, z: {', '.join(f'{v:.2g}' for v in voxels[worst])} voxels; allowed: "
            f"{POSITION_TOLERANCE:g})",
            where=where,
            remedy="export the series again, or resample its slices to one grid first",
            code="E-IMAGE-DICOM",
        )
