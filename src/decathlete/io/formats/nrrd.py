"""NRRD files (Teem), through SimpleITK."""

from __future__ import annotations

from decathlete.io.formats import IMAGE_FORMATS
from decathlete.io.itk import ItkFormat


@IMAGE_FORMATS.register("nrrd")
class Nrrd(ItkFormat):
    """NRRD, in one file or as header and data: 2D, 3D, 4D with channels as the slowest axis, vector voxels."""

    title = "NRRD"
    suffixes = (".nrrd", ".nhdr")
    written_suffixes = (".nrrd",)
