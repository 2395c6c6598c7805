"""Directories of TIFF files, classic and BigTIFF, checked before tifffile decodes a page (TIFF 6.0, section 2)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import BinaryIO

from decathlete.errors import ImageError
from decathlete.io.headers.jpeg_frame import read_jpeg_frame
from decathlete.io.headers.picture import ColourKind, alpha_error, check_upright
from decathlete.io.headers.text import header_error
from decathlete.io.limits import MAX_AXIS, check_sizes, damage_error

_FORMS = {1: "B", 2: "B", 3: "H", 4: "I", 5: "2I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 18: "Q"}
_MOST_VALUES = 4_000_000
"""Values of one tag: more parts of a page, or a longer description, than any program writes."""

_RAW, _LZW, _JPEG, _DEFLATE, _PACKBITS = (1,), (5,), (7,), (8, 32946), (32773,)
_INFLATION = (
    dict.fromkeys(_RAW, 1) | dict.fromkeys(_LZW, 1400) | dict.fromkeys(_DEFLATE, 1032) | dict.fromkeys(_PACKBITS, 64)
)
"""Bytes of voxels per stored byte at most, of each compression that loses nothing."""
_JPEG_INFLATION = 1024
_LOSSLESS = frozenset(_INFLATION)
_KINDS: dict[int, ColourKind] = {0: "grey", 1: "grey", 2: "rgb", 3: "palette", 6: "rgb"}
_WHITE_IS_ZERO = 0
_REDUCED_IMAGE = 1
_PLANAR = 2


@dataclass(frozen=True, kw_only=True)
class TiffPage:
    """One image of a file.

    Attributes:
        number: place among the directories of the file.
        sample_kind: ``u``, ``i`` or ``f``.
        is_lossy: whether the compression changes values.
        description: text, such as OME-XML or ImageJ's fields.
        resolution: pixels per unit along x and y; 0: not declared.
        white_is_zero: whether the values are stored inverted: 0 is the brightest grey.
    """

    number: int
    width: int
    height: int
    samples: int
    bits: int
    sample_kind: str
    kind: ColourKind
    is_lossy: bool
    palette: tuple[tuple[int, int, int], ...] = ()
    description: bytes = b""
    resolution: tuple[float, float] = (0.0, 0.0)
    white_is_zero: bool = False

    @property
    def layout(self) -> tuple[object, ...]:
        """The properties that all pages of an image have in common."""
        return self.width, self.height, self.samples, self.bits, self.sample_kind, self.kind


def read_tiff(path: Path) -> list[TiffPage]:
    """Check all directories of a file, and return its full-resolution pages in order.

    Raises:
        ImageError: a directory is not valid, a page has an alpha channel or an unsupported coding, the values cannot be
            inverted (0 is white), or the file cannot hold what it declares.
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        reader = _Reader(path, stream)
        pages = [page for number, tags in enumerate(reader.directories()) if (page := reader.page(number, tags))]
    if not pages:
        raise damage_error(path, "it contains no image")
    if pages[0].description.startswith(b"ImageJ="):  # its inverted lookup tables change the display, not the values
        return [replace(page, white_is_zero=False) for page in pages]
    if any(page.white_is_zero and page.sample_kind != "u" for page in pages):
        raise ImageError(
            "declares that 0 is white (photometric interpretation 0), but has signed or floating-point numbers, for "
            "which no value is black",
            where=path,
            remedy="save it with the photometric interpretation 1 (0 is black)",
            code="E-IMAGE-FORMAT",
        )
    return pages


