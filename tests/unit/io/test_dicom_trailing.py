"""What follows the pixel data of a DICOM file: GDCM reads it, and allocates what it declares."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from decathlete.errors import ImageError
from decathlete.io.images import read_image

PADDING = 0xFFFCFFFC
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


def element(tag: int, kind: bytes, length: int, content: bytes, *, implicit: bool) -> bytes:
    head = struct.pack("<2H", tag >> 16, tag & 0xFFFF)
    middle = struct.pack("<I", length) if implicit else kind + b"\0\0" + struct.pack("<I", length)
    return head + middle + content


@pytest.fixture(params=SYNTAXES, ids=["explicit", "implicit"])
def image(request, tmp_path: Path) -> tuple[Path, bool]:
    """A CT slice, and whether its types are implicit."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = request.param
    path = tmp_path / "x.dcm"
    slice_ = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    slice_.SeriesInstanceUID, slice_.Modality = generate_uid(), "CT"
    slice_.Rows, slice_.Columns, slice_.SamplesPerPixel = 4, 5, 1
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 0
    slice_.PhotometricInterpretation, slice_.PixelSpacing, slice_.SliceThickness = "MONOCHROME2", [1, 1], 1
    slice_.ImagePositionPatient, slice_.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    slice_.PixelData = np.arange(20, dtype=np.uint16).tobytes()
    slice_.save_as(path, enforce_file_format=True)
    return path, request.param == ImplicitVRLittleEndian


def append(path: Path, content: bytes) -> None:
    path.write_bytes(path.read_bytes() + content)


def test_padding_is_read(image) -> None:
    path, implicit = image
    for more in (element(PADDING, b"OB", 4, b"abcd", implicit=implicit),):
        append(path, more)
        assert read_image(path).array_CZYX.ravel().tolist() == list(range(20))


@pytest.mark.parametrize(
    ("tag", "length", "content"),
    [
        (0x7FE00010, 40, bytes(40)),  # a second image
        (0x00280010, 2, b"\4\0"),
        (PADDING, 2**31, b"abcd"),
        (PADDING, 8, b"abcd"),
        (PADDING, 2**32 - 1, b"abcd"),
    ],
    ids=["second image", "rows again", "huge", "cut off", "undefined length"],
)
def test_anything_else_is_damage(image, tag: int, length: int, content: bytes) -> None:
    path, implicit = image
    append(path, element(tag, b"OW", length, content, implicit=implicit))
    with pytest.raises(ImageError, match="cannot be read as DICOM") as caught:
        read_image(path)
    assert caught.value.where == path


def test_bytes_that_are_no_element_are_damage(image) -> None:
    path, _ = image
    append(path, b"\1\2\3")
    with pytest.raises(ImageError, match="ends within an element"):
        read_image(path)
    assert pydicom.dcmread(path).Rows == 4  # pydicom alone does not notice
