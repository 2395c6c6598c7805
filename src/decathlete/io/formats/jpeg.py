"""JPEG files (Pillow): images only, since the compression changes values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from decathlete.io.formats import IMAGE_FORMATS
from decathlete.io.headers.jpeg import read_jpeg
from decathlete.io.headers.picture import PictureHeader
from decathlete.io.picture_format import PictureFormat, lossy_label_error
from decathlete.io.volumes import Volume


@IMAGE_FORMATS.register("jpeg")
class Jpeg(PictureFormat):
    """JPEG: one slice with 8 bits, grey or RGB. Label maps are rejected; predictions of a JPEG are written as PNG."""

    title = "JPEG"
    suffixes = (".jpg", ".jpeg")
    signatures = ((0, b"\xff\xd8\xff"),)
    prediction_suffix = ".png"

    def read_content(self, path: Path) -> tuple[PictureHeader, bytes]:
        """Check the markers."""
        return read_jpeg(path)

    def read_label_volume(self, path: Path, **spacing: Any) -> Volume:  # noqa: ARG002 - without spacing
        """Always an error: the compression changes label values, most of all at borders.

        Raises:
            ImageError: always.
        """
        raise lossy_label_error(path, "a JPEG")
