"""Formats with a text header (NRRD, MetaImage): read here after strict checks, written by SimpleITK."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry, HeaderCodes, Triple
from decathlete.core.registry import ComponentSettings
from decathlete.errors import ImageError
from decathlete.io.formats import ImageFormat
from decathlete.io.headers.raster import Raster
from decathlete.io.itk import ras_matrix, write_itk
from decathlete.io.volumes import Volume
from decathlete.io.voxels import read_voxels

_ANY_SPACING = (1.0, 1.0, 1.0)
"""For questions about a file that do not concern its grid."""


class RasterFormat(ImageFormat):
    """Base of these formats: 2D, 3D, 4D with the channels as the slowest axis, or vector voxels."""

    class Settings(ComponentSettings):
        is_compressed: bool = True
        """Whether the voxels of written files are compressed."""

    takes_spacing = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.is_compressed = settings.is_compressed

    def files_of(self, path: Path) -> tuple[Path, ...]:
        """The header, and the files that it names."""
        raster = self.read_raster(path, spacing=_ANY_SPACING)
        return tuple(dict.fromkeys((path, *(file.path for file in raster.files))))

    @abstractmethod
    def read_raster(self, path: Path, *, spacing: Triple | None = None) -> Raster:
        """Read and check the header; ``spacing`` (z, y, x, mm) is used for axes without one."""

    def read_header(self, path: Path, *, spacing: Triple | None = None) -> tuple[int, Geometry]:
        """Read the header alone."""
        return _grid(self.read_raster(path, spacing=spacing))

    def read_volume(
        self,
        path: Path,
        *,
        as_float32: bool = False,  # noqa: ARG002 - stored in one type
        spacing: Triple | None = None,
    ) -> Volume:
        """All voxels in their own number type; checksums of compressed voxels are verified."""
        raster = self.read_raster(path, spacing=spacing)
        channels, geometry = _grid(raster)
        array = read_voxels(raster)
        if raster.component_axis is not None:
            array = np.moveaxis(array, len(raster.sizes) - 1 - raster.component_axis, 0)
        return Volume(array_CZYX=array.reshape(channels, *geometry.shape_ZYX), geometry=geometry)

    def holds_integers(self, path: Path) -> bool:
        """Type as stored."""
        return self.read_raster(path, spacing=_ANY_SPACING).dtype.kind in "iu"

    def write_volume(self, path: Path, array_CZYX: NDArray[Any], geometry: Geometry) -> None:
        """Write a file, compressed by default; several channels become vector voxels."""
        write_itk(path, array_CZYX, geometry, is_compressed=self.is_compressed)


def _grid(raster: Raster) -> tuple[int, Geometry]:
    """Number of channels and the grid of a header."""
    sizes = raster.spatial_sizes
    components = 1 if raster.component_axis is None else raster.sizes[raster.component_axis]
    if len(sizes) not in (2, 3, 4) or (len(sizes) == 4 and sizes[3] > 1 and components > 1):
        raise ImageError(
            f"has {len(sizes)} axes and {components} components per voxel",
            where=raster.path,
            remedy="store it as 3D, or as 4D with the channels as the last axis",
            code="E-IMAGE-FORMAT",
        )
    keep = min(len(sizes), 3)
    steps, origin = np.eye(3), np.zeros(3)
    steps[:keep, :keep], origin[:keep] = raster.steps[:keep, :keep], raster.origin[:keep]
    x, y, z = (*sizes, 1)[:3]
    channels = components * (sizes[3] if len(sizes) == 4 else 1)
    codes = HeaderCodes(axes=2 if len(sizes) == 2 else 3)
    return channels, Geometry.from_matrix((z, y, x), ras_matrix(steps, origin), header=codes)
