"""PNG files (Pillow; SimpleITK for RGB with 16 bits)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.lazy_import import lazy_import
from decathlete.io.formats import IMAGE_FORMATS
from decathlete.io.headers.picture import PictureHeader
from decathlete.io.headers.png import read_png
from decathlete.io.picture_format import PictureFormat

sitk = lazy_import("SimpleITK")


@IMAGE_FORMATS.register("png")
class Png(PictureFormat):
    """PNG: one slice with 1 to 16 bits, grey, RGB or with a palette, without alpha."""

    title = "PNG"
    suffixes = (".png",)
    written_suffixes = (".png",)
    signatures = ((0, b"\x89PNG\r\n"),)

    def read_content(self, path: Path) -> tuple[PictureHeader, bytes]:
        """Check all chunks."""
        return read_png(path)

    def decode(self, path: Path, header: PictureHeader, content: bytes) -> NDArray[Any]:
        """RGB with 16 bits is read by SimpleITK: Pillow would cut it to 8."""
        if header.kind == "rgb" and header.bits == 16:
            return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="PNGImageIO")))
        return super().decode(path, header, content)
