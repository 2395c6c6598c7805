"""The frame header of a JPEG or JPEG-LS codestream (ITU-T T.81, annex B; T.87, annex C)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_START, _SCAN, _END = b"\xff\xd8", 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD8)))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
MAX_SCANS = 100
"""libjpeg writes 10 for a progressive picture in colours."""
_MAX_SEGMENTS = 10_000


@dataclass(frozen=True, kw_only=True)
class JpegFrame:
    """What a codestream declares.

    Attributes:
        kind: code of the frame's marker: 0xC0 baseline, 0xC1 extended, 0xC2 progressive, 0xC3 lossless, 0xF7 JPEG-LS.
        precision: bits of a sample.
    """

    kind: int
    precision: int
    width: int
    height: int
    components: int


def read_jpeg_frame(content: bytes) -> JpegFrame:
    """Read the markers up to the first scan.

    Raises:
        ValueError: they are not valid, or there is not one frame; or there are more scans than any program writes,
            each of which may cost as much time as a whole image.
    """
    if not content.startswith(_START):
        raise ValueError("its codestream does not begin with a JPEG marker")
    at, frame = 2, None
    for _ in range(_MAX_SEGMENTS):
        if at + 4 > len(content) or content[at] != 0xFF:
            raise ValueError("its codestream is not a series of JPEG markers")
        marker = content[at + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in (_SCAN, _END):
            break
        (length,) = struct.unpack(">H", content[at + 2 : at + 4])
        body = content[at + 4 : at + 2 + length]
        if length < 2 or len(body) != length - 2:
            raise ValueError("its codestream ends within a JPEG marker")
        if marker in _FRAMES:
            if frame is not None:
                raise ValueError("its codestream has two frames")
            frame = _parse(marker, body)
        at += 2 + length
    if frame is None:
        raise ValueError("its codestream contains no frame")
    if content.count(b"\xff\xda", at) > MAX_SCANS:
        raise ValueError(f"its codestream has more than {MAX_SCANS} scans")
    return frame


def _parse(marker: int, body: bytes) -> JpegFrame:
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise ValueError("its codestream has a frame of a wrong length")
    precision, height, width, components = struct.unpack(">B2HB", body[:6])
    return JpegFrame(kind=marker, precision=precision, width=width, height=height, components=components)
