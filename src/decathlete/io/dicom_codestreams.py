"""Headers of compressed DICOM frames, compared with the attributes before a decoder sees them.

A decoder believes the codestream: it would allocate and fill what the codestream declares.
"""

from __future__ import annotations

import struct
from pathlib import Path

from decathlete.errors import ImageError
from decathlete.io.dicom_pixel_data import PixelLayout
from decathlete.io.dicom_rle import RLE
from decathlete.io.headers.jpeg_frame import read_jpeg_frame

_JPEG_FRAMES = {
    "50": (0xC0, 0xC1, 0xC2),
    "51": (0xC0, 0xC1, 0xC2),
    "57": (0xC3,),
    "70": (0xC3,),
    "80": (0xF7,),
    "81": (0xF7,),
}
"""End of the transfer syntax 1.2.840.10008.1.2.4.* -> markers of the frames that it allows."""
_JPEG_2000 = ("90", "91")
_JPEG = "1.2.840.10008.1.2.4."
_JP2, _CODESTREAM = b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"
_MAX_TILES = 65_535


def check_syntax(path: Path, syntax: str) -> None:
    """Reject a transfer syntax with compressed frames that is not supported.

    Raises:
        ImageError: it is not.
    """
    if syntax != RLE and syntax.removeprefix(_JPEG) not in (*_JPEG_FRAMES, *_JPEG_2000):
        raise ImageError(
            f"is compressed in a way that is not supported (transfer syntax {syntax[:64]})",
            where=path,
            remedy="export it without compression, or with JPEG, JPEG-LS, JPEG 2000 or RLE",
            code="E-IMAGE-FORMAT",
        )


def check_codestream(pixels: PixelLayout, codestream: bytes) -> None:
    """Compare size, bits and samples of one frame of JPEG, JPEG-LS or JPEG 2000 with the attributes of its file.

    Raises:
        ValueError: they differ, or the header is damaged.
    """
    kind = pixels.syntax.removeprefix(_JPEG)
    if kind in _JPEG_2000:
        size, bits = _read_jpeg_2000(codestream)
    else:
        frame = read_jpeg_frame(codestream)
        if frame.kind not in _JPEG_FRAMES[kind]:
            raise ValueError(f"its codestream is of another kind (marker {frame.kind:02X}) than its transfer syntax")
        size, bits = (frame.width, frame.height, frame.components), frame.precision
    if size != (pixels.columns, pixels.rows, pixels.samples):
        found, declared = (
            " x ".join(map(str, numbers)) for numbers in (size, (pixels.columns, pixels.rows, pixels.samples))
        )
        raise ValueError(f"its codestream has {found} columns, rows and samples, and its header declares {declared}")
    if -(-bits // 8) * 8 != pixels.bits_allocated and not 17 <= bits <= pixels.bits_allocated:
        raise ValueError(f"its codestream has {bits} bits, and its header allocates {pixels.bits_allocated}")


def _read_jpeg_2000(content: bytes) -> tuple[tuple[int, int, int], int]:
    """Return columns, rows and components, and the bits of a sample (ITU-T T.800, annex A.5.1)."""
    at = content.find(_CODESTREAM) if content.startswith(_JP2) else 0
    if at < 0 or content[at : at + 4] != _CODESTREAM or len(content) < at + 42:
        raise ValueError("its codestream does not begin with the size of a JPEG 2000 image")
    length, _, *numbers, n_components = struct.unpack(">2H8IH", content[at + 4 : at + 42])
    end_x, end_y, start_x, start_y, tile_x, tile_y, first_x, first_y = numbers
    components = content[at + 42 : at + 42 + 3 * n_components]
    if length != 38 + 3 * n_components or len(components) != 3 * n_components or not components:
        raise ValueError("its codestream has components of a wrong length")
    if set(components[1::3]) | set(components[2::3]) != {1} or len(set(components[::3])) != 1:
        raise ValueError("its codestream has components that differ in size or bits")
    if not (first_x <= start_x < min(end_x, first_x + tile_x) and first_y <= start_y < min(end_y, first_y + tile_y)):
        raise ValueError("its codestream has tiles outside the image")
    if -((first_x - end_x) // tile_x) * -((first_y - end_y) // tile_y) > _MAX_TILES:
        raise ValueError("its codestream has too many tiles")
    return (end_x - start_x, end_y - start_y, n_components), (components[0] & 0x7F) + 1
