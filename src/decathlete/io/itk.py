"""Write NRRD and MetaImage by SimpleITK. It uses LPS coordinates, where ``Geometry`` uses RAS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry
from decathlete.core.lazy_import import lazy_import

sitk = lazy_import("SimpleITK")

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def write_itk(path: Path, array_CZYX: NDArray[Any], geometry: Geometry, *, is_compressed: bool = True) -> None:
    """Write a file; several channels become vector voxels.

    A slice that was read with two axes is written with two, unless it leaves the plane that they span.

    Raises:
        OSError: SimpleITK could not write.
    """
    channels = array_CZYX.shape[0]
    columns_XYZ, origin = _LPS_TO_RAS @ geometry.matrix[:3, 2::-1], _LPS_TO_RAS @ geometry.origin_mm
    axes = 2 if geometry.header.axes == 2 and _in_plane(columns_XYZ, origin, geometry) else 3
    slices_CZYX = array_CZYX if axes == 3 else array_CZYX[:, 0]
    array = np.ascontiguousarray(slices_CZYX[0] if channels == 1 else np.moveaxis(slices_CZYX, 0, -1))
    image = sitk.GetImageFromArray(array, isVector=channels > 1)
    directions_XYZ = columns_XYZ / np.array(geometry.spacing_ZYX[::-1])
    image.SetSpacing(geometry.spacing_ZYX[::-1][:axes])
    image.SetOrigin(origin[:axes].tolist())
    image.SetDirection(directions_XYZ[:axes, :axes].ravel().tolist())
    try:
        sitk.WriteImage(image, str(path), useCompression=is_compressed)
    except RuntimeError as problem:
        raise OSError(_last_line(problem)) from problem


def _in_plane(columns_XYZ: NDArray[np.float64], origin: NDArray[np.float64], geometry: Geometry) -> bool:
    """Whether two axes of the file can say where the slice lies."""
    leaving = [columns_XYZ[2, :2], columns_XYZ[:2, 2], origin[2:]]
    return geometry.shape_ZYX[0] == 1 and np.allclose(np.concatenate(leaving), 0)


def ras_matrix(columns_XYZ: NDArray[np.float64], origin_LPS: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 4x4 affine of ``Geometry`` from voxel steps along x, y, z (columns) and an origin, both in LPS mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = (_LPS_TO_RAS @ columns_XYZ)[:, ::-1]
    matrix[:3, 3] = _LPS_TO_RAS @ origin_LPS
    return matrix


def _last_line(problem: Exception) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[-1][:160] if lines else type(problem).__name__
