"""The numbers of a DICOM file's frames as they are stored: without rescaling, in the order of the file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.lazy_import import lazy_import
from decathlete.io.dicom_header import DicomFile
from decathlete.io.dicom_reading import read_dicom

pydicom = lazy_import("pydicom")
sitk = lazy_import("SimpleITK")

_PIXEL_DATA = 0x7FE00010
_DECODING = (0x00280002, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103)
"""Tags of the attributes that decoding depends on: size, number of frames, and type."""
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7.3"


def read_stored_numbers(file: DicomFile) -> NDArray[Any]:
    """Read all frames (frame, y, x) of a file with one number per voxel, of 8, 16 or 32 bits."""
    dataset = read_dicom(file.path, force=True)
    if file.is_encapsulated:
        return _decompress(dataset)
    width, height = file.size_XY
    _, is_little_endian = dataset.original_encoding
    kind = np.dtype(f"{'i' if file.is_signed else 'u'}{file.bits_allocated // 8}")
    stored = np.frombuffer(
        dataset.get_item(_PIXEL_DATA).value,
        kind.newbyteorder("<" if is_little_endian else ">"),
        len(file.frames) * height * width,
    )
    unused = file.bits_allocated - file.bits_stored  # may hold anything
    return ((stored.astype(kind) << unused) >> unused).reshape(-1, height, width)


def _decompress(dataset: Any) -> NDArray[Any]:
    """Decode compressed frames by SimpleITK, from a copy without the attributes by which it would rescale them.

    It looks for slopes in other places for each kind of object, and applies those of the first frame to all.
    """
    copy = pydicom.Dataset()
    for tag in (*_DECODING, _PIXEL_DATA):
        if tag in dataset:
            copy[tag] = dataset[tag]
    copy.PhotometricInterpretation = "MONOCHROME2"
    copy.SOPClassUID, copy.SOPInstanceUID = _SECONDARY_CAPTURE, "1.2.3"
    copy.file_meta = pydicom.dataset.FileMetaDataset()
    copy.file_meta.MediaStorageSOPClassUID, copy.file_meta.MediaStorageSOPInstanceUID = _SECONDARY_CAPTURE, "1.2.3"
    copy.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.dcm"
        copy.save_as(path, enforce_file_format=True)
        array: NDArray[Any] = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    return array
