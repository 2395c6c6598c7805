"""`predict` writes DICOM objects for DICOM series, keeps finished ones, and refuses other images."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.io.dicom_structures import list_structures, read_structure_masks
from decathlete.io.images import read_grid, read_label
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from dicom_support import OBLIQUE, uid, write_series
from factories import make_test_plan


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "m"
    plan = make_test_plan()
    ModelBundle.save(folder, TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)]))
    return folder


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    voxels = np.random.default_rng(0).normal(0, 300, (9, 20, 22)).astype(np.int16)
    folder = write_series(tmp_path_factory.mktemp("in") / "case", voxels, orientation=OBLIQUE, step=-2.0)
    write_series(folder, voxels[:2], series="scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    return folder


def call(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["predict", "--device", "cpu", "--precision", "fp32", *map(str, arguments)])
    return done.output + str(done.exception or "")


def test_dicom_objects_contain_what_nifti_contains(model: Path, series: Path, tmp_path: Path) -> None:
    call("--model", model, "--input", series, "--output", tmp_path / "nifti")
    label = read_label(tmp_path / "nifti" / "case.nii.gz")
    _, geometry = read_grid(tmp_path / "nifti" / "case.nii.gz")
    assert label.array_ZYX.any()
    for format_, suffix in (("dicom-seg", "seg"), ("rtstruct", "rtstruct")):
        out = tmp_path / format_
        assert "1 prediction in" in call("--model", model, "--input", series, "--output", out, "--format", format_)
        path = out / f"case.{suffix}.dcm"
        names = {s.number: s.name for s in list_structures(path)}
        found = np.zeros(geometry.shape_ZYX, int)
        values = {c.name: c.value for c in make_test_plan().labels.foreground}
        for mask in read_structure_masks(path, geometry, frozenset(names)):
            found[mask.indices_ZYX] = values[names[mask.number]]
        np.testing.assert_array_equal(found, label.array_ZYX)
        assert sorted(p.name for p in out.iterdir() if not p.name.startswith(".decathlete")) == [
            "case.json",
            f"case.{suffix}.dcm",
        ]


def test_finished_objects_are_kept_until_options_change(model: Path, series: Path, tmp_path: Path) -> None:
    arguments = ("--model", model, "--input", series, "--output", tmp_path, "--format", "dicom-seg")
    call(*arguments)
    written = (tmp_path / "case.seg.dcm").stat().st_mtime_ns
    call(*arguments)
    assert (tmp_path / "case.seg.dcm").stat().st_mtime_ns == written
    assert "other inputs or settings" in call(*arguments, "--segmentation-type", "labelmap")
    call(*arguments, "--segmentation-type", "labelmap", "--overwrite")
    assert pydicom.dcmread(tmp_path / "case.seg.dcm").SegmentationType == "LABELMAP"


def test_codes_come_from_the_model_or_from_a_file(model: Path, series: Path, tmp_path: Path) -> None:
    first, second = (c.name for c in make_test_plan().labels.foreground)
    codes = {name: {"code": "T-0", "scheme": "99M", "meaning": f"Of model {name}"} for name in (first, second)}
    coded, plan = tmp_path / "coded", make_test_plan(structure_codes=codes)
    ModelBundle.save(coded, TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)]))
    (tmp_path / "dataset.json").write_text(
        f'{{"dicom_codes": {{"{second}": {{"code": "T-1", "scheme": "99X", "meaning": "Thing"}}}}}}'
    )
    base = ("--model", coded, "--input", series, "--format", "dicom-seg", "--output")
    call(*base, tmp_path / "plain")
    call(*base, tmp_path / "given", "--dicom-codes", tmp_path / "dataset.json")
    meanings = {
        name: [s.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for s in segments.SegmentSequence]
        for name in ("plain", "given")
        for segments in [pydicom.dcmread(tmp_path / name / "case.seg.dcm")]
    }
    assert meanings["plain"] == [f"Of model {first}", f"Of model {second}"]
    assert meanings["given"] == [f"Of model {first}", "Thing"]


def test_codes_come_from_dataset_json(model: Path, series: Path, tmp_path: Path) -> None:
    name = make_test_plan().labels.foreground[0].name
    (tmp_path / "dataset.json").write_text(
        f'{{"dicom_codes": {{"{name}": {{"code": "T-1", "scheme": "99X", "meaning": "Thing"}}}}}}'
    )
    arguments = ("--model", model, "--input", series, "--output", tmp_path / "o", "--format", "rtstruct")
    call(*arguments, "--dicom-codes", tmp_path / "dataset.json")
    made = pydicom.dcmread(tmp_path / "o" / "case.rtstruct.dcm")
    assert made.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0].CodeMeaning == "Thing"
    assert made.StudyInstanceUID == uid("study", "study")


def test_other_images_and_options_without_effect_are_refused(model: Path, series: Path, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    base = ("--model", model, "--output", tmp_path / "o", "--input")
    assert "a.nii.gz: --format dicom-seg refers to" in call(*base, tmp_path / "a.nii.gz", "--format", "dicom-seg")
    assert "no effect without --format dicom-seg" in call(*base, series, "--segmentation-type", "binary")
    assert "no effect" in call(*base, series, "--dicom-codes", "x.json", "--format", "nifti")
    assert "contains no DICOM series" in call(*base, tmp_path / "a.nii.gz", "--series", "slices:3")
    assert not (tmp_path / "o").exists()
