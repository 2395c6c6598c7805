"""Frames of DICOM that are compressed by run lengths (PS3.5, annex G); Pillow unpacks them (PackBits is the same)."""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np

from decathlete.core.lazy_import import lazy_import
from decathlete.io.dicom_pixel_data import PixelLayout

images = lazy_import("PIL.Image")

RLE = "1.2.840.10008.1.2.5"
_HEAD = 64
_RATIO = 64
"""Two bytes of run length make at most 128."""


def unpack_frame(pixels: PixelLayout, content: bytes) -> bytes:
    """Return the numbers of a frame, little endian, sample after sample.

    Raises:
        ValueError: the frame is damaged, or does not fit the attributes.
    """
    width = pixels.bits_allocated // 8
    n_pixels = pixels.rows * pixels.columns
    planes = [_unpack(segment, n_pixels) for segment in _segments(content, pixels.samples * width, n_pixels)]
    samples = [np.stack(planes[k : k + width][::-1], axis=-1) for k in range(0, len(planes), width)]  # high byte first
    return b"".join(sample.tobytes() for sample in samples)


def _segments(content: bytes, n_segments: int, n_pixels: int) -> list[bytes]:
    """Return the segments, one for each byte of a pixel."""
    if len(content) < _HEAD:
        raise ValueError("its RLE frame ends within the header")
    count, *offsets = struct.unpack("<16I", content[:_HEAD])
    if count != n_segments or not 1 <= n_segments <= len(offsets):
        raise ValueError(f"its RLE frame has {count} segments, where {n_segments} belong")
    bounds = [*offsets[:n_segments], len(content)]
    if bounds[0] != _HEAD or any(start >= end for start, end in pairwise(bounds)):
        raise ValueError("its RLE frame has segments that overlap, or lie outside it")
    segments = [content[start:end] for start, end in pairwise(bounds)]
    if min(map(len, segments)) * _RATIO < n_pixels:
        raise ValueError("its RLE frame has a segment that is too short")
    return segments


def _unpack(segment: bytes, n_pixels: int) -> np.ndarray:
    plane = images.frombytes("L", (n_pixels, 1), segment, "packbits", "L")  # one row: runs may cross those of the image
    return np.asarray(plane).ravel()
