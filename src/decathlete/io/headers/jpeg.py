"""Markers of JPEG files, checked before Pillow decodes them (ITU-T T.81, annex B)."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from decathlete.errors import ImageError
from decathlete.io.headers.jpeg_frame import MAX_SCANS
from decathlete.io.headers.picture import MAX_JPEG_INFLATION, PictureHeader, check_upright, exif_orientation
from decathlete.io.headers.text import header_error
from decathlete.io.limits import check_sizes, damage_error

_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
_OTHER_FRAMES = (0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))
_SCAN, _END = 0xDA, 0xD9
_APP1, _EXIF = 0xE1, b"Exif\0\0"
_MAX_SEGMENTS = 10_000
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""With a length after it. In the data of a scan, 0xFF is followed by 0 or by a restart marker."""


def read_jpeg(path: Path) -> tuple[PictureHeader, bytes]:
    """Check the markers of a file up to its first scan, and return header and content.

    Raises:
        ImageError: the markers are not valid, the coding is not supported, or the file cannot hold what it declares.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    if not content.startswith(b"\xff\xd8\xff"):
        raise damage_error(path, "the file does not begin with a JPEG marker")
    frame = _find_frame(path, content)
    _check_scans(path, content)
    precision, height, width, components = struct.unpack(">B2HB", frame[:6])
    check_sizes(path, (width, height))
    if components not in (1, 3) or precision != 8:
        raise _unsupported(path, f"{components} components of {precision} bits")
    claimed = width * height * components
    if claimed > len(content) * MAX_JPEG_INFLATION:
        raise damage_error(path, f"the header declares {claimed:,} samples, more than {len(content):,} bytes can hold")
    return PictureHeader(width=width, height=height, kind="rgb" if components == 3 else "grey", bits=8), content


def _find_frame(path: Path, content: bytes) -> bytes:
    """Return the body of the frame header."""
    at, frame = 2, b""
    for _ in range(_MAX_SEGMENTS):
        if at + 4 > len(content) or content[at] != 0xFF:
            break
        marker = content[at + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _OTHER_FRAMES:
            raise _unsupported(path, "a lossless, hierarchical or arithmetic coding")
        if marker in (_SCAN, _END):
            break
        (length,) = struct.unpack(">H", content[at + 2 : at + 4])
        if marker == _APP1 and content[at + 4 : at + 4 + len(_EXIF)] == _EXIF:
            check_upright(path, exif_orientation(content[at + 4 + len(_EXIF) : at + 2 + length]))
        if marker in _HUFFMAN_FRAMES:
            if frame or length < 8:
                raise header_error(path, "has two frames, or one that is too short")
            frame = content[at + 4 : at + 2 + length]
        at += 2 + max(length, 2)
    if len(frame) < 6:
        raise damage_error(path, "it contains no frame")
    return frame


def _check_scans(path: Path, content: bytes) -> None:
    """Reject more scans than programs write: each takes time for the whole picture, however few its bytes."""
    at, n_scans = 2, 0
    while match := _MARKER.search(content, at):
        marker = match.group()[1]
        n_scans += marker == _SCAN
        if marker == _END:
            return
        if n_scans > MAX_SCANS:
            raise header_error(path, f"has more than {MAX_SCANS} scans")
        at = match.end() + int.from_bytes(content[match.end() : match.end() + 2], "big")


def _unsupported(path: Path, what: str) -> ImageError:
    return ImageError(
        f"is a JPEG with {what}, which is not supported",
        where=path,
        remedy="save it as grey or RGB with 8 bits, better as PNG, which loses nothing",
        code="E-IMAGE-FORMAT",
    )
