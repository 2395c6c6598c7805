"""The stored numbers of a DICOM file's frames, one frame at a time, in the order of the file, without rescaling.

Plain numbers are read here. Compressed frames, palettes and YBR colours are decoded by GDCM in a child process, from a
copy that holds nothing but one frame and the attributes that decoding depends on: GDCM never sees the file itself,
reads no other attribute of it, and does not rescale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from math import prod
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from decathlete.core.lazy_import import lazy_import
from decathlete.io.dicom_codestreams import check_codestream, check_syntax
from decathlete.io.dicom_pixel_data import PixelLayout, read_fragments
from decathlete.io.dicom_reading import DEFLATED, read_dicom
from decathlete.io.dicom_rle import RLE, unpack_frame
from decathlete.io.frame_workers import decode_frame
from decathlete.io.limits import damage_error

pydicom = lazy_import("pydicom")

_PIXEL_DATA = 0x7FE00010
_PALETTE = (*range(0x00281101, 0x00281104), *range(0x00281201, 0x00281204))
"""Tags of the descriptors and values of three lookup tables."""
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def read_frames(pixels: PixelLayout) -> Iterator[NDArray[Any]]:
    """Yield the frames: (rows, columns), with colours (rows, columns, 3) as red, green and blue.

    Raises:
        ImageError: a compressed frame does not fit the attributes, or cannot be decoded.
        ValueError: the file is damaged.
    """
    contents = _codestreams(pixels) if pixels.is_encapsulated else _plain_frames(pixels)
    for content in contents:
        try:
            yield _decode(pixels, content)
        except (ValueError, EOFError) as problem:
            raise damage_error(pixels.path, str(problem)) from problem


def _decode(pixels: PixelLayout, content: bytes) -> NDArray[Any]:
    if pixels.syntax == RLE:
        content, pixels = (
            unpack_frame(pixels, content),
            replace(pixels, syntax="", is_encapsulated=False, is_planar=True),
        )
    if pixels.is_encapsulated:
        check_codestream(pixels, content)
        return _unused_bits_cleared(pixels, _decode_by_gdcm(pixels, content))
    if pixels.is_coded_colour:
        return _decode_by_gdcm(pixels, content)
    return _unused_bits_cleared(pixels, _arrange(pixels, content))


def _plain_frames(pixels: PixelLayout) -> Iterator[bytes]:
    """Yield the bytes of uncompressed frames, little endian; frames of single bits may start within a byte."""
    with _open(pixels) as stream:
        for number in range(pixels.n_frames):
            first, last = number * pixels.frame_bits, (number + 1) * pixels.frame_bits
            stream.seek(pixels.start + first // 8)
            content = stream.read(-(-last // 8) - first // 8)
            if len(content) != -(-last // 8) - first // 8:
                raise ValueError("it ends within its pixel data")
            if pixels.bits_allocated == 1:
                bits = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
                content = bits[first % 8 :][: pixels.frame_bits].tobytes()
            elif pixels.is_big_endian and (pixels.bits_allocated > 8 or pixels.is_words):
                word = max(pixels.bits_allocated // 8, 2)  # numbers of 8 bits may be stored as words of 16
                content = (
                    np.frombuffer(content + bytes(-len(content) % word), f">u{word}").astype(f"<u{word}").tobytes()
                )
            yield content


def _open(pixels: PixelLayout) -> BinaryIO:
    if pixels.syntax != DEFLATED:
        return pixels.path.open("rb")
    return BytesIO(read_dicom(pixels.path, force=True).get_item(_PIXEL_DATA).value)


def _arrange(pixels: PixelLayout, content: bytes) -> NDArray[Any]:
    shape = (pixels.rows, pixels.columns)
    kind = f"{'<i' if pixels.is_signed else '<u'}{max(pixels.bits_allocated // 8, 1)}"
    numbers = np.frombuffer(content, kind, prod(shape) * pixels.samples)
    if pixels.samples == 1:
        return numbers.reshape(shape)
    return np.moveaxis(numbers.reshape(3, *shape), 0, -1) if pixels.is_planar else numbers.reshape(*shape, 3)


def _unused_bits_cleared(pixels: PixelLayout, stored: NDArray[Any]) -> NDArray[Any]:
    """Return numbers of ``bits_stored``: the bits above may hold anything."""
    unused = stored.dtype.itemsize * 8 - pixels.bits_stored
    if unused <= 0 or stored.dtype.itemsize * 8 != pixels.bits_allocated:
        return stored
    cleared: NDArray[Any] = (stored << unused) >> unused
    return cleared


def _codestreams(pixels: PixelLayout) -> Iterator[bytes]:
    """Yield the compressed frames; each consists of one fragment or several."""
    check_syntax(pixels.path, pixels.syntax)
    with pixels.path.open("rb") as stream:
        stream.seek(pixels.start)
        fragments = read_fragments(stream, pixels.path.stat().st_size)[1:]  # without the table of offsets
        if pixels.n_frames in (1, len(fragments)):
            parts = (_read_at(stream, start, size) for start, size in fragments)
            yield from parts if pixels.n_frames > 1 else [b"".join(parts)]
            return
        stream.seek(pixels.start)
        yield from pydicom.encaps.generate_frames(stream, number_of_frames=pixels.n_frames)


def _read_at(stream: BinaryIO, start: int, size: int) -> bytes:
    stream.seek(start)
    return stream.read(size)


def _decode_by_gdcm(pixels: PixelLayout, content: bytes) -> NDArray[Any]:
    """Decode one frame in a child process, and compare the result with the attributes."""
    array = decode_frame(_copy_of_frame(pixels, content), pixels.rows * pixels.columns * pixels.n_channels * 4)
    expected = (1, pixels.rows, pixels.columns) + (() if pixels.n_channels == 1 else (pixels.n_channels,))
    if array.shape != expected or array.dtype.kind not in "iu" or array.dtype.itemsize * 8 > pixels.bits_allocated:
        raise ValueError(f"its pixels become an array {array.shape} of {array.dtype}, where {expected} belongs")
    frame: NDArray[Any] = array[0]
    return frame


def _copy_of_frame(pixels: PixelLayout, content: bytes) -> bytes:
    copy = pydicom.Dataset()
    copy.SOPClassUID, copy.SOPInstanceUID = _SECONDARY_CAPTURE, "1.2.3"
    copy.Rows, copy.Columns, copy.SamplesPerPixel = pixels.rows, pixels.columns, pixels.samples
    copy.BitsAllocated, copy.BitsStored, copy.HighBit = (
        pixels.bits_allocated,
        pixels.bits_stored,
        pixels.bits_stored - 1,
    )
    copy.PixelRepresentation = int(pixels.is_signed)
    copy.PhotometricInterpretation = pixels.photometric if pixels.n_channels == 3 else "MONOCHROME2"  # not inverted
    if pixels.samples == 3:
        copy.PlanarConfiguration = int(pixels.is_planar)
    if pixels.samples < pixels.n_channels:
        palette = read_dicom(pixels.path, stop_before_pixels=True, specific_tags=list(_PALETTE), force=True)
        for tag in _PALETTE:
            copy[tag] = palette[tag]
    copy.PixelData = (
        pydicom.encaps.encapsulate([content]) if pixels.is_encapsulated else content + bytes(len(content) % 2)
    )
    copy["PixelData"].VR = "OB" if pixels.is_encapsulated or pixels.bits_allocated == 8 else "OW"
    copy["PixelData"].is_undefined_length = pixels.is_encapsulated
    copy.file_meta = pydicom.dataset.FileMetaDataset()
    copy.file_meta.MediaStorageSOPClassUID, copy.file_meta.MediaStorageSOPInstanceUID = _SECONDARY_CAPTURE, "1.2.3"
    copy.file_meta.TransferSyntaxUID = pixels.syntax if pixels.is_encapsulated else _EXPLICIT_LITTLE_ENDIAN
    stream = BytesIO()
    copy.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
