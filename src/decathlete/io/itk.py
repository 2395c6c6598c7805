"""NRRD and MetaImage files (and single DICOM files) through SimpleITK, which counts in LPS where we count in RAS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry, HeaderCodes
from decathlete.core.lazy_import import lazy_import
from decathlete.errors import ImageError
from decathlete.io.volumes import Volume

sitk = lazy_import("SimpleITK")

SUFFIXES = (".nrrd", ".mha", ".mhd", ".nhdr", ".dcm")
WRITABLE = (".nrrd", ".mha")

_FLOATS = ("sitkFloat32", "sitkFloat64", "sitkVectorFloat32", "sitkVectorFloat64")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


class ItkReader:
    """Formats that SimpleITK reads: 2D, 3D, 4D with the channels as the slowest axis, or vector voxels."""

    def accepts(self, path: Path) -> bool:
        """By suffix."""
        return path.name.lower().endswith(SUFFIXES)

    def grid(self, path: Path) -> tuple[int, Geometry]:
        """From the header alone."""
        with translate_read_error(path):
            header = read_header(path)
        return _grid(header, path)

    def volume(self, path: Path, *, as_float32: bool) -> Volume:
        """All voxels, rescale of DICOM applied."""
        with translate_read_error(path):
            header = read_header(path)
            channels, geometry = _grid(header, path)
            image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image)
        if image.GetNumberOfComponentsPerPixel() > 1:
            array = np.moveaxis(array, -1, 0)
        array = array.reshape(channels, *geometry.shape_ZYX)
        return Volume(array_CZYX=array.astype(np.float32, copy=False) if as_float32 else array, geometry=geometry)

    def holds_integers(self, path: Path) -> bool:
        """Type as read, rescale of DICOM included."""
        with translate_read_error(path):
            return read_header(path).GetPixelID() not in [getattr(sitk, name) for name in _FLOATS]


def read_header(path: Path) -> Any:
    """A SimpleITK file reader with the header read: size, spacing, origin, direction, metadata."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def write_itk(path: Path, array_CZYX: NDArray[Any], geometry: Geometry) -> None:
    """Write compressed NRRD or MHA; several channels become vector voxels.

    A slice that came with two axes has two again, unless it leaves the plane that they span.

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
        sitk.WriteImage(image, str(path), useCompression=True)
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


def _grid(header: Any, path: Path) -> tuple[int, Geometry]:
    dims = header.GetDimension()
    size, components = list(header.GetSize()), header.GetNumberOfComponents()
    if dims not in (2, 3, 4) or (dims == 4 and size[3] > 1 and components > 1):
        raise ImageError(
            f"has {dims} axes and {components} components per voxel",
            where=path,
            remedy="store it as 3D, or as 4D with the channels as the last axis",
            code="E-IMAGE-FORMAT",
        )
    direction = np.array(header.GetDirection()).reshape(dims, dims)
    keep = min(dims, 3)
    steps, origin = np.eye(3), np.zeros(3)
    steps[:keep, :keep] = direction[:keep, :keep] * np.array(header.GetSpacing()[:keep])
    origin[:keep] = header.GetOrigin()[:keep]
    x, y, z = (*size, 1)[:3]
    channels = components * (size[3] if dims == 4 else 1)
    codes = HeaderCodes(axes=2 if dims == 2 else 3)
    return int(channels), Geometry.from_matrix((z, y, x), ras_matrix(steps, origin), codes)


@contextmanager
def translate_read_error(path: Path) -> Iterator[None]:
    """SimpleITK's ``RuntimeError`` (many lines of C++) becomes one clear error."""
    if not path.exists():
        raise ImageError("does not exist", where=path, remedy="check the path", code="E-IMAGE-NOT-FOUND")
    try:
        yield
    except (RuntimeError, ValueError) as problem:
        raise ImageError(
            f"cannot be read: truncated, damaged, or of another kind than its name says ({_last_line(problem)})",
            where=path,
            remedy="download or export this file again",
            code="E-IMAGE-DAMAGED",
        ) from problem


def _last_line(problem: Exception) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[-1][:160] if lines else type(problem).__name__
