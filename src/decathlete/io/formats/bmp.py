"""BMP files (Pillow)."""

from __future__ import annotations

from pathlib import Path

from decathlete.io.formats import IMAGE_FORMATS
from decathlete.io.headers.bmp import read_bmp
from decathlete.io.headers.picture import PictureHeader
from decathlete.io.picture_format import PictureFormat


@IMAGE_FORMATS.register("bmp")
class Bmp(PictureFormat):
    """BMP without compression: one slice with 8 bits, grey, RGB or with a palette, without alpha."""

    title = "BMP"
    suffixes = (".bmp",)
    written_suffixes = (".bmp",)
    written_types = ("uint8",)

    def read_content(self, path: Path) -> tuple[PictureHeader, bytes]:
        """Check the header."""
        return read_bmp(path)
