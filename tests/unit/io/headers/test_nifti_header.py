"""Headers of NIfTI files: rejected before anything is allocated, and voxels read as nibabel reads them."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest

from decathlete.errors import ImageError
from decathlete.io.images import read_grid, read_image, read_volume

AFFINE = np.array([[0.7, 0, 0, 1], [0, 0.8, 0, 2], [0, 0, 2.5, 3], [0, 0, 0, 1]])
VOXELS_IJK = np.random.default_rng(0).integers(-1000, 1000, (7, 6, 5)).astype(np.int16)
V1, V2 = nibabel.Nifti1Image, nibabel.Nifti2Image


def content_of(kind=V1, voxels=VOXELS_IJK, order="<", slope=(1, 0)) -> bytearray:
    header = kind.header_class(endianness=order)
    header.set_data_dtype(voxels.dtype)
    image = kind(voxels, AFFINE, header)
    image.header.set_slope_inter(*slope)
    return bytearray(image.to_bytes())


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def put(content: bytearray, at: int, form: str, *values: float) -> bytes:
    changed = bytearray(content)
    struct.pack_into(form, changed, at, *values)
    return bytes(changed)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [V1, V2])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("slope", [(1, 0), (0.37, -1024)])
def test_voxels_are_read_as_nibabel_reads_them(tmp_path: Path, suffix, kind, order, dtype, slope) -> None:
    voxels = np.abs(VOXELS_IJK).astype(dtype) if dtype[0] != "f" else VOXELS_IJK.astype(dtype) / 7
    path = write(tmp_path / f"x{suffix}", content_of(kind, voxels, order, slope))
    wanted = nibabel.load(path)
    image = read_image(path)
    np.testing.assert_array_equal(image.array_CZYX[0], np.asarray(wanted.dataobj, dtype=np.float32).T)
    stored = np.asanyarray(wanted.dataobj)
    volume = read_volume(path)
    if stored.dtype.kind in "iu":
        assert volume.array_CZYX.dtype == stored.dtype
        np.testing.assert_array_equal(volume.array_CZYX[0], stored.T)
    np.testing.assert_allclose(image.geometry.matrix[:, [2, 1, 0, 3]], wanted.affine)


REJECTED_1 = {
    "infinite offset": ((108, "<f", float("inf")), "vox_offset"),
    "offset nan": ((108, "<f", float("nan")), "vox_offset"),
    "offset 0": ((108, "<f", 0.0), "vox_offset"),
    "negative offset": ((108, "<f", -352.0), "vox_offset"),
    "offset inside the header": ((108, "<f", 100.0), "vox_offset"),
    "offset with a fraction": ((108, "<f", 352.5), "vox_offset"),
    "huge offset": ((108, "<f", 1e38), "vox_offset"),
    "offset beyond the file": ((108, "<f", 1e9), "truncated, damaged"),
    "no axes": ((40, "<h", 0), "declares 0 axes"),
    "many axes": ((40, "<h", 8), "declares 8 axes"),
    "negative number of axes": ((40, "<h", -3), "declares -3 axes"),
    "empty axis": ((44, "<h", 0), "each axis"),
    "negative axis": ((44, "<h", -6), "each axis"),
    "long axes": ((42, "<3h", 32767, 32767, 32767), "truncated, damaged"),
    "more voxels": ((46, "<h", 50), "truncated, damaged"),
    "unknown type": ((70, "<h", 77), "data type 77"),
    "one bit": ((70, "<2h", 1, 1), "contains single bits"),
    "128 bits": ((70, "<2h", 1536, 128), "contains numbers of 128 bits"),
    "infinite slope": ((112, "<f", float("inf")), "infinite slope"),
    "unknown code of the sform": ((254, "<h", 999), "sform code 999"),
    "negative code of the qform": ((252, "<h", -1), "qform code -1"),
    "other bits": ((72, "<h", 8), "data type 4 with 8 bits"),
    "colours": ((70, "<2h", 128, 24), "contains colours"),
    "colours with opacity": ((70, "<2h", 2304, 32), "contains colours"),
    "complex": ((70, "<2h", 32, 64), "contains complex numbers"),
    "a pair of files": ((344, "<4s", b"ni1\0"), "does not begin with a NIfTI header"),
    "Analyze": ((344, "<4s", b"\0\0\0\0"), "does not begin with a NIfTI header"),
    "other size of the header": ((0, "<i", 349), "does not begin with a NIfTI header"),
    "spacing of 352 mm": ((288, "<f", 352.0), "implausible spacing"),
    "spacing of 1e38 mm": ((288, "<f", 1e38), "implausible spacing"),
    "affine nan": ((288, "<f", float("nan")), "not finite"),
}
REJECTED_2 = {
    "huge offset": ((168, "<q", 2**62), "vox_offset"),
    "negative offset": ((168, "<q", -1), "vox_offset"),
    "long axis": ((24, "<q", 32768), "each axis"),
    "overflow": ((24, "<3q", 2**62, 2**62, 2**62), "each axis"),
    "infinite slope": ((176, "<d", float("-inf")), "infinite slope"),
    "unknown code": ((348, "<i", 6), "sform code 6"),
    "cifti": ((16, "<q", 2**40), "axes"),
}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("version", "name"), [*((V1, n) for n in REJECTED_1), *((V2, n) for n in REJECTED_2)])
def test_odd_headers_are_rejected(tmp_path: Path, version, name, suffix) -> None:
    change, message = (REJECTED_1 if version is V1 else REJECTED_2)[name]
    path = write(tmp_path / f"x{suffix}", put(content_of(version), *change))
    if suffix == ".nii.gz" and name in ("more voxels", "offset beyond the file"):
        message = "truncated, damaged"
    for read in (read_grid, read_image):
        if read is read_grid and suffix == ".nii.gz" and name == "more voxels":
            continue  # the header alone cannot tell
        with pytest.raises(ImageError, match=message) as caught:
            read(path)
        assert caught.value.where == path
        assert caught.value.remedy


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_fewer_voxels_than_the_file_holds_are_seen(tmp_path: Path, suffix) -> None:
    path = write(tmp_path / f"x{suffix}", put(content_of(), 46, "<h", 4))
    with pytest.raises(ImageError, match="more voxels than the header declares"):
        read_image(path)


def test_a_compressed_file_without_gz_in_its_name(tmp_path: Path) -> None:
    path = tmp_path / "x.nii"
    path.write_bytes(gzip.compress(content_of()))
    with pytest.raises(ImageError, match=r"does not end with \.gz") as caught:
        read_image(path)
    assert "x.nii.gz" in (caught.value.remedy or "")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_claim_of_gigabytes_is_not_allocated(tmp_path: Path, suffix) -> None:
    content = put(content_of(), 42, "<3h", 2000, 2000, 1000)[:360]
    path = write(tmp_path / f"x{suffix}", content)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="truncated, damaged"):
            read_image(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_memory_follows_what_a_compressed_file_contains(tmp_path: Path) -> None:
    """A claim that Deflate could hold, of a file with other content."""
    noise = np.random.default_rng(0).integers(0, 256, 2**20, dtype=np.uint8).tobytes()
    content = put(content_of(), 42, "<3h", 1000, 1000, 400)[:352] + noise
    path = write(tmp_path / "x.nii.gz", content)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="truncated, damaged"):
            read_image(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_other_content_under_the_name_of_a_compressed_image_is_named(tmp_path: Path) -> None:
    """Browsers and scripts compress twice, or store an archive of the image under its name."""
    twice = write(tmp_path / "twice.nii.gz", gzip.compress(content_of(V1)))
    with pytest.raises(ImageError, match=r"compressed twice\n.*decompress it once"):
        read_grid(twice)
    packed = tmp_path / "packed.nii.gz"
    packed.write_bytes(b"PK\x03\x04" + bytes(500))
    with pytest.raises(ImageError, match=r"is an archive \(zip\), not an image\n.*unpack it"):
        read_grid(packed)
