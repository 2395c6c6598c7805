"""Round trips of every format, every axis order, oblique and sheared grids, header codes and units; and damage."""

from __future__ import annotations

import gzip
import struct
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from decathlete.core.geometry import Geometry, HeaderCodes
from decathlete.errors import GridMismatchError, ImageError, OutputError
from decathlete.io.images import (
    read_channels,
    read_grid,
    read_image,
    read_label,
    write_image,
    write_label,
)
from decathlete.io.volumes import Image, describe_misplaced_channels

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
AXIS_ORDERS = [(p, f) for p in permutations(range(3)) for f in product((1, -1), repeat=3)]


def grid(
    shape=(3, 4, 5),
    spacing=(2.5, 0.75, 1.25),
    permutation=(2, 1, 0),
    flips=(1, 1, 1),
    angle=0.0,
    shear=0.0,
    header: HeaderCodes | None = None,
) -> Geometry:
    """A grid whose array axis ``i`` runs along world axis ``permutation[i]``."""
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(permutation, flips, strict=True)):
        matrix[world, axis] = sign * spacing[axis]
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    slant = np.eye(3)
    slant[0, 2] = shear
    matrix[:3, :3] = turn @ slant @ matrix[:3, :3]
    matrix[:3, 3] = (-11.5, 7.25, 103.0)
    return Geometry.from_matrix(shape, matrix, header=header)


def label_on(geometry: Geometry) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, geometry.shape_ZYX)


def assert_same_grid(found: Geometry, wanted: Geometry) -> None:
    assert found.shape_ZYX == wanted.shape_ZYX
    np.testing.assert_allclose(found.matrix, wanted.matrix, atol=2e-4)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("permutation", "flips"), AXIS_ORDERS)
def test_every_axis_order_survives(tmp_path: Path, suffix, permutation, flips) -> None:
    geometry = grid(permutation=permutation, flips=flips, angle=0.3)
    label_ZYX = label_on(geometry)
    write_label(tmp_path / f"x{suffix}", label_ZYX, geometry)
    back = read_label(tmp_path / f"x{suffix}")
    assert_same_grid(back.geometry, geometry)
    np.testing.assert_array_equal(back.array_ZYX, label_ZYX)
    assert back.array_ZYX.dtype == np.uint8


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1)])
def test_shear_and_single_slices_survive(tmp_path: Path, suffix, shape) -> None:
    geometry = grid(shape, angle=0.4, shear=0.2)
    image_CZYX = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    write_image(tmp_path / f"x{suffix}", image_CZYX, geometry)
    back = read_image(tmp_path / f"x{suffix}")
    assert_same_grid(back.geometry, geometry)
    np.testing.assert_array_equal(back.array_CZYX, image_CZYX)
    assert read_grid(tmp_path / f"x{suffix}") == (1, back.geometry)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_channels_survive(tmp_path: Path, suffix) -> None:
    geometry = grid()
    image_CZYX = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32)
    write_image(tmp_path / f"x{suffix}", image_CZYX, geometry)
    back = read_image(tmp_path / f"x{suffix}")
    np.testing.assert_array_equal(back.array_CZYX, image_CZYX)
    assert read_grid(tmp_path / f"x{suffix}")[0] == 3


def test_nifti_is_where_nibabel_and_simpleitk_see_it(tmp_path: Path) -> None:
    geometry = grid(angle=0.3)
    write_image(tmp_path / "x.nii.gz", np.arange(60.0).reshape(1, 3, 4, 5), geometry)
    stored = nibabel.load(tmp_path / "x.nii.gz")
    assert stored.shape == (5, 4, 3)
    assert stored.get_fdata()[4, 2, 1] == np.arange(60).reshape(3, 4, 5)[1, 2, 4]
    np.testing.assert_allclose(stored.affine @ (4, 2, 1, 1), geometry.matrix @ (1, 2, 4, 1), atol=1e-4)
    right, anterior, superior = geometry.matrix[:3] @ (1, 2, 4, 1)
    seen = sitk.ReadImage(str(tmp_path / "x.nii.gz")).TransformIndexToPhysicalPoint((4, 2, 1))
    np.testing.assert_allclose(seen, (-right, -anterior, superior), atol=1e-4)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_itk_formats_agree_with_nifti(tmp_path: Path, suffix) -> None:
    geometry = grid(angle=0.3, permutation=(0, 2, 1), flips=(1, -1, 1))
    image_CZYX = np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5)
    write_image(tmp_path / "x.nii.gz", image_CZYX, geometry)
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "x.nii.gz")), str(tmp_path / f"x{suffix}"))
    back = read_image(tmp_path / f"x{suffix}")
    assert_same_grid(back.geometry, geometry)
    np.testing.assert_array_equal(back.array_CZYX, image_CZYX)


