"""What the headers of PNG, BMP, JPEG and TIFF files have in common."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from decathlete.errors import ImageError
from decathlete.io.limits import damage_error

ColourKind = Literal["grey", "rgb", "palette"]

_ORIENTATION, _SHORT = 274, 3
MAX_JPEG_INFLATION = 1024
"""Bytes of voxels per byte of a Huffman-coded JPEG at most: 64 samples of a block need one bit, with 4:2:0 chroma."""


@dataclass(frozen=True, kw_only=True)
class PictureHeader:
    """A checked header of a 2D image.

    Attributes:
        bits: of one sample as stored.
        palette: red, green and blue of each index, 0..255, if the samples are indices.
    """

    width: int
    height: int
    kind: ColourKind
    bits: int
    palette: tuple[tuple[int, int, int], ...] = ()

    @property
    def is_grey(self) -> bool:
        """Whether the colours are shades of grey, by the header."""
        return self.kind == "grey" or (self.kind == "palette" and is_grey_palette(self.palette))

    @property
    def channels(self) -> int:
        """Channels of the image: 1 for shades of grey, 3 for colours."""
        return 1 if self.is_grey else 3


def is_grey_palette(palette: tuple[tuple[int, int, int], ...]) -> bool:
    """Return whether every colour of a palette is a shade of grey.

    >>> is_grey_palette(((0, 0, 0), (9, 9, 9))), is_grey_palette(((0, 0, 0), (9, 9, 8)))
    (True, False)
    """
    return all(red == green == blue for red, green, blue in palette)


def alpha_error(path: Path) -> ImageError:
    """Return the error of a picture with transparency."""
    return ImageError(
        "has an alpha channel (transparency), which is not a measured intensity: what lies below it is unknown",
        where=path,
        remedy="save the image without alpha, as grey or RGB",
        code="E-IMAGE-FORMAT",
    )


def check_upright(path: Path, orientation: int) -> None:
    """Reject pixels that are stored rotated or mirrored: annotations are drawn on the upright image.

    Args:
        orientation: number of EXIF and TIFF (tag 274); 2 to 8: rotated or mirrored.

    Raises:
        ImageError: they are rotated or mirrored.
    """
    if 2 <= orientation <= 8:  # other numbers are undefined, and shown upright
        raise ImageError(
            f"is stored rotated or mirrored (orientation {orientation} of EXIF or TIFF), which is not supported",
            where=path,
            remedy="save it upright (as `magick mogrify -auto-orient` does), together with its label map",
            code="E-IMAGE-FORMAT",
        )


def exif_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data, which begin with a TIFF header; 1 (upright) if there is none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 1
    (at,) = struct.unpack(f"{order}I", exif[4:8])
    if at + 2 > len(exif):
        return 1
    (n_tags,) = struct.unpack(f"{order}H", exif[at : at + 2])
    entries = exif[at + 2 : at + 2 + 12 * n_tags]
    for start in range(0, len(entries) - 11, 12):
        tag, kind, _, value = struct.unpack(f"{order}2HIH", entries[start : start + 10])
        if (tag, kind) == (_ORIENTATION, _SHORT):
            return int(value)
    return 1


def require_bytes(path: Path, content: bytes, length: int, what: str) -> bytes:
    """Return ``content``, which has to have ``length`` bytes.

    Raises:
        ImageError: the file ends before.
    """
    if len(content) < length:
        raise damage_error(path, f"the file ends within {what}")
    return content