class _Reader:
    """Reads directories; every offset is compared with the size of the file."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self.stream = stream
        self.size = path.stat().st_size
        self.needed = 0
        start = self._read(0, min(16, self.size))
        order = {b"II": "<", b"MM": ">"}.get(start[:2])
        if order is None or len(start) < 8:
            raise damage_error(path, "the file does not begin with a TIFF header")
        self.order = order
        (version,) = struct.unpack(f"{order}H", start[2:4])
        if version not in (42, 43) or (version == 43 and len(start) < 16):
            raise damage_error(path, "the file does not begin with a TIFF header")
        self.big = version == 43
        (self.first,) = struct.unpack(f"{order}Q", start[8:16]) if self.big else struct.unpack(f"{order}I", start[4:8])

    def directories(self) -> Iterator[dict[int, tuple[int, int, bytes]]]:
        """Yield the tags of each directory: tag -> type, number of values, bytes with the values or their offset."""
        at, seen = self.first, set[int]()
        count_form, entry_size, offset_form = ("Q", 20, "Q") if self.big else ("H", 12, "I")
        while at:
            if at in seen or len(seen) >= MAX_AXIS:
                raise header_error(self.path, "has directories in a circle, or too many")
            seen.add(at)
            width = struct.calcsize(count_form)
            (n_tags,) = struct.unpack(self.order + count_form, self._read(at, width))
            if not 1 <= n_tags <= 4096:
                raise header_error(self.path, f"has a directory of {n_tags} tags")
            body = self._read(at + width, n_tags * entry_size)
            yield {tag: (kind, count, stored) for tag, kind, count, stored in self._entries(body, entry_size)}
            tail = self._read(at + width + n_tags * entry_size, struct.calcsize(offset_form))
            (at,) = struct.unpack(self.order + offset_form, tail)

    def _entries(self, body: bytes, size: int) -> Iterator[tuple[int, int, int, bytes]]:
        form = f"{self.order}2HQ" if self.big else f"{self.order}2HI"
        head = struct.calcsize(form)
        for at in range(0, len(body), size):
            tag, kind, count = struct.unpack(form, body[at : at + head])
            yield tag, kind, count, body[at + head : at + size]

    def page(self, number: int, tags: Mapping[int, tuple[int, int, bytes]]) -> TiffPage | None:
        """Check one page; ``None`` for a smaller copy of another one (a pyramid or a thumbnail)."""
        if self._one(tags, 254, 0) & _REDUCED_IMAGE:
            return None
        width, height = self._one(tags, 256), self._one(tags, 257)
        samples, compression = self._one(tags, 277, 1), self._one(tags, 259, 1)
        check_sizes(self.path, (width, height, samples))
        bits = self._same(tags, 258, 1)
        self._check_kind(tags, samples, compression)
        check_upright(self.path, self._one(tags, 274, 1))
        photometric = self._one(tags, 262)
        kind = _KINDS[photometric]
        self._check_parts(tags, (width, height), samples * bits, compression)
        if compression in _JPEG:
            self._check_jpeg_parts(tags, (width, height), 1 if self._one(tags, 284, 1) == _PLANAR else samples, bits)
        return TiffPage(
            number=number,
            width=width,
            height=height,
            samples=samples,
            bits=bits,
            sample_kind=self._sample_kind(tags),
            kind=kind,
            is_lossy=compression not in _LOSSLESS,
            palette=self._palette(tags, bits) if kind == "palette" else (),
            description=self._bytes(tags, 270),
            resolution=(self._ratio(tags, 282), self._ratio(tags, 283)),
            white_is_zero=photometric == _WHITE_IS_ZERO,
        )

    def _sample_kind(self, tags: Mapping[int, tuple[int, int, bytes]]) -> str:
        """Return the kind of the numbers, as NumPy's; numbers of an undefined kind (4) are read as unsigned."""
        number = self._same(tags, 339, 1)
        if number in (5, 6):  # complex integers or floats, whose imaginary part would be lost
            raise ImageError(
                "contains complex numbers, not one number per voxel and channel",
                where=self.path,
                remedy="save real and imaginary part, or magnitude and phase, as channels",
                code="E-IMAGE-FORMAT",
            )
        return {1: "u", 2: "i", 3: "f"}.get(number, "u")

    def _check_kind(self, tags: Mapping[int, tuple[int, int, bytes]], samples: int, compression: int) -> None:
        photometric = self._one(tags, 262, -1)
        colours = {2: 3, 6: 3}.get(photometric, 1)
        extra = self._values(tags, 338)
        if any(value in (1, 2) for value in extra):
            raise alpha_error(self.path)
        known = photometric in _KINDS and compression in (*_LOSSLESS, *_JPEG)
        wrong = (photometric == 3 and samples != 1) or (photometric in (2, 6) and samples != colours)
        if not known or wrong or (photometric == 6 and compression not in _JPEG):
            raise ImageError(
                f"has the compression {compression}, the photometric interpretation {photometric} and {samples} "
                "samples per pixel, which is not supported",
                where=self.path,
                remedy="save it as grey, RGB or with a palette, without compression or with deflate or LZW",
                code="E-IMAGE-FORMAT",
            )

    def _check_parts(
        self, tags: Mapping[int, tuple[int, int, bytes]], size: tuple[int, int], bits: int, compression: int
    ) -> None:
        """Compare strips or tiles with the file, and the declared voxels with what they can hold."""
        tiled = 324 in tags
        largest = prod(size)
        if tiled:
            tile = [self._one(tags, tag, 0) for tag in (322, 323)]
            if not all(1 <= n <= 2 * max(MAX_AXIS, *size) for n in tile) or prod(tile) > 2**28:
                raise header_error(self.path, "has tiles of an impossible size")
            largest = max(largest, prod(tile))  # a tile is decoded whole, also beyond the edge of the image
        claimed = largest * bits // 8
        offsets, counts = (self._values(tags, tag) for tag in ((324, 325) if tiled else (273, 279)))
        if not offsets or len(offsets) != len(counts):
            raise header_error(self.path, f"has {len(offsets)} parts and the sizes of {len(counts)}")
        if any(offset + count > self.size for offset, count in zip(offsets, counts, strict=True)):
            raise damage_error(self.path, "the file ends before its pixels")
        inflation = _INFLATION.get(compression, _JPEG_INFLATION)
        possible = sum(counts) * inflation
        if claimed > possible:
            raise damage_error(
                self.path, f"the header declares {claimed:,} bytes of voxels, where at most {possible:,} can be stored"
            )
        self.needed += claimed // inflation
        if self.needed > self.size:  # many directories may name the same bytes
            raise damage_error(self.path, "its pages declare more voxels than the file can hold")

    def _check_jpeg_parts(
        self, tags: Mapping[int, tuple[int, int, bytes]], size: tuple[int, int], samples: int, bits: int
    ) -> None:
        """Compare the header of each JPEG codestream with the strip or tile that it fills: a decoder believes it."""
        tiled = 324 in tags
        width, rows = (
            (self._one(tags, tag) for tag in (322, 323)) if tiled else (size[0], self._one(tags, 278, size[1]))
        )
        heights = (
            {rows} if tiled else {min(rows, size[1]), size[1] - (size[1] - 1) // rows * rows}
        )  # the last is shorter
        offsets, counts = (self._values(tags, tag) for tag in ((324, 325) if tiled else (273, 279)))
        for offset, count in zip(offsets, counts, strict=True):
            try:
                frame = read_jpeg_frame(self._read(offset, count))
            except ValueError as problem:
                raise damage_error(self.path, str(problem)) from None
            found = (frame.width, frame.components, frame.precision)
            if found != (width, samples, bits) or frame.height not in heights:
                raise damage_error(
                    self.path,
                    f"a codestream has {frame.width} x {frame.height} pixels, {frame.components} samples of "
                    f"{frame.precision} bits; its part of the page has {width} x {max(heights)}, {samples} of {bits}",
                )

    def _palette(self, tags: Mapping[int, tuple[int, int, bytes]], bits: int) -> tuple[tuple[int, int, int], ...]:
        values = self._values(tags, 320)
        n = 2**bits
        if bits > 8 or len(values) != 3 * n:
            raise header_error(self.path, f"has a palette of {len(values)} numbers for {bits} bits")
        shift = 8 if max(values) > 255 else 0  # some programs write 8 bits instead of 16
        return tuple((values[i] >> shift, values[n + i] >> shift, values[2 * n + i] >> shift) for i in range(n))

    def _one(self, tags: Mapping[int, tuple[int, int, bytes]], tag: int, default: int | None = None) -> int:
        values = self._values(tags, tag)
        if not values and default is None:
            raise header_error(self.path, f"has no tag {tag}")
        return values[0] if values else int(default or 0)

    def _same(self, tags: Mapping[int, tuple[int, int, bytes]], tag: int, default: int) -> int:
        """Return the value that all samples of a pixel share."""
        values = set(self._values(tags, tag)) or {default}
        if len(values) > 1:
            raise header_error(self.path, f"has samples that differ in tag {tag}")
        return values.pop()

    def _values(self, tags: Mapping[int, tuple[int, int, bytes]], tag: int) -> tuple[int, ...]:
        if tag not in tags:
            return ()
        kind, count, _ = tags[tag]
        if kind not in (1, 3, 4, 6, 8, 9, 13, 16, 18):
            raise header_error(self.path, f"has the type {kind} in tag {tag}, which is not an integer")
        return struct.unpack(f"{self.order}{count}{_FORMS[kind]}", self._bytes(tags, tag))

    def _ratio(self, tags: Mapping[int, tuple[int, int, bytes]], tag: int) -> float:
        if tag not in tags or tags[tag][0] != 5 or tags[tag][1] != 1:
            return 0.0
        numerator, denominator = struct.unpack(f"{self.order}2I", self._bytes(tags, tag))
        return numerator / denominator if denominator else 0.0

    def _bytes(self, tags: Mapping[int, tuple[int, int, bytes]], tag: int) -> bytes:
        if tag not in tags:
            return b""
        kind, count, stored = tags[tag]
        if kind not in _FORMS or not 1 <= count <= _MOST_VALUES:
            raise header_error(self.path, f"has {count} values of the type {kind} in tag {tag}")
        n_bytes = count * struct.calcsize(f"{self.order}{_FORMS[kind]}")
        if n_bytes <= len(stored):
            return stored[:n_bytes]
        (offset,) = struct.unpack(f"{self.order}{'Q' if self.big else 'I'}", stored)
        return self._read(offset, n_bytes)

    def _read(self, at: int, n_bytes: int) -> bytes:
        if at + n_bytes > self.size:
            raise damage_error(self.path, "the file ends within a directory")
        self.stream.seek(at)
        return self.stream.read(n_bytes)
