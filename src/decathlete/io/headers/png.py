"""Chunks of PNG files, checked before Pillow decodes them: https://www.w3.org/TR/png-3."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from math import ceil
from pathlib import Path

from decathlete.io.headers.picture import PictureHeader, alpha_error, check_upright, exif_orientation
from decathlete.io.headers.text import header_error
from decathlete.io.limits import check_claim, check_sizes, damage_error

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_KEPT = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_MAX_CHUNKS = 1_000_000


def read_png(path: Path) -> tuple[PictureHeader, bytes]:
    """Check a file, and return its header and its content with the chunks that describe the pixels alone.

    Texts, colour profiles and animations are left out: a decoder that does not see them cannot fail on them.

    Raises:
        ImageError: a chunk is damaged, the image has an alpha channel, or the file cannot hold what it declares.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    if not content.startswith(SIGNATURE):
        raise damage_error(path, "the file does not begin with a PNG signature")
    kept, parts = [SIGNATURE], dict.fromkeys(_KEPT, 0)
    header: PictureHeader | None = None
    colour, palette = -1, b""
    for name, start, body in _chunks(path, content):
        if header is None:
            header, colour = _read_header(path, name, body)
        elif name == b"eXIf":
            check_upright(path, exif_orientation(body))
        elif name == b"tRNS":
            raise alpha_error(path)
        elif name == b"PLTE":
            palette = body
        if name in _KEPT:
            kept.append(content[start : start + len(body) + 12])
            parts[name] += len(body)
    if header is None or not parts[b"IDAT"]:
        raise damage_error(path, "it contains no pixels")
    check_claim(path, claimed=_n_bytes(header, colour), stored=parts[b"IDAT"], codec="deflate")
    return _with_palette(path, header, palette), b"".join(kept)


def _chunks(path: Path, content: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield name, offset and body of each chunk up to the end of the image; checksums are verified."""
    at = len(SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if at + 12 > len(content):
            break
        (length,) = struct.unpack(">I", content[at : at + 4])
        name, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        stored = content[at + 8 + length : at + 12 + length]
        if len(stored) < 4:
            break
        if struct.unpack(">I", stored)[0] != zlib.crc32(name + body):
            raise damage_error(path, "the checksum of a chunk is wrong")
        yield name, at, body
        if name == b"IEND":
            return
        at += 12 + length
    raise damage_error(path, "the file ends before the end of the image")


def _read_header(path: Path, name: bytes, body: bytes) -> tuple[PictureHeader, int]:
    if name != b"IHDR" or len(body) != 13:
        raise header_error(path, "does not begin with the chunk IHDR")
    width, height, bits, colour, compression, filtering, interlace = struct.unpack(">2I5B", body)
    if colour not in _DEPTHS or bits not in _DEPTHS[colour] or compression or filtering or interlace > 1:
        raise header_error(path, f"declares the colour type {colour} with {bits} bits, which PNG does not have")
    check_sizes(path, (width, height))
    if colour in (4, 6):
        raise alpha_error(path)
    kind = {0: "grey", 2: "rgb", 3: "palette"}[colour]
    return PictureHeader(width=width, height=height, kind=kind, bits=bits), colour  # type: ignore[arg-type]


def _n_bytes(header: PictureHeader, colour: int) -> int:
    """Return the bytes of all rows, each with its filter."""
    return header.height * (1 + ceil(header.width * header.bits * _SAMPLES[colour] / 8))


def _with_palette(path: Path, header: PictureHeader, stored: bytes) -> PictureHeader:
    if header.kind != "palette":
        return header
    if not stored or len(stored) % 3 or len(stored) > 768:
        raise header_error(path, f"has a palette of {len(stored)} bytes")
    palette = tuple((stored[i], stored[i + 1], stored[i + 2]) for i in range(0, len(stored), 3))
    return PictureHeader(width=header.width, height=header.height, kind="palette", bits=header.bits, palette=palette)
