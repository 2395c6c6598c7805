"""Formats that SimpleITK reads and writes. It uses LPS coordinates, where ``Geometry`` uses RAS."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry, HeaderCodes, Triple
from decathlete.core.lazy_import import lazy_import
from decathlete.errors import ImageError
from decathlete.io.formats import ImageFormat
from decathlete.io.spacing import complete_spacing
from decathlete.io.volumes import Volume

sitk = lazy_import("SimpleITK")

_FLOATS = ("sitkFloat32", "sitkFloat64", "sitkVectorFloat32", "sitkVectorFloat64")
_HEADER_BYTES = 2**16
_NO_SPACING = ("none", "nan")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


class ItkFormat(ImageFormat):
    """Base of these formats: 2D, 3D, 4D with the channels as the slowest axis, or vector voxels."""

    takes_spacing = True

    def read_header(self, path: Path, *, spacing: Triple | None = None) -> tuple[int, Geometry]:
        """From the header alone."""
        header = read_itk_header(path)
        return grid_of(header, path, self._spacing(header, path, spacing))

    def read_volume(
        self,
        path: Path,
        *,
        as_float32: bool = False,  # noqa: ARG002 - SimpleITK reads one type
        spacing: Triple | None = None,
    ) -> Volume:
        """All voxels."""
        channels, geometry = self.read_header(path, spacing=spacing)
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image)
        if image.GetNumberOfComponentsPerPixel() > 1:
            array = np.moveaxis(array, -1, 0)
        return Volume(array_CZYX=array.reshape(channels, *geometry.shape_ZYX), geometry=geometry)

    def holds_integers(self, path: Path) -> bool:
        """Type as stored."""
        return is_integer_header(read_itk_header(path))

    def write_volume(self, path: Path, array_CZYX: NDArray[Any], geometry: Geometry) -> None:
        """Write a compressed file; several channels become vector voxels."""
        write_itk(path, array_CZYX, geometry)

    @abstractmethod
    def stored_spacing(self, text: str) -> Sequence[str]:
        """Return what the header says of each axis' spacing, x first, ``none`` or ``nan`` for axes without; or nothing.

        Args:
            text: of the start of the file. SimpleITK does not tell a spacing of 1 mm from a missing one.
        """

    def _spacing(self, header: Any, path: Path, given: Triple | None) -> Triple:
        with path.open("rb") as stream:
            fields = list(self.stored_spacing(stream.read(_HEADER_BYTES).decode("latin-1")))
        axes = min(header.GetDimension(), 3)
        if 0 in header.GetSpacing()[:axes]:  # SimpleITK does not read the voxels of such a file
            raise ImageError(
                "has a spacing of 0",
                where=path,
                remedy="correct the spacing in its header, or export it again",
                code="E-IMAGE-SPACING",
            )
        while len(fields) > header.GetDimension():  # the axis of the components of a voxel
            fields.pop(next((k for k, field in enumerate(fields) if field in _NO_SPACING), 0))
        known = [k < len(fields) and fields[k] not in _NO_SPACING for k in range(axes)]
        spacing_XYZ = [s if is_known else None for s, is_known in zip(header.GetSpacing(), known, strict=False)]
        return complete_spacing([*spacing_XYZ, 1.0][2::-1], given, path)  # two axes: there is no third spacing


def is_integer_header(header: Any) -> bool:
    """Whether the voxels of a header are integers."""
    return header.GetPixelID() not in [getattr(sitk, name) for name in _FLOATS]


def read_itk_header(path: Path) -> Any:
    """Return a SimpleITK file reader with the header read: size, spacing, origin, direction, metadata."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def write_itk(path: Path, array_CZYX: NDArray[Any], geometry: Geometry) -> None:
    """Write a compressed file; several channels become vector voxels.

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


def grid_of(header: Any, path: Path, spacing_ZYX: Triple) -> tuple[int, Geometry]:
    """Number of channels and the grid of a header, with its spacing."""
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
    steps[:keep, :keep] = direction[:keep, :keep] * np.array(spacing_ZYX[::-1][:keep])
    origin[:keep] = header.GetOrigin()[:keep]
    x, y, z = (*size, 1)[:3]
    channels = components * (size[3] if dims == 4 else 1)
    codes = HeaderCodes(axes=2 if dims == 2 else 3)
    return int(channels), Geometry.from_matrix((z, y, x), ras_matrix(steps, origin), codes)


def _last_line(problem: Exception) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[-1][:160] if lines else type(problem).__name__
