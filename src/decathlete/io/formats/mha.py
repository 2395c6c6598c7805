"""MetaImage files (ITK), through SimpleITK."""

from __future__ import annotations

import re
from collections.abc import Sequence

from decathlete.io.formats import IMAGE_FORMATS
from decathlete.io.itk import ItkFormat

_SPACING = re.compile(r"^\s*Element(?:Spacing|Size)\s*[=:](.*)$", re.MULTILINE | re.IGNORECASE)


@IMAGE_FORMATS.register("mha")
class MetaImage(ItkFormat):
    """MetaImage, in one file or as header and data: 2D, 3D, 4D with channels as the slowest axis, vector voxels."""

    title = "MetaImage"
    suffixes = (".mha", ".mhd")
    written_suffixes = (".mha",)

    def stored_spacing(self, text: str) -> Sequence[str]:
        """From ``ElementSpacing``, or else ``ElementSize``, as ITK does."""
        match = _SPACING.search(text.partition("ElementDataFile")[0])
        return match[1].lower().split() if match else ()
