"""Headers of BMP files, checked before Pillow decodes them (Microsoft's BITMAPINFOHEADER and its successors)."""

from __future__ import annotations

import struct
from pathlib import Path

from decathlete.errors import ImageError
from decathlete.io.headers.picture import ColourKind, PictureHeader, alpha_error, require_bytes
from decathlete.io.headers.text import header_error
from decathlete.io.limits import check_claim, check_sizes, damage_error

_HEADER_SIZES = (40, 52, 56, 108, 124)
_FILE_HEADER = 14


def read_bmp(path: Path) -> tuple[PictureHeader, bytes]:
    """Check the header of a file, and return it with the whole content.

    Raises:
        ImageError: the header is not valid, the pixels are compressed or have alpha, or the file cannot hold what it
            declares.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    if not content.startswith(b"BM"):
        raise damage_error(path, "the file does not begin with a BMP header")
    fields = require_bytes(path, content[: _FILE_HEADER + 40], _FILE_HEADER + 40, "the header")
    offset, size, width, height, planes, bits, compression = struct.unpack("<2I2i2HI", fields[10:34])
    (n_colours,) = struct.unpack("<I", fields[46:50])
    if size not in _HEADER_SIZES or planes != 1:
        raise header_error(path, f"has {size} bytes and {planes} planes")
    _check_pixels(path, bits, compression)
    height = abs(height)  # negative: rows from the top
    check_sizes(path, (width, height))
    stride = (width * bits + 31) // 32 * 4
    if not _FILE_HEADER + size <= offset <= len(content):
        raise damage_error(path, f"the header declares that the pixels begin at byte {offset}")
    claimed = stride * height
    check_claim(path, claimed=claimed, stored=min(len(content) - offset, claimed), codec="raw")
    if bits == 32:
        _check_fourth_bytes(path, content[offset + 3 : offset + claimed : 4])
    palette = _palette(path, content[_FILE_HEADER + size : offset], n_colours or 2**bits) if bits <= 8 else ()
    kind: ColourKind = "palette" if palette else "rgb"
    return PictureHeader(width=width, height=height, kind=kind, bits=min(bits, 8), palette=palette), content


def _check_pixels(path: Path, bits: int, compression: int) -> None:
    if compression or bits not in (1, 4, 8, 24, 32):
        raise ImageError(
            f"has {bits} bits per pixel with the compression {compression}, which is not supported",
            where=path,
            remedy="save it as PNG, or as BMP without compression (grey or 24 bit)",
            code="E-IMAGE-FORMAT",
        )


def _check_fourth_bytes(path: Path, fourth: bytes) -> None:
    """Check that the fourth byte of the pixels is empty: 0, or 255 (opaque). Some programs write alpha there."""
    if fourth.strip(b"\0") and fourth.strip(b"\xff"):
        raise alpha_error(path)


def _palette(path: Path, stored: bytes, n_colours: int) -> tuple[tuple[int, int, int], ...]:
    if not 1 <= n_colours <= 256 or len(stored) < 4 * n_colours:
        raise header_error(path, f"declares a palette of {n_colours} colours")
    return tuple((stored[i + 2], stored[i + 1], stored[i]) for i in range(0, 4 * n_colours, 4))
