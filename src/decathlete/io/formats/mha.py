"""MetaImage files (ITK), through SimpleITK."""

from __future__ import annotations

from decathlete.io.formats import IMAGE_FORMATS
from decathlete.io.itk import ItkFormat


@IMAGE_FORMATS.register("mha")
class MetaImage(ItkFormat):
    """MetaImage, in one file or as header and data: 2D, 3D, 4D with channels as the slowest axis, vector voxels."""

    title = "MetaImage"
    suffixes = (".mha", ".mhd")
    written_suffixes = (".mha",)
