"""A spacing that a file does not contain: refused in every format that has a field for it, or taken from the user."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from test_dicom import write_slice
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.core.geometry import Geometry
from decathlete.errors import ImageError
from decathlete.io.formats import IMAGE_FORMATS, ImageFormat
from decathlete.io.images import read_channels, read_grid, read_image, read_label, read_volume, write_image, write_label
from decathlete.io.volumes import Volume

GIVEN = (3.0, 0.8, 0.6)
VOXELS_IJK = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)


def write_nifti(path: Path, pixdim: tuple[float, float, float], *, qform_code: int = 0) -> Path:
    """A file without a sform, whose spacing is in ``pixdim`` alone."""
    image = nibabel.Nifti1Image(VOXELS_IJK, None)
    image.set_qform(np.eye(4), qform_code)
    nibabel.save(image, path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<3f", content, 80, *pixdim)
    path.write_bytes(content)
    return path


def write_text_header(path: Path, *lines: str) -> Path:
    path.write_bytes("\n".join(lines).encode() + VOXELS_IJK.tobytes(order="F"))
    return path


def nrrd(path: Path, spacing: str) -> Path:
    lines = ["NRRD0004", "type: uint8", "dimension: 3", "sizes: 5 4 3", "encoding: raw"]
    return write_text_header(path, *lines, *([spacing] if spacing else []), "", "")


def mha(path: Path, spacing: str) -> Path:
    lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "DimSize = 5 4 3", "ElementType = MET_UCHAR"]
    return write_text_header(path, *lines, *([spacing] if spacing else []), "ElementDataFile = LOCAL", "")


def dicom(path: Path, **attributes) -> Path:
    write_slice(path, 7, (0, 0, 0))
    ds = pydicom.dcmread(path)
    for name, value in attributes.items():
        setattr(ds, name, value)
    ds.save_as(path)
    return path


def mgh(path: Path, **changes: bytes) -> Path:
    """A file whose header is changed: ``grid`` is the flag of its geometry, ``spacing`` is of the first axis."""
    nibabel.MGHImage(VOXELS_IJK, np.diag([0.5, 0.7, 2, 1])).to_filename(path)
    content = bytearray(path.read_bytes())
    for name, value in changes.items():
        at = {"grid": 28, "spacing": 30}[name]
        content[at : at + len(value)] = value
    path.write_bytes(content)
    return path


MISSING: dict[str, tuple[Callable[[Path], Path], tuple[float, float, float]]] = {
    "pixdim 0": (lambda p: write_nifti(p / "x.nii", (1, 2, 0)), (3, 2, 1)),
    "pixdim -1": (lambda p: write_nifti(p / "x.nii", (-1, 2, 5)), (5, 2, 0.6)),
    "pixdim nan": (lambda p: write_nifti(p / "x.nii", (1, float("nan"), 5), qform_code=1), (5, 0.8, 1)),
    "nrrd": (lambda p: nrrd(p / "x.nrrd", ""), GIVEN),
    "nrrd nan": (lambda p: nrrd(p / "x.nrrd", "spacings: 0.5 nan 2"), (2, 0.8, 0.5)),
    "nrrd -1": (lambda p: nrrd(p / "x.nrrd", "spacings: 0.5 -1 2"), (2, 0.8, 0.5)),
    "mha": (lambda p: mha(p / "x.mha", ""), GIVEN),
    "nrrd 0": (lambda p: nrrd(p / "x.nrrd", "spacings: 0.5 0.7 0"), (3, 0.7, 0.5)),
    "mha 0": (lambda p: mha(p / "x.mha", "ElementSpacing = 0.5 0.7 0"), (3, 0.7, 0.5)),
    "mha -1": (lambda p: mha(p / "x.mha", "ElementSpacing = 0.5 0.7 -1"), (3, 0.7, 0.5)),
    "mgh without a grid": (lambda p: mgh(p / "x.mgh", grid=bytes(2)), GIVEN),
    "mgh 0": (lambda p: mgh(p / "x.mgh", spacing=bytes(4)), (2, 0.7, 0.6)),
    "dicom": (lambda p: dicom(p / "x.dcm", PixelSpacing=None), GIVEN),
    "dicom 0": (lambda p: dicom(p / "x.dcm", PixelSpacing=[0, 0.75], SliceThickness=-2), (2, 0.8, 0.75)),
}


@pytest.mark.parametrize("case", MISSING)
def test_a_missing_spacing_is_refused_or_given(tmp_path: Path, case: str) -> None:
    write, expected = MISSING[case]
    path = write(tmp_path)
    for read in (read_image, read_grid, read_label, read_volume, lambda p, **s: read_channels([p], **s)):
        with pytest.raises(ImageError, match=r"has no spacing") as caught:
            read(path)
        assert caught.value.code == "E-IMAGE-SPACING"
        assert caught.value.where == path
        assert "--spacing Z,Y,X" in str(caught.value.remedy)
        found = read(path, spacing=GIVEN)
        geometry = found[1] if isinstance(found, tuple) else found.geometry
        assert geometry.spacing_ZYX == pytest.approx(expected)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 5)])
def test_a_spacing_in_the_file_is_kept(tmp_path: Path, suffix: str, shape) -> None:
    geometry = Geometry.plain(shape, spacing_ZYX=(2.0, 1.5, 0.5))
    write_image(tmp_path / f"x{suffix}", np.zeros((2, *shape)), geometry)
    for spacing in (None, GIVEN):
        assert read_grid(tmp_path / f"x{suffix}", spacing=spacing)[1].spacing_ZYX == pytest.approx((2, 1.5, 0.5))


def test_other_places_of_a_spacing(tmp_path: Path) -> None:
    assert read_grid(mha(tmp_path / "x.mha", "ElementSize = 0.5 0.7 2"))[1].spacing_ZYX == pytest.approx((2, 0.7, 0.5))
    path = nrrd(tmp_path / "x.nrrd", "spacings: 0.5 0.7 2")
    assert read_grid(path)[1].spacing_ZYX == pytest.approx((2, 0.7, 0.5))
    colours = sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True)
    sitk.WriteImage(colours, str(tmp_path / "rgb.nrrd"))
    assert read_grid(tmp_path / "rgb.nrrd")[0] == 3


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_slice_with_two_axes_needs_no_third_spacing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix == ".nii.gz":
        image = nibabel.Nifti1Image(np.ones((5, 4), np.uint8), None)
        image.header["pixdim"][1:4] = (0.5, 0.7, 0)
        nibabel.save(image, path)
    else:
        picture = sitk.GetImageFromArray(np.ones((4, 5), np.uint8))
        picture.SetSpacing((0.5, 0.7))
        sitk.WriteImage(picture, str(path))
    assert read_grid(path)[1].spacing_ZYX == pytest.approx((1, 0.7, 0.5))


def make_dataset(root: Path) -> Path:
    """Two cases whose images and labels have no spacing along z."""
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for case in ("a", "b"):
        write_nifti(root / "imagesTr" / f"{case}_0000.nii", (0.6, 0.8, 0))
        label = write_nifti(root / "labelsTr" / f"{case}.nii", (0.6, 0.8, 0))
        label.write_bytes(label.read_bytes()[:352] + (VOXELS_IJK > 30).astype(np.uint8).tobytes(order="F"))
    manifest = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii"}
    (root / "dataset.json").write_text(json.dumps(manifest))
    return root


def call(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, " ".join(f"{done.output} {done.exception or ''}".split())


def test_commands_refuse_and_take_the_spacing(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "Dataset001_Flat")
    code, said = call("check", root)
    assert code == 2
    assert said.count("has no spacing between slices (0)") == 4
    assert call("check", root, "--spacing", "3,0.8,0.6")[0] == 0
    assert call("check", root, "--spacing", "3,0.8")[0] != 0
    assert call("convert", root, "--to", "decathlon", "-o", tmp_path / "no")[0] != 0
    converted = call("convert", root, "--to", "decathlon", "-o", tmp_path / "yes", "--spacing", "3,0.8,0.6")
    assert converted[0] == 0, converted
    for path in (tmp_path / "yes").glob("*Tr/*.nii"):
        assert not path.is_symlink()
        assert read_grid(path)[1].spacing_ZYX == pytest.approx(GIVEN)
    labels = root / "labelsTr"
    assert call("evaluate", "--preds", labels, "--lbls", labels)[0] != 0
    assert call("evaluate", "--preds", labels, "--lbls", labels, "--spacing", "3,0.8,0.6")[0] == 0


class Picture(ImageFormat):
    """Arrays of NumPy: a format without any geometry."""

    title = "NumPy array"
    suffixes = (".npy",)

    def read_volume(self, path: Path, *, as_float32: bool = False) -> Volume:
        array_CZYX = np.load(path)
        return Volume(array_CZYX=array_CZYX, geometry=Geometry.pixels(array_CZYX.shape[1:]))


@pytest.fixture
def picture(tmp_path: Path) -> Iterator[Path]:
    np.save(tmp_path / "x.npy", np.ones((1, 1, 4, 5), np.float32))
    with IMAGE_FORMATS.isolated():
        IMAGE_FORMATS.register("numpy_array")(Picture)
        yield tmp_path / "x.npy"


def test_formats_without_a_spacing_are_in_pixels(picture: Path, tmp_path: Path) -> None:
    geometry = read_image(picture).geometry
    assert (geometry.unit, geometry.spacing_ZYX) == ("pixel", (1, 1, 1))
    given = read_grid(picture, spacing=GIVEN)[1]
    assert (given.unit, given.spacing_ZYX) == ("mm", GIVEN)
    write_label(tmp_path / "label.nii.gz", np.ones((1, 4, 5), int), geometry)
    assert nibabel.load(tmp_path / "label.nii.gz").header.get_xyzt_units()[0] == "unknown"
