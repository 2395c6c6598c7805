"""NRRD files (Teem), through SimpleITK."""

from __future__ import annotations

import re
from collections.abc import Sequence

from decathlete.io.formats import IMAGE_FORMATS
from decathlete.io.itk import ItkFormat

_DIRECTIONS = re.compile(r"^space directions:(.*)$", re.MULTILINE | re.IGNORECASE)
_SPACINGS = re.compile(r"^spacings:(.*)$", re.MULTILINE | re.IGNORECASE)


@IMAGE_FORMATS.register("nrrd")
class Nrrd(ItkFormat):
    """NRRD, in one file or as header and data: 2D, 3D, 4D with channels as the slowest axis, vector voxels."""

    title = "NRRD"
    suffixes = (".nrrd", ".nhdr")
    written_suffixes = (".nrrd",)

    def stored_spacing(self, text: str) -> Sequence[str]:
        """From ``space directions``, or else ``spacings``."""
        header = text.replace("\r\n", "\n").partition("\n\n")[0]
        for pattern in (_DIRECTIONS, _SPACINGS):
            if match := pattern.search(header):
                return re.findall(r"\([^)]*\)|[^\s()]+", match[1].lower())
        return ()