@pytest.mark.parametrize(("qform", "sform"), [(0, 0), (1, 0), (0, 2), (1, 1), (2, 1), (4, 3)])
@pytest.mark.parametrize("units", [("mm", "sec"), ("unknown", "unknown"), ("micron", "msec")])
def test_header_codes_and_units_come_back(tmp_path: Path, qform, sform, units) -> None:
    affine = np.diag([-0.5, 0.5, 2.0, 1.0])
    original = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(5, 4, 3), affine)
    original.header.set_xyzt_units(*units)
    original.set_qform(affine, qform)
    original.set_sform(affine, sform)
    nibabel.save(original, tmp_path / "image.nii.gz")
    image = read_image(tmp_path / "image.nii.gz")
    write_label(tmp_path / "label.nii.gz", image.array_CZYX[0] > 30, image.geometry)
    before, after = nibabel.load(tmp_path / "image.nii.gz"), nibabel.load(tmp_path / "label.nii.gz")
    np.testing.assert_allclose(after.affine, before.affine, rtol=1e-6, atol=1e-6)
    for field in ("qform_code", "sform_code", "xyzt_units"):
        assert after.header[field] == before.header[field], field
    np.testing.assert_allclose(after.header.get_zooms(), before.header.get_zooms())
    scale = 1e-3 if units[0] == "micron" else 1
    np.testing.assert_allclose(image.geometry.spacing_ZYX, np.array([2, 0.5, 0.5]) * scale, rtol=1e-6)


@pytest.mark.parametrize(
    ("highest", "dtype"), [(1, np.uint8), (255, np.uint8), (256, np.int16), (40000, np.uint16), (70000, np.int32)]
)
def test_labels_are_small_integers_with_slope_one(tmp_path: Path, highest, dtype) -> None:
    label_ZYX = np.zeros((3, 4, 5), np.int64)
    label_ZYX[1, 1, 1] = highest
    write_label(tmp_path / "x.nii.gz", label_ZYX, grid())
    raw = gzip.decompress((tmp_path / "x.nii.gz").read_bytes())
    slope, intercept = struct.unpack("<2f", raw[112:120])
    assert (slope, intercept) == (1, 0)
    assert nibabel.load(tmp_path / "x.nii.gz").get_data_dtype() == dtype
    np.testing.assert_array_equal(read_label(tmp_path / "x.nii.gz").array_ZYX, label_ZYX)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, -10)
    image.dataobj[0, 0, 0] = 7
    nibabel.save(nibabel.Nifti1Image(image.get_fdata() * 0.5 - 10, np.eye(4), image.header), tmp_path / "x.nii")
    expected = nibabel.load(tmp_path / "x.nii").get_fdata(dtype=np.float32)
    found = read_image(tmp_path / "x.nii").array_CZYX[0]
    np.testing.assert_allclose(found, expected.transpose(2, 1, 0), atol=1e-5)
    assert found[0, 0, 0] == pytest.approx(-6.5, abs=1e-3)


def test_two_dimensions_are_one_slice(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 4), np.uint8), np.eye(4)), tmp_path / "x.nii.gz")
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 5), np.uint8)), str(tmp_path / "x.nrrd"))
    for name in ("x.nii.gz", "x.nrrd"):
        assert read_image(tmp_path / name).array_CZYX.shape == (1, 1, 4, 5)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_slice_of_two_axes_has_two_again(tmp_path: Path, suffix) -> None:
    path, again = tmp_path / f"x{suffix}", tmp_path / f"again{suffix}"
    if suffix.startswith(".nii"):
        nibabel.save(nibabel.Nifti1Image(np.ones((5, 4), np.uint8), np.diag([-0.5, 0.7, 2, 1])), path)
    else:
        picture = sitk.GetImageFromArray(np.ones((4, 5), np.uint8))
        picture.SetSpacing((0.5, 0.7))
        sitk.WriteImage(picture, str(path))
    label = read_label(path)
    write_label(again, label.array_ZYX, label.geometry)
    assert sitk.ReadImage(str(again)).GetSize() == sitk.ReadImage(str(path)).GetSize() == (5, 4)
    assert read_label(again).geometry == label.geometry
    assert label.geometry.spacing_ZYX[1:] == pytest.approx((0.7, 0.5))
    write_image(again, np.ones((2, 1, 4, 5)), label.geometry)
    assert read_image(again).array_CZYX.shape == (2, 1, 4, 5)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_slice_that_two_axes_cannot_place_keeps_three(tmp_path: Path, suffix) -> None:
    nibabel.save(
        nibabel.Nifti1Image(np.ones((5, 4), np.uint8), grid((1, 4, 5), angle=0.4).matrix[:, [2, 1, 0, 3]]),
        tmp_path / "x.nii",
    )
    label = read_label(tmp_path / "x.nii")
    assert label.geometry.header.axes == 2
    write_label(tmp_path / f"x{suffix}", label.array_ZYX, label.geometry)
    assert_same_grid(read_label(tmp_path / f"x{suffix}").geometry, label.geometry)


