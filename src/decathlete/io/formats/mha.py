"""MetaImage files (ITK)."""

from __future__ import annotations

from pathlib import Path

from decathlete.core.geometry import Triple
from decathlete.io.formats import IMAGE_FORMATS
from decathlete.io.headers.metaimage import read_metaimage
from decathlete.io.headers.raster import Raster
from decathlete.io.raster_format import RasterFormat


@IMAGE_FORMATS.register("mha")
class MetaImage(RasterFormat):
    """MetaImage, in one file or as header and data: 2D, 3D, 4D with channels as the slowest axis, vector voxels."""

    title = "MetaImage"
    suffixes = (".mha", ".mhd")
    written_suffixes = (".mha",)
    detached_suffixes = (".mhd",)
    signatures = ((0, b"ObjectType"),)

    def read_raster(self, path: Path, *, spacing: Triple | None = None) -> Raster:
        """Read and check the header."""
        return read_metaimage(path, spacing=spacing)
