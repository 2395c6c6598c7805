"""Compressed frames of DICOM: values, headers that contradict the attributes, and decoders that crash."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

from decathlete.errors import ImageError
from decathlete.io import frame_workers
from decathlete.io.dicom_label import read_structure_label
from decathlete.io.headers.jpeg_frame import read_jpeg_frame
from decathlete.io.images import holds_integers, read_grid, read_image, read_volume
from dicom_support import write_enhanced, write_series

VOXELS_ZYX = np.sort(np.random.default_rng(0).integers(0, 200, (5, 24, 28)), axis=2).astype(np.uint8)
JPEG = "1.2.840.10008.1.2.4."
ENCODERS: dict[str, Callable[[Any], bytes]] = {
    "50": lambda x: imagecodecs.jpeg8_encode(x, level=100),
    "70": lambda x: imagecodecs.ljpeg_encode(x, bitspersample=8 * x.itemsize),
    "80": imagecodecs.jpegls_encode,
    "90": lambda x: imagecodecs.jpeg2k_encode(x, level=0, codecformat="j2k", resolutions=1),
    "rle": lambda x: b"",
}
LOSSLESS = ["70", "80", "90", "rle"]
SIZE_AT = {"50": (b"\xff\xc0", 5, ">2H"), "70": (b"\xff\xc3", 5, ">2H"), "80": (b"\xff\xf7", 5, ">2H")}


def compress(path: Path, kind: str, frames: Any, edit: Callable[[bytearray], Any] = lambda codestream: None) -> None:
    """Replace the pixels of a file by compressed ones of another type."""
    dataset = pydicom.dcmread(path)
    bits = 8 * frames.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(frames.dtype.kind == "i")
    dataset.PixelData = frames.tobytes()
    if kind == "rle":
        dataset.compress(RLELossless, generate_instance_uid=False)
        codestreams = [bytearray(c) for c in generate_frames(dataset.PixelData, number_of_frames=len(frames))]
    else:
        dataset.file_meta.TransferSyntaxUID = JPEG + kind
        codestreams = [bytearray(ENCODERS[kind](frame)) for frame in frames]
    for codestream in codestreams[1:] or codestreams:
        edit(codestream)
    dataset.PixelData = encapsulate([bytes(c) for c in codestreams])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path)


def one_slice(folder: Path, **attributes: Any) -> Path:
    return next(write_series(folder, VOXELS_ZYX[:1].astype(np.int16), **attributes).iterdir())


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("number_type", [np.uint8, np.uint16, np.int16])
def test_lossless_frames_have_the_values_that_were_stored(tmp_path: Path, kind: str, number_type: Any) -> None:
    if number_type == np.int16 and kind in ("70", "80"):
        pytest.skip("this encoder has no signed numbers")
    scale = 1 if number_type == np.uint8 else 150
    stored = (VOXELS_ZYX.astype(np.int64) * scale - (9000 if number_type == np.int16 else 0)).astype(number_type)
    path = write_enhanced(tmp_path / "x.dcm", VOXELS_ZYX.astype(np.int16))
    order = [(place * 3) % 5 for place in range(5)]
    compress(path, kind, stored[order])
    np.testing.assert_array_equal(read_image(path).array_CZYX[0], stored.astype(np.float32))
    single = one_slice(tmp_path / "one", RescaleSlope=2, RescaleIntercept=-1024)
    compress(single, kind, stored[:1])
    np.testing.assert_array_equal(read_volume(single).array_CZYX[0], stored[:1].astype(np.int64) * 2 - 1024)
    assert holds_integers(single)


@pytest.mark.parametrize("shape", [(3, 3), (4, 5), (17, 40)])
def test_runs_of_any_length_are_unpacked(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Slices of a few voxels, and one value that crosses rows."""
    for k, plane_YX in enumerate((np.full(shape, 259, np.uint16), np.arange(np.prod(shape), dtype=np.uint16) * 77)):
        path = one_slice(tmp_path / str(k))
        dataset = pydicom.dcmread(path)
        dataset.Rows, dataset.Columns = shape
        dataset.save_as(path)
        compress(path, "rle", plane_YX.reshape(1, *shape))
        np.testing.assert_array_equal(read_image(path).array_CZYX[0, 0], plane_YX.reshape(shape))