def test_integers_stored_as_floats_are_labels(tmp_path: Path) -> None:
    write_image(tmp_path / "x.nii.gz", np.full((1, 3, 4, 5), 2.0), grid())
    label = read_label(tmp_path / "x.nii.gz")
    assert label.array_ZYX.dtype == np.uint8
    assert label.array_ZYX.max() == 2


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_other_numbers_are_not_labels(tmp_path: Path, value) -> None:
    image_CZYX = np.zeros((1, 3, 4, 5), np.float32)
    image_CZYX[0, 0, 0, 0] = value
    write_image(tmp_path / "x.nii.gz", image_CZYX, grid())
    with pytest.raises(ImageError, match="must be integers; 1 voxels"):
        read_label(tmp_path / "x.nii.gz")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_truncated_files_are_named(tmp_path: Path, suffix, share) -> None:
    path = tmp_path / f"x{suffix}"
    write_image(path, np.random.default_rng(0).normal(size=(1, 20, 20, 20)), grid((20, 20, 20)))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ImageError, match="truncated, damaged") as caught:
        read_image(path)
    assert caught.value.where == path
    assert caught.value.remedy


def test_a_flipped_bit_in_a_gzipped_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    write_image(path, np.random.default_rng(0).normal(size=(1, 20, 20, 20)), grid((20, 20, 20)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(ImageError, match="truncated, damaged"):
        read_image(path)


@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii", "x.nrrd", "x.mha", "x.mhd", "x.dcm"])
def test_text_is_no_image(tmp_path: Path, name) -> None:
    (tmp_path / name).write_text("not an image at all\n" * 50)
    for read in (read_image, read_grid):
        with pytest.raises(ImageError):
            read(tmp_path / name)


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "x.nii.gz")
    (tmp_path / "x.docx").write_text("")
    with pytest.raises(ImageError, match="known kind"):
        read_image(tmp_path / "x.docx")
    with pytest.raises(ImageError, match="without DICOM"):
        read_image(tmp_path)


def test_a_singular_affine_is_named(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.ones((5, 4, 3), np.uint8), np.eye(4))
    image.header["srow_x"] = 0
    image.header["sform_code"] = 1
    image.to_filename(tmp_path / "x.nii")
    raw = bytearray((tmp_path / "x.nii").read_bytes())
    raw[280:296] = bytes(16)
    (tmp_path / "x.nii").write_bytes(raw)
    for read in (read_image, read_grid):
        with pytest.raises(ImageError, match="singular"):
            read(tmp_path / "x.nii")


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    one = np.ones((1, 3, 4, 5), np.float32)
    write_image(tmp_path / "a.nii.gz", one, grid())
    write_image(tmp_path / "b.nii.gz", one, grid(spacing=(2.6, 0.75, 1.25)))
    with pytest.raises(GridMismatchError, match="spacing"):
        read_channels([tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"])
    both = read_channels([tmp_path / "a.nii.gz", tmp_path / "a.nii.gz"])
    assert both.array_CZYX.shape == (2, 3, 4, 5)


def test_nothing_is_left_where_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_label(tmp_path / "x.gif", np.zeros((3, 4, 5), int), grid())
    blocked = tmp_path / "file"
    blocked.write_text("")
    for suffix in SUFFIXES:
        with pytest.raises(OutputError):
            write_label(blocked / f"x{suffix}", np.zeros((3, 4, 5), int), grid())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_label(tmp_path / name / "x.nii.gz", label_on(grid()), grid())
    assert (tmp_path / "a" / "x.nii.gz").read_bytes() == (tmp_path / "b" / "x.nii.gz").read_bytes()


@pytest.mark.parametrize(("suffix", "renamed"), [(".nii.gz", "x.nii"), (".NII.GZ", "x.NII"), (".mgz", "x.mgh")])
def test_a_file_that_is_not_compressed_although_its_name_says_so(tmp_path: Path, suffix: str, renamed: str) -> None:
    plain = ".mgh" if suffix == ".mgz" else ".nii"
    image_class = nibabel.MGHImage if suffix == ".mgz" else nibabel.Nifti1Image
    nibabel.save(image_class(np.ones((2, 3, 4), np.float32), np.eye(4)), tmp_path / f"plain{plain}")
    (tmp_path / f"plain{plain}").rename(tmp_path / f"x{suffix}")
    with pytest.raises(ImageError, match="is not compressed by gzip") as caught:
        read_image(tmp_path / f"x{suffix}")
    assert f"rename it to {renamed}" in str(caught.value)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha", ".mgz", ".png", ".tif", ".dcm"])
def test_an_empty_file_is_called_empty(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"x{suffix}").touch()
    for read in (read_image, read_label, read_grid):
        with pytest.raises(ImageError, match="is empty"):
            read(tmp_path / f"x{suffix}")


def test_channels_on_another_axis_are_pointed_out() -> None:
    def said(*shape_CZYX: int, expected: int = 2) -> str:
        image = Image(array_CZYX=np.zeros(shape_CZYX, np.float32), geometry=Geometry.plain(shape_CZYX[1:]))
        return describe_misplaced_channels(image, expected)

    assert "make them the last axis" in said(6, 5, 4, 2), "stored as (channel, x, y, z)"
    assert "store it as (x, y, 1, 2)" in said(1, 2, 5, 4), "stored as (x, y, channel)"
    assert not said(2, 5, 4, 2)
    assert not said(1, 5, 4, 2)
    assert not said(3, 5, 4, 1, expected=1)
