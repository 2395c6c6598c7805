"""The pixel data of a DICOM file: their layout, and whether the file has as many bytes as its header declares."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, BinaryIO

from decathlete.errors import ImageError
from decathlete.io.dicom_reading import DEFLATED, read_dicom

_PIXEL_DATA = (0x7FE0, 0x0010)
_LONG_VALUES = {b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"UN"}  # types with a length of 4 bytes
_LONG_OTHERS = {b"SQ", b"SV", b"UC", b"UR", b"UT", b"UV"}  # as these, which cannot hold pixel data
_UNDEFINED = 0xFFFFFFFF
_SIGNATURES = (0xFFFA, 0xFFFA)
_ITEM, _END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_PALETTE = "PALETTE COLOR"
_RLE = "1.2.840.10008.1.2.5"
_RLE_RATIO = 64  # two bytes of run length make at most 128
_JPEG_RATIO = 2**17
"""Bytes of voxels per byte of JPEG, JPEG-LS or JPEG 2000: 4096 x 4096 equal voxels of 16 bits need 300 bytes."""


@dataclass(frozen=True, kw_only=True)
class PixelLayout:
    """How the pixels of a file are stored.

    Attributes:
        samples: stored numbers per pixel: 1, or 3 for colours.
        photometric: how numbers are shown, e.g. MONOCHROME2.
        is_planar: whether the samples of a frame are stored one after another.
        syntax: UID of the transfer syntax; empty: not in the file.
        is_encapsulated: whether frames are compressed, each for itself.
        is_words: whether numbers of 8 bits are stored as words of 16.
        start: of the pixel data in the file, bytes.
    """

    path: Path
    rows: int
    columns: int
    n_frames: int
    samples: int
    bits_allocated: int
    bits_stored: int
    is_signed: bool
    photometric: str
    is_planar: bool
    syntax: str
    is_encapsulated: bool
    is_big_endian: bool
    is_words: bool = False
    start: int = 0

    @property
    def n_channels(self) -> int:
        """Channels of the image; a palette becomes colours."""
        return 3 if self.photometric == _PALETTE else self.samples

    @property
    def is_coded_colour(self) -> bool:
        """Whether colours are stored otherwise than as red, green and blue."""
        return self.photometric == _PALETTE or self.photometric.startswith("YBR")

    @property
    def frame_bits(self) -> int:
        """Bits of an uncompressed frame; two pixels in a row may share their colour."""
        is_subsampled = self.photometric == "YBR_FULL_422" and not self.is_encapsulated
        return self.rows * self.columns * (2 if is_subsampled else self.samples) * self.bits_allocated


def locate_pixel_data(stream: BinaryIO, dataset: Any, pixels: PixelLayout) -> PixelLayout:
    """Find the pixel data, and compare them with the size that the header declares; only lengths are read.

    Args:
        stream: the file, at its pixel data.
        dataset: the header.

    Returns:
        ``pixels`` with the place and type of the pixel data.

    Raises:
        ImageError: they are missing, too short, or have more frames than the header declares.
        ValueError: the file is damaged.
    """
    path = pixels.path
    if pixels.syntax == DEFLATED:  # the dataset as a whole is compressed
        element = read_dicom(path, force=True).get_item(0x7FE00010)
        _check_length(pixels, len(element.value if element else b""))
        return pixels
    length, kind = _read_length(stream, dataset)
    start, end = stream.tell(), path.stat().st_size
    if pixels.is_encapsulated != (length == _UNDEFINED):
        raise ValueError("the length of the pixel data does not fit the transfer syntax")
    located = replace(pixels, start=start, is_words=kind == b"OW")
    if not pixels.is_encapsulated:
        _check_length(pixels, min(length, end - start))
        _check_trailing_elements(stream, dataset, start + length, end)
        return located
    lengths = [size for _, size in read_fragments(stream, end)[1:]]
    _check_trailing_elements(stream, dataset, stream.tell(), end)
    if len(lengths) < pixels.n_frames:
        raise _wrong_length(path, f"has {len(lengths)} compressed frames, and its header declares {pixels.n_frames}")
    n_bytes = ceil(pixels.n_frames * pixels.frame_bits / 8)
    if sum(lengths) * (_RLE_RATIO if pixels.syntax == _RLE else _JPEG_RATIO) < n_bytes:
        raise _wrong_length(path, f"has {sum(lengths)} compressed bytes, too few for {n_bytes} bytes of voxels")
    return located


def _read_length(stream: BinaryIO, dataset: Any) -> tuple[int, bytes]:
    """Return length and type of the pixel data, and move to their first byte."""
    is_implicit, is_little_endian = dataset.original_encoding
    byte_order = "<" if is_little_endian else ">"
    head = stream.read(8)
    if len(head) < 8 or struct.unpack(f"{byte_order}2H", head[:4]) != _PIXEL_DATA:
        raise ValueError("it has no pixel data")
    if not is_implicit and head[4:6] not in _LONG_VALUES:
        raise ValueError("its pixel data have a wrong type")
    length = head[4:8] if is_implicit else stream.read(4)
    return int.from_bytes(length, "little" if is_little_endian else "big"), b"OW" if is_implicit else head[4:6]


def _check_trailing_elements(stream: BinaryIO, dataset: Any, start: int, end: int) -> None:
    """Check the elements after the pixel data: others read them, and allocate what they declare.

    Raises:
        ValueError: they are not in order (a second image), or longer than the file.
    """
    is_implicit, is_little_endian = dataset.original_encoding
    byte_order, last = "<" if is_little_endian else ">", _PIXEL_DATA
    stream.seek(start)
    while stream.tell() < end:
        head = stream.read(8)
        if not head.strip(b"\0") and not stream.read().strip(b"\0"):
            return  # padding
        if len(head) < 8:
            raise ValueError("it ends within an element")
        tag = struct.unpack(f"{byte_order}2H", head[:4])
        if tag <= last:
            raise ValueError("elements after its pixel data are not in order")
        if is_implicit or head[4:6] in _LONG_VALUES | _LONG_OTHERS:
            field = head[4:8] if is_implicit else stream.read(4)
        else:
            field = head[6:8]
        length = int.from_bytes(field, "little" if is_little_endian else "big")
        if length == _UNDEFINED and tag == _SIGNATURES:
            return
        if length > end - stream.tell():
            raise ValueError("an element after its pixel data is longer than the file")
        stream.seek(length, 1)
        last = tag


def _check_length(pixels: PixelLayout, stored: int) -> None:
    frame_bytes, n_bytes = ceil(pixels.frame_bits / 8), ceil(pixels.n_frames * pixels.frame_bits / 8)
    if stored < n_bytes:
        raise _wrong_length(pixels.path, f"has {stored} bytes of pixel data, and its header declares {n_bytes}")
    if stored >= n_bytes + frame_bytes:
        raise _wrong_length(pixels.path, f"has {stored} bytes of pixel data: more frames than its header declares")


def read_fragments(stream: BinaryIO, end: int) -> list[tuple[int, int]]:
    """Return start and length of the fragments of compressed frames; the first is the table of offsets.

    Args:
        stream: at the pixel data.
        end: of the file.

    Raises:
        ValueError: they are cut off.
    """
    fragments: list[tuple[int, int]] = []
    while True:
        head = stream.read(8)
        if len(head) < 8:
            raise ValueError("its pixel data have no end")
        group, element, length = struct.unpack("<2HI", head)  # compressed data are little endian
        if (group, element) == _END:
            return fragments
        if (group, element) != _ITEM or stream.tell() + length > end:
            raise ValueError("its pixel data are cut off")
        fragments.append((stream.tell(), length))
        stream.seek(length, 1)


def _wrong_length(path: Path, problem: str) -> ImageError:
    return ImageError(
        problem,
        where=path,
        remedy="download or export this file again",
        code="E-IMAGE-DAMAGED",
    )
