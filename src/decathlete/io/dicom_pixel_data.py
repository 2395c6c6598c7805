"""The pixel data of a DICOM file: whether the file has as many bytes as its header declares."""

from __future__ import annotations

import struct
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

_RLE = "1.2.840.10008.1.2.5"
_RLE_RATIO = 64  # two bytes of run length make at most 128
_JPEG_RATIO = 2**17
"""Bytes of voxels per byte of JPEG, JPEG-LS or JPEG 2000: 4096 x 4096 equal voxels of 16 bits need 300 bytes."""


def check_pixel_data(
    path: Path,
    stream: BinaryIO,
    dataset: Any,
    *,
    frame_bytes: int,
    n_bytes: int,
    n_frames: int,
    is_encapsulated: bool,
) -> None:
    """Compare the pixel data with the size that the header declares; only lengths are read.

    Args:
        stream: the file, at its pixel data.
        dataset: the header.
        frame_bytes, n_bytes: of one frame and of all frames, uncompressed.
        is_encapsulated: whether frames are compressed, each for itself.

    Raises:
        ImageError: they are missing, too short, or have more frames than the header declares.
        ValueError: the file is damaged.
    """
    if dataset.file_meta.get("TransferSyntaxUID") == DEFLATED:  # the dataset as a whole is compressed
        element = read_dicom(path, force=True).get_item(0x7FE00010)
        _check_length(path, len(element.value if element else b""), frame_bytes=frame_bytes, n_bytes=n_bytes)
        return
    length = _read_length(stream, dataset)
    start, end = stream.tell(), path.stat().st_size
    if is_encapsulated != (length == _UNDEFINED):
        raise ValueError("the length of the pixel data does not fit the transfer syntax")
    if not is_encapsulated:
        _check_length(path, min(length, end - start), frame_bytes=frame_bytes, n_bytes=n_bytes)
        _check_trailing_elements(stream, dataset, start + length, end)
        return
    lengths = _fragment_lengths(stream, end)
    _check_trailing_elements(stream, dataset, stream.tell(), end)
    if len(lengths) < n_frames:
        raise _wrong_length(path, f"has {len(lengths)} compressed frames, and its header declares {n_frames}")
    ratio = _RLE_RATIO if dataset.file_meta.TransferSyntaxUID == _RLE else _JPEG_RATIO
    if sum(lengths) * ratio < n_bytes:
        raise _wrong_length(path, f"has {sum(lengths)} compressed bytes, too few for {n_bytes} bytes of voxels")


def _read_length(stream: BinaryIO, dataset: Any) -> int:
    is_implicit, is_little_endian = dataset.original_encoding
    byte_order = "<" if is_little_endian else ">"
    head = stream.read(8)
    if len(head) < 8 or struct.unpack(f"{byte_order}2H", head[:4]) != _PIXEL_DATA:
        raise ValueError("it has no pixel data")
    if not is_implicit and head[4:6] not in _LONG_VALUES:
        raise ValueError("its pixel data have a wrong type")
    length = head[4:8] if is_implicit else stream.read(4)
    return int.from_bytes(length, "little" if is_little_endian else "big")


def _check_trailing_elements(stream: BinaryIO, dataset: Any, start: int, end: int) -> None:
    """Check the elements after the pixel data: GDCM reads them, and allocates what they declare.

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


def _check_length(path: Path, stored: int, *, frame_bytes: int, n_bytes: int) -> None:
    if stored < n_bytes:
        raise _wrong_length(path, f"has {stored} bytes of pixel data, and its header declares {n_bytes}")
    if stored >= n_bytes + frame_bytes:
        raise _wrong_length(path, f"has {stored} bytes of pixel data: more frames than its header declares")


def _fragment_lengths(stream: BinaryIO, end: int) -> list[int]:
    """Lengths of the fragments of compressed frames, without the table of offsets that comes first."""
    lengths: list[int] = []
    while True:
        head = stream.read(8)
        if len(head) < 8:
            raise ValueError("its pixel data have no end")
        group, element, length = struct.unpack("<2HI", head)  # compressed data are little endian
        if (group, element) == _END:
            return lengths[1:]
        if (group, element) != _ITEM or stream.tell() + length > end:
            raise ValueError("its pixel data are cut off")
        lengths.append(length)
        stream.seek(length, 1)


def _wrong_length(path: Path, problem: str) -> ImageError:
    return ImageError(
        problem,
        where=path,
        remedy="download or export this file again",
        code="E-IMAGE-DAMAGED",
    )