@pytest.mark.parametrize("kind", ["50", "70", "80", "90"])
@pytest.mark.parametrize("size", [(12, 56), (56, 12), (24, 56), (23, 28), (24000, 28000)])
def test_a_codestream_of_another_size_is_damage(tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    """A decoder believes the codestream; the same number of voxels in another shape would be scrambled."""

    def resize(codestream: bytearray) -> None:
        if kind == "90":
            for at in (8, 24):  # of the image, and of its tile
                struct.pack_into(">2I", codestream, at, *size[::-1])
        else:
            mark, offset, form = SIZE_AT[kind]
            struct.pack_into(form, codestream, codestream.find(mark) + offset, *size)

    single = one_slice(tmp_path / "one")
    compress(single, kind, VOXELS_ZYX[:1], resize)
    several = write_enhanced(tmp_path / "x.dcm", VOXELS_ZYX.astype(np.int16))
    compress(several, kind, VOXELS_ZYX, resize)
    for path in (single, several):
        with pytest.raises(ImageError, match=rf"codestream has {size[1]} x {size[0]} x 1 columns") as caught:
            read_image(path)
        assert (caught.value.where, caught.value.code) == (path, "E-IMAGE-DAMAGED")


@pytest.mark.parametrize(
    ("kind", "mark", "offset", "value", "problem"),
    [
        ("70", b"\xff\xc3", 4, 17, "codestream has 17 bits, and its header allocates 8"),
        ("70", b"\xff\xc3", 4, 16, "codestream has 16 bits, and its header allocates 8"),
        ("50", b"\xff\xc0", 4, 12, "codestream has 12 bits"),
        ("50", b"\xff\xc0", 1, 0xC3, "another kind"),
        ("80", b"\xff\xf7", 9, 3, "wrong length"),
        ("90", b"\xff\x4f", 4 + 38, 15, "codestream has 16 bits"),
        ("90", b"\xff\x4f", 4 + 39, 2, "components that differ"),
        ("rle", b"\1\0\0\0\x40", 0, 0, "RLE frame has 0 segments, where 1 belong"),
        ("rle", b"\1\0\0\0\x40", 4, 0x41, "segments that overlap"),
    ],
)
def test_a_codestream_that_contradicts_the_attributes_is_damage(
    tmp_path: Path, kind: str, mark: bytes, offset: int, value: int, problem: str
) -> None:
    def change(codestream: bytearray) -> None:
        codestream[codestream.find(mark) + offset] = value

    path = one_slice(tmp_path)
    compress(path, kind, VOXELS_ZYX[:1], change)
    with pytest.raises(ImageError, match=problem):
        read_image(path)


def test_a_crash_of_the_decoder_is_the_failure_of_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = one_slice(tmp_path / "good"), one_slice(tmp_path / "bad")
    for path in (good, bad):
        compress(path, "90", VOXELS_ZYX[:1])
    encode = frame_workers._Worker.decode

    def crash(worker: Any, file: bytes, n_voxel_bytes: int) -> Any:
        os.kill(worker._process.pid, signal.SIGSEGV)
        worker._process.wait()
        return encode(worker, file, n_voxel_bytes)

    with monkeypatch.context() as patched:
        patched.setattr(frame_workers._Worker, "decode", crash)
        with pytest.raises(ImageError, match="decoder of its pixels was ended by SIGSEGV") as caught:
            read_image(bad)
    assert caught.value.where == bad
    np.testing.assert_array_equal(read_image(good).array_CZYX[0], VOXELS_ZYX[:1])


def test_a_decoder_that_died_while_idle_is_replaced(tmp_path: Path) -> None:
    path = one_slice(tmp_path)
    compress(path, "90", VOXELS_ZYX[:1])
    read_image(path)
    for worker in frame_workers._idle[os.getpid()]:
        os.kill(worker._process.pid, signal.SIGKILL)
        worker._process.wait()
    np.testing.assert_array_equal(read_image(path).array_CZYX[0], VOXELS_ZYX[:1])


def test_syntaxes_that_are_not_supported_are_named(tmp_path: Path) -> None:
    path = one_slice(tmp_path)
    compress(path, "90", VOXELS_ZYX[:1])
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = JPEG + "102"  # MPEG-4
    dataset.save_as(path)
    with pytest.raises(ImageError, match=r"(?s)not supported \(transfer syntax .*4\.102\).*without compression"):
        read_image(path)


def test_a_segmentation_with_frames_of_another_size_is_damage(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "x.dcm", VOXELS_ZYX.astype(np.int16))
    _, geometry = read_grid(path)

    def enlarge(codestream: bytearray) -> None:
        struct.pack_into(">2H", codestream, codestream.find(b"\xff\xc0") + 5, 24000, 28000)

    background_ZYX = np.zeros_like(VOXELS_ZYX)
    compress(path, "50", background_ZYX, enlarge)
    dataset = pydicom.dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    dataset.Modality, dataset.SegmentationType = "SEG", "LABELMAP"
    segment = pydicom.Dataset()
    segment.SegmentNumber, segment.SegmentLabel = 1, "Liver"
    dataset.SegmentSequence = Sequence([segment])
    dataset.save_as(path)
    with pytest.raises(ImageError, match="codestream has 28000 x 24000 x 1 columns"):
        read_structure_label(path, geometry, [("Liver", 1)])


def test_a_codestream_with_very_many_scans_is_rejected() -> None:
    codestream = imagecodecs.jpeg8_encode(VOXELS_ZYX[0])
    assert read_jpeg_frame(codestream).width == 28
    with pytest.raises(ValueError, match="more than 100 scans"):
        read_jpeg_frame(codestream + b"\xff\xda" * 200)
