"""Uncompressed numbers of DICOM: bits, byte order, colours, rescaling in every kind of object, and hostile headers."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from decathlete.errors import ImageError
from decathlete.io.images import holds_integers, read_image, read_volume
from dicom_support import write_enhanced, write_series

VOXELS_ZYX = np.random.default_rng(0).integers(0, 200, (5, 7, 9)).astype(np.int16)
ORDER = [(place * 3) % 5 for place in range(5)]
CLASSES = {"XA": "12.1.1", "ultrasound volume": "6.2", "secondary capture": "7.3", "MR": "4.1", "dose": "481.2"}


def edit(path: Path, **attributes: Any) -> Path:
    dataset = pydicom.dcmread(path)
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
    return path


def one_frame(path: Path, **attributes: Any) -> Path:
    """An enhanced file with a single frame."""
    groups = pydicom.dcmread(write_enhanced(path, VOXELS_ZYX)).PerFrameFunctionalGroupsSequence[:1]
    frame = {"NumberOfFrames": 1, "PerFrameFunctionalGroupsSequence": groups, "PixelData": VOXELS_ZYX[:1].tobytes()}
    return edit(path, **frame, **attributes)


@pytest.mark.parametrize("place", ["file", "shared", "frame"])
@pytest.mark.parametrize("sop_class", CLASSES)
def test_a_single_frame_is_rescaled_in_every_class(tmp_path: Path, sop_class: str, place: str) -> None:
    path = one_frame(tmp_path / "x.dcm")
    dataset, values = pydicom.dcmread(path), Dataset()
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 7, -3, "HU"
    if place == "file":
        dataset.RescaleSlope, dataset.RescaleIntercept = 7, -3
    else:
        groups = (
            dataset.SharedFunctionalGroupsSequence if place == "shared" else dataset.PerFrameFunctionalGroupsSequence
        )
        groups[0].PixelValueTransformationSequence = [values]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = f"1.2.840.10008.5.1.4.1.1.{CLASSES[sop_class]}"
    dataset.save_as(path)
    np.testing.assert_array_equal(read_image(path).array_CZYX[0], VOXELS_ZYX[:1] * 7.0 - 3)
    assert holds_integers(path)
    assert read_volume(path).array_CZYX.dtype.kind in "iu"


def test_a_dose_of_one_frame(tmp_path: Path) -> None:
    path = one_frame(tmp_path / "x.dcm", DoseGridScaling="0.01", GridFrameOffsetVector=[0])
    np.testing.assert_allclose(read_image(path).array_CZYX[0], VOXELS_ZYX[:1] * 0.01, rtol=1e-6)
    assert not holds_integers(path)


def test_bits_above_those_that_are_stored_do_not_count(tmp_path: Path) -> None:
    for is_signed in (0, 1):
        values = VOXELS_ZYX - 150 * is_signed
        stored = (values.view(np.uint16) & 0x0FFF) | 0x5000
        path = write_enhanced(tmp_path / f"{is_signed}.dcm", VOXELS_ZYX)
        content = stored[ORDER].tobytes()
        edit(path, BitsStored=12, HighBit=11, PixelRepresentation=is_signed, PixelData=content)
        np.testing.assert_array_equal(read_image(path).array_CZYX[0], values)


def test_more_bits_than_are_allocated_are_an_error(tmp_path: Path) -> None:
    path = edit(write_enhanced(tmp_path / "x.dcm", VOXELS_ZYX), BitsStored=20, HighBit=19)
    with pytest.raises(ImageError, match="BitsStored cannot be used: it is 20, and 16 bits are allocated"):
        read_image(path)


def test_frames_of_single_bits_follow_each_other_within_a_byte(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "x.dcm", VOXELS_ZYX)
    content = np.packbits((VOXELS_ZYX[ORDER] % 2).ravel(), bitorder="little").tobytes()
    edit(path, BitsAllocated=1, BitsStored=1, HighBit=0, PixelRepresentation=0, PixelData=content)
    np.testing.assert_array_equal(read_image(path).array_CZYX[0], VOXELS_ZYX % 2)


@pytest.mark.parametrize("is_planar", [False, True])
def test_colours_are_channels(tmp_path: Path, is_planar: bool) -> None:
    colours_ZYXC = np.stack([VOXELS_ZYX, VOXELS_ZYX // 2, 199 - VOXELS_ZYX], axis=-1).astype(np.uint8)
    path = write_enhanced(tmp_path / "x.dcm", VOXELS_ZYX)
    stored = np.moveaxis(colours_ZYXC, -1, 1) if is_planar else colours_ZYXC
    edit(
        path,
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=int(is_planar),
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        PixelData=np.ascontiguousarray(stored[ORDER]).tobytes() + b"\0",
    )
    np.testing.assert_array_equal(read_volume(path).array_CZYX, np.moveaxis(colours_ZYXC, -1, 0))


@pytest.mark.parametrize(("bits", "kind"), [(8, "OB"), (8, "OW"), (16, "OW"), (32, "OW")])
def test_big_endian_numbers(tmp_path: Path, bits: int, kind: str) -> None:
    for path in write_series(tmp_path, VOXELS_ZYX[:, :6, :8]).iterdir():
        dataset, copy = pydicom.dcmread(path), Dataset()
        stored = np.frombuffer(dataset.PixelData, "<i2")
        copy.update(dataset)
        copy.BitsAllocated = copy.BitsStored = bits
        copy.HighBit, copy.PixelRepresentation = bits - 1, 0
        content = stored.astype(f">u{bits // 8}").tobytes()
        copy.PixelData = np.frombuffer(content, "<u2").astype(">u2").tobytes() if (bits, kind) == (8, "OW") else content
        copy["PixelData"].VR = kind
        copy.file_meta = dataset.file_meta
        copy.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        for element in copy:  # as big endian
            assert element.VR
        copy.save_as(path, enforce_file_format=True, little_endian=False, implicit_vr=False)
    np.testing.assert_array_equal(read_image(tmp_path).array_CZYX[0], VOXELS_ZYX[:, :6, :8])


def test_deeply_nested_sequences_are_skipped(tmp_path: Path) -> None:
    """GDCM recurses into each of them, until the process ends."""
    levels, nested = 10_000, bytearray()
    for inner in range(20 * (levels - 1), -1, -20):
        nested += struct.pack("<2H2s2xI2HI", 0x0008, 0x1140, b"SQ", 8 + inner, 0xFFFE, 0xE000, inner)
    path = next(write_series(tmp_path, VOXELS_ZYX[:1]).iterdir())
    content = path.read_bytes()
    at = content.index(struct.pack("<2H", 0x0010, 0x0010))  # the name of the patient follows
    path.write_bytes(content[:at] + nested + content[at:])
    np.testing.assert_array_equal(read_image(path).array_CZYX[0], VOXELS_ZYX[:1])


def test_a_mosaic_is_not_one_slice(tmp_path: Path) -> None:
    path = next(
        write_series(tmp_path, VOXELS_ZYX[:1], ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]).iterdir()
    )
    with pytest.raises(ImageError, match=r"(?s)side by side.*dcm2niix"):
        read_image(path)


def test_samples_that_contradict_the_colours_are_an_error(tmp_path: Path) -> None:
    path = edit(write_enhanced(tmp_path / "x.dcm", VOXELS_ZYX), PhotometricInterpretation="RGB")
    with pytest.raises(ImageError, match="SamplesPerPixel cannot be used: it is 1, with RGB"):
        read_image(path)
