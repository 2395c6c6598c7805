"""NRRD files (Teem)."""

from __future__ import annotations

from pathlib import Path

from decathlete.core.geometry import Triple
from decathlete.io.formats import IMAGE_FORMATS
from decathlete.io.headers.nrrd import read_nrrd
from decathlete.io.headers.raster import Raster
from decathlete.io.raster_format import RasterFormat


@IMAGE_FORMATS.register("nrrd")
class Nrrd(RasterFormat):
    """NRRD, in one file or as header and data: 2D, 3D, 4D with channels as the slowest axis, vector voxels."""

    title = "NRRD"
    suffixes = (".nrrd", ".nhdr")
    written_suffixes = (".nrrd",)
    detached_suffixes = (".nhdr",)
    signatures = ((0, b"NRRD"),)

    def read_raster(self, path: Path, *, spacing: Triple | None = None) -> Raster:
        """Read and check the header."""
        return read_nrrd(path, spacing=spacing)
