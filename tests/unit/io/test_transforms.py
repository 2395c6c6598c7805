"""A NIfTI file's two transforms: both are written as they were read, for every pair of codes and of readers."""

from __future__ import annotations

import json
import logging
from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from decathlete.core.geometry import AxisTransform, Geometry, as_affine
from decathlete.core.header_transforms import describe_disagreement, transform_distance_mm
from decathlete.dataset.check import check_dataset
from decathlete.dataset.manifest import read_dataset
from decathlete.io.formats.nifti import image_header
from decathlete.io.images import read_image, read_label, write_image, write_label
from decathlete.workflows.convert import convert

CODES = list(product((0, 1, 2, 4), repeat=2))


def affine(angle: float, origin: tuple[float, float, float]) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([-0.8, 0.8, 2.5])
    matrix[:3, 3] = origin
    return matrix


QFORM, SFORM = affine(0.3, (10, 20, 30)), affine(0.0, (-3, 4, 5))


def write_two(
    path: Path, array_IJK: np.ndarray, qform_code: int, sform_code: int, *, units: str = "mm", sform=SFORM
) -> Path:
    image = nibabel.Nifti1Image(array_IJK, None)
    image.header.set_xyzt_units(units)
    image.header.set_zooms((0.8, 0.8, 2.5, *(1.0 for _ in array_IJK.shape[3:])))
    image.set_qform(QFORM, qform_code)
    image.set_sform(sform, sform_code)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def assert_overlays(output: Path, image: Path) -> None:
    """Three readers see both files at one place: nibabel by each transform, and SimpleITK by its own choice."""
    written, read = nibabel.load(output), nibabel.load(image)
    for field in ("qform_code", "sform_code"):
        assert written.header[field] == read.header[field]
    np.testing.assert_allclose(written.get_qform(), read.get_qform(), atol=1e-4)
    np.testing.assert_allclose(written.get_sform(), read.get_sform(), atol=1e-4)
    np.testing.assert_allclose(written.affine, read.affine, atol=1e-4)
    seen, expected = sitk.ReadImage(str(output)), sitk.ReadImage(str(image))
    for name in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(seen, name)()[:3], getattr(expected, name)()[:3], atol=1e-4)


@pytest.mark.parametrize(("qform_code", "sform_code"), CODES)
@pytest.mark.parametrize("units", ["mm", "micron"])
def test_outputs_overlay_the_image_by_either_transform(tmp_path: Path, qform_code, sform_code, units) -> None:
    path = write_two(
        tmp_path / "x.nii.gz", np.arange(60, dtype=np.int16).reshape(5, 4, 3), qform_code, sform_code, units=units
    )
    image = read_image(path)
    write_label(tmp_path / "label.nii.gz", image.array_CZYX[0] > 30, image.geometry)
    write_image(tmp_path / "image.nii", image.array_CZYX, image.geometry)
    header = image_header(1, image.geometry)
    (tmp_path / "probabilities.nii").write_bytes(header + image.array_CZYX.tobytes())
    for name in ("label.nii.gz", "image.nii", "probabilities.nii"):
        assert_overlays(tmp_path / name, path)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(CODES),
    st.permutations((0, 1, 2)),
    st.tuples(*[st.booleans()] * 3),
    st.floats(-3, 3),
)
def test_both_transforms_follow_the_axes(codes, permutation, flips, angle) -> None:
    header = Geometry.plain((3, 4, 5)).header.revised(
        qform_code=codes[0], sform_code=codes[1], qform=as_affine(affine(angle, (1, 2, 3)))
    )
    before = Geometry.from_matrix((3, 4, 5), SFORM, header=header)
    axes = AxisTransform(permutation=tuple(permutation), flips=flips)
    after = axes.geometry(before)
    assert transform_distance_mm(after) == pytest.approx(transform_distance_mm(before), abs=1e-9)
    back = axes.inverse.geometry(after)
    np.testing.assert_allclose(back.header.qform, header.qform, atol=1e-9)


def test_only_two_transforms_that_are_set_disagree(tmp_path: Path) -> None:
    array_IJK = np.zeros((5, 4, 3), np.uint8)
    for qform_code, sform_code in CODES:
        path = write_two(tmp_path / "x.nii", array_IJK, qform_code, sform_code)
        text = describe_disagreement(read_image(path).geometry)
        assert bool(text) == (qform_code > 0 and sform_code > 0)
    same = write_two(tmp_path / "same.nii", array_IJK, 1, 1, sform=QFORM)
    assert describe_disagreement(read_image(same).geometry) is None
    assert read_image(same).geometry.header.qform is None


def make_dataset(root: Path, *, n_channels: int = 1) -> Path:
    generator = np.random.default_rng(0)
    for case in ("a", "b"):
        for channel in range(n_channels):
            image_IJK = generator.normal(size=(8, 7, 6)).astype(np.float32)
            write_two(root / "imagesTr" / f"{case}_{channel:04d}.nii.gz", image_IJK, 1, 2)
        label_IJK = (generator.random((8, 7, 6)) > 0.5).astype(np.uint8)
        write_two(root / "labelsTr" / f"{case}.nii.gz", label_IJK, 1, 2)
    names = {str(c): f"MR{c}" for c in range(n_channels)}
    manifest = {"channel_names": names, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(manifest))
    return root


def test_check_names_the_disagreement(tmp_path: Path) -> None:
    report = check_dataset(read_dataset(make_dataset(tmp_path / "Dataset001_Two")))
    assert report.ok
    found = [p for p in report.warnings if p.code == "E-IMAGE-TRANSFORMS"]
    assert {p.file for p in found} == {f"{d}/{c}.nii.gz" for c in ("a", "b") for d in ("labelsTr",)} | {
        f"imagesTr/{c}_0000.nii.gz" for c in ("a", "b")
    }
    assert all("qform (code 1) and sform (code 2)" in p.message and " mm apart" in p.message for p in found)


@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_converted_images_and_labels_stay_together(tmp_path: Path, caplog, n_channels: int, suffix: str) -> None:
    root = make_dataset(tmp_path / "Dataset001_Two", n_channels=n_channels)
    with caplog.at_level(logging.WARNING):
        convert(root, tmp_path / "new", to="decathlon", suffix=suffix)
    said = [r.getMessage() for r in caplog.records if "disagree" in r.getMessage()]
    assert len(said) == 1
    assert "the sform is used" in said[0]
    for case in ("a", "b"):
        image, label = (tmp_path / "new" / d / f"{case}{suffix}" for d in ("imagesTr", "labelsTr"))
        if suffix.startswith(".nii"):
            assert_overlays(label, root / "labelsTr" / f"{case}.nii.gz")
            for name in ("get_qform", "get_sform"):
                matrices = [getattr(nibabel.load(p), name)() for p in (image, label)]
                np.testing.assert_allclose(*matrices, atol=1e-4)
        assert read_image(image).geometry.differences(read_label(label).geometry) == []
        origins = [sitk.ReadImage(str(path)).GetOrigin()[:3] for path in (image, label)]
        np.testing.assert_allclose(*origins, atol=1e-4)
