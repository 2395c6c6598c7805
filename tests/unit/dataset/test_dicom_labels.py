"""SEG objects and RT structure sets as training labels: by `convert`, and read directly by `dataset.json`."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.core.geometry import reorientation
from decathlete.core.labels import LabelSet
from decathlete.dataset.check import check_dataset
from decathlete.dataset.conversion.plain_sources import FileNames
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.plain_folders import PlainDataset
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.errors import DatasetError, ImageError, ManifestError, OptionError
from decathlete.inference.output.dicom import write_dicom_result
from decathlete.inference.output.provenance import ModelUse, RecordedSettings
from decathlete.io.contour_fill import fill_contours
from decathlete.io.dicom_label import LabelStructures, read_structure_label
from decathlete.io.dicom_structures import list_structures
from decathlete.io.images import read_grid, read_label
from decathlete.workflows.plain_dataset import describe_folders
from decathlete.workflows.workspace import Workspace
from dicom_support import AXIAL, OBLIQUE, write_series

USE = ModelUse(digest="0" * 64, dataset="T", dims=3, weights="final", engine="torch", precision="fp32")
SETTINGS = RecordedSettings(models=(USE,), tta=False, overlap=0.5, blend="gaussian")
LABELS = LabelSet.from_names(["GTV_1", "Liver"])


def make_case(folder: Path, seed: int, *, kind: Any, modality: str = "CT") -> Any:
    """A series, and a label that refers to it, in folders of the same names for each patient."""
    random = np.random.default_rng(seed)
    voxels = random.normal(0, 300, (6, 12, 14)).astype(np.int16)
    label = np.zeros(voxels.shape, np.uint8)
    label[1:4, 2:9, 3:8], label[2:5, 5:8, 6:12] = 1, 2
    name = f"{folder.parent.name}{folder.name}{modality}"
    source = write_series(
        folder / "image",
        voxels,
        series=name,
        study=folder.name,
        orientation=OBLIQUE if seed % 2 else AXIAL,
        modality=modality,
        PatientID=folder.parent.name,
    )
    (folder / "mask").mkdir()
    write_dicom_result(folder / "mask" / "L.dcm", kind, label, labels=LABELS, source=source, settings=SETTINGS)
    return label


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("dicom") / "tree"
    kinds = {"A": "rtstruct", "B": "dicom-seg"}
    labels = {name: make_case(root / name / "CT", k, kind=kind) for k, (name, kind) in enumerate(kinds.items())}
    make_case(root / "A" / "MR", 5, kind="rtstruct", modality="MR")
    return root, labels


def convert(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["convert", *map(str, arguments), "--to", "decathlon", "--workers", "1"])
    return done.output + str(done.exception or "")


def test_convert_pairs_series_with_the_labels_that_refer_to_them(tree: Any, tmp_path: Path) -> None:
    root, labels = tree
    said = convert(root, "--images", ".", "--channels", "CT", "--structures", "tumour=gtv*", "-o", tmp_path / "out")
    assert "0 files linked, 4 written" in said
    made = read_dataset(tmp_path / "out")
    assert [c.id for c in made.cases] == ["A", "B"]
    assert [c.name for c in made.labels.classes] == ["background", "tumour"]
    assert {c.group for c in made.cases} == {"patient001", "patient002"}
    for case in made.cases:
        assert case.label is not None
        np.testing.assert_array_equal(read_label(case.label).array_ZYX, labels[case.id] == 1)
        assert not read_grid(root / case.id / "CT" / "image")[1].differences(read_grid(case.label)[1])


def test_without_names_every_structure_is_a_class(tree: Any, tmp_path: Path) -> None:
    root, labels = tree
    convert(root, "--images", ".", "--channels", "CT", "-o", tmp_path / "out")
    made = read_dataset(tmp_path / "out")
    assert [c.name for c in made.labels.foreground] == ["GTV_1", "Liver"]
    np.testing.assert_array_equal(read_label(tmp_path / "out/labelsTr/B.nii.gz").array_ZYX, labels["B"])


def test_dataset_json_reads_series_and_labels_directly(tree: Any) -> None:
    root, labels = tree
    manifest = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "tumour", "2": "liver"},
        "dicom_structures": {"tumour": "GTV*"},
        "training": [{"image": f"{name}/CT/image", "label": f"{name}/CT/mask/L.dcm"} for name in labels],
    }
    (root / "dataset.json").write_text(json.dumps(manifest))
    try:
        spec = read_dataset(root)
        assert [case.id for case in spec.cases] == ["A_CT_image", "B_CT_image"]
        for case in spec.cases:
            assert case.label is not None
            read = read_label(case.label, structures=case.structures)
            np.testing.assert_array_equal(read.array_ZYX, labels[case.id[0]])
        report = check_dataset(spec, workers=1)
        assert [p for p in report.problems if p.severity == "error"] == []
        manifest["dicom_structures"] = {"kidney": "K"}
        (root / "dataset.json").write_text(json.dumps(manifest))
        with pytest.raises(ManifestError, match="do not declare: kidney"):
            read_dataset(root)
    finally:
        (root / "dataset.json").unlink()


def test_folders_of_dicom_are_a_dataset_as_they_are(tree: Any, tmp_path: Path) -> None:
    """As `run --images PATIENTS --channels CT --structures tumour=GTV*` reads them."""
    root, labels = tree
    found: list[PlainDataset] = []
    workspace = Workspace(prepared=tmp_path / "prepared")
    names = FileNames(images=root, channels="CT", structures="tumour=GTV*")
    folder = describe_folders(names, name="Sarcoma", workspace=workspace, on_found=found.append)
    spec = read_dataset(folder)
    assert [case.id for case in spec.cases] == ["A", "B"]
    assert {case.group for case in spec.cases} == {"patient001", "patient002"}
    assert [c.name for c in spec.labels.classes] == ["background", "tumour"]
    for case in spec.cases:
        assert case.label is not None
        read = read_label(case.label, structures=case.structures)
        np.testing.assert_array_equal(read.array_ZYX, labels[case.id] == 1)
    assert "by the series that they refer to; structures: tumour = GTV*" in "\n".join(found[0].describe())
    assert not check_dataset(spec, workers=1).errors
    every = describe_folders(FileNames(images=root, channels="CT"), name="All", workspace=workspace)
    assert [c.name for c in read_dataset(every).labels.foreground] == ["GTV_1", "Liver"]
    with pytest.raises(OptionError, match="channels of the images are not named"):
        describe_folders(FileNames(images=root), workspace=workspace)


def add_organ(folder: Path, name: str, mask: Any, *, kind: Any) -> Path:
    """Write a label object with a single structure beside the one of a case."""
    path = folder / "mask" / f"{name}.dcm"
    labels = LabelSet.from_names([name.partition("-")[0]])
    write_dicom_result(path, kind, mask.astype(np.uint8), labels=labels, source=folder / "image", settings=SETTINGS)
    return path


def make_organs(folder: Path) -> Any:
    """A series with a SEG object for one organ and a structure set for another, which overlaps it."""
    label = make_case(folder, 0, kind="dicom-seg")
    (folder / "mask" / "L.dcm").unlink()
    gtv, liver = np.zeros(label.shape, bool), label == 2
    gtv[1:4, 2:9, 3:8] = True
    add_organ(folder, "GTV_1", gtv, kind="dicom-seg")
    add_organ(folder, "Liver", liver, kind="rtstruct")
    return label


def test_several_labels_of_a_series_are_one_label_map(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    label = make_organs(root / "A" / "CT")
    folder = describe_folders(FileNames(images=root, channels="CT"), workspace=Workspace(prepared=tmp_path / "p"))
    spec = read_dataset(folder)
    (case,) = spec.cases
    assert case.label is not None
    assert [path.name for path in case.label_files] == ["GTV_1.dcm", "Liver.dcm"]
    assert [c.name for c in spec.labels.foreground] == ["GTV_1", "Liver"]
    np.testing.assert_array_equal(read_label(case.label, structures=case.structures).array_ZYX, label)
    report = check_dataset(spec, workers=1)
    assert not report.errors
    assert "voxels belong to several structures" in "".join(problem.message for problem in report.problems)
    before = spec.digest()
    os.utime(case.label_files[1], ns=(0, 0))
    assert spec.digest() != before
    assert "2 written" in convert(root, "--images", ".", "--channels", "CT", "-o", tmp_path / "out")
    np.testing.assert_array_equal(read_label(tmp_path / "out" / "labelsTr" / "A.nii.gz").array_ZYX, label)


def test_labels_of_a_series_with_the_same_structure_are_rejected(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    label = make_organs(root / "A" / "CT")
    add_organ(root / "A" / "CT", "Liver-2", label == 1, kind="dicom-seg")
    problem = r"Liver\.dcm: contains the structure 'Liver', as does .*Liver-2\.dcm"
    with pytest.raises(DatasetError, match=problem) as caught:
        describe_folders(FileNames(images=root, channels="CT"), workspace=Workspace(prepared=tmp_path / "p"))
    assert caught.value.remedy == "keep one of them, or put the others outside the folder of labels"


@pytest.mark.parametrize("place", ["new", "tree/new"], ids=["beside the images", "among the images"])
def test_test_images_are_series_without_labels(tmp_path: Path, place: str) -> None:
    make_case(tmp_path / "tree" / "A" / "CT", 0, kind="dicom-seg")
    make_case(tmp_path / "tree" / "B" / "CT", 1, kind="dicom-seg")
    voxels = np.random.default_rng(0).normal(0, 300, (5, 12, 14)).astype(np.int16)
    for name, modality in (("T1", "CT"), ("T2", "CT"), ("T3", "MR")):
        write_series(tmp_path / place / name, voxels, series=name, study=name, modality=modality)
    names = FileNames(images=tmp_path / "tree", channels="CT", test_images=tmp_path / place)
    workspace = Workspace(prepared=tmp_path / "p")
    folder = describe_folders(names, name="D", workspace=workspace)
    spec = read_dataset(folder)
    assert [case.id for case in spec.cases] == ["A", "B"]
    assert [(case.id, case.label) for case in spec.test_cases] == [("T1", None), ("T2", None)]
    assert not check_dataset(spec, workers=1).errors
    write_series(tmp_path / place / "T4", voxels, series="T4", study="T4")
    assert describe_folders(names, name="D", workspace=workspace) == folder
    assert [case.id for case in read_dataset(folder).test_cases] == ["T1", "T2", "T4"]
    with pytest.raises(DatasetError, match="there is no folder"):
        describe_folders(replace(names, test_images=tmp_path / "none"), workspace=workspace)


def test_test_images_of_several_channels_are_studies(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(0, 300, (6, 12, 14)).astype(np.int16)
    make_case(tmp_path / "tree" / "A" / "CT", 0, kind="dicom-seg")
    write_series(tmp_path / "tree" / "A" / "PT", voxels, series="PT", study="CT", modality="PT")
    for modality in ("CT", "PT"):
        write_series(tmp_path / "new" / "T" / modality, voxels, series=f"T{modality}", study="T", modality=modality)
    names = FileNames(images=tmp_path / "tree", channels="CT,PET", test_images=tmp_path / "new")
    workspace = Workspace(prepared=tmp_path / "p")
    spec = read_dataset(describe_folders(names, workspace=workspace))
    (test,) = spec.test_cases
    assert [path.name for path in test.images] == ["CT", "PT"]
    shutil.rmtree(tmp_path / "new" / "T" / "PT")
    with pytest.raises(DatasetError, match=r"\(test images\): no series of a study fits the channel PET"):
        describe_folders(names, workspace=workspace)


def test_missing_structures_and_other_images_are_errors(tree: Any, tmp_path: Path) -> None:
    root, _ = tree
    base = (root, "--images", ".", "-o", tmp_path / "out")
    assert "contains none of the structures kidney* (it has GTV_1, Liver)" in convert(
        *base, "--channels", "CT", "--structures", "kidney=kidney*"
    )
    assert "have no effect on DICOM series" in convert(*base, "--channels", "CT", "--label-suffix", "_seg")
    assert "not a list of different classes" in convert(*base, "--channels", "CT", "--structures", "a")
    label = root / "A" / "CT" / "mask" / "L.dcm"
    _, other = read_grid(write_series(tmp_path / "o", np.zeros((3, 5, 5), np.int16), step=3.3, series="o"))
    with pytest.raises(ImageError, match="image"):
        read_structure_label(root / "B" / "CT" / "mask" / "L.dcm", other, [("liver", 1)])
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(label.read_bytes()[:-900])
    with pytest.raises(ImageError):
        read_structure_label(damaged, read_grid(root / "A" / "CT" / "image")[1], [("liver", 1)])


@pytest.mark.parametrize("spacing", [(0.0, 0.0), (1.8, 2.2), (1.8, 1.1)])
def test_frames_of_another_resolution_are_rejected(tree: Any, tmp_path: Path, spacing: tuple[float, float]) -> None:
    root, _ = tree
    dataset = pydicom.dcmread(root / "B" / "CT" / "mask" / "L.dcm")
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = list(spacing)
    dataset.save_as(tmp_path / "L.dcm")
    _, grid = read_grid(root / "B" / "CT" / "image")
    with pytest.raises(ImageError, match="does not lie on the voxels"):
        read_structure_label(tmp_path / "L.dcm", grid, [("liver", 1)])


def test_contours_between_slices_are_rejected(tree: Any, tmp_path: Path) -> None:
    """Two contours of one slice would be read as an outline and a hole."""
    root, _ = tree
    dataset = pydicom.dcmread(root / "A" / "CT" / "mask" / "L.dcm")
    (_, liver) = dataset.ROIContourSequence
    contour = liver.ContourSequence[0]
    contour.ContourData = [v + (1.0 if k % 3 == 2 else 0.0) for k, v in enumerate(map(float, contour.ContourData))]
    dataset.save_as(tmp_path / "L.dcm")
    _, grid = read_grid(root / "A" / "CT" / "image")
    with pytest.raises(ImageError, match="lie between them"):
        read_structure_label(tmp_path / "L.dcm", grid, [("liver", 1)])
    assert read_structure_label(tmp_path / "L.dcm", grid, [("gtv*", 1)]).array_ZYX.any()


def test_slices_without_contours_between_others_are_listed(tree: Any, tmp_path: Path) -> None:
    """A structure that was drawn on every second slice has holes."""
    root, _ = tree
    copy = tmp_path / "d"
    shutil.copytree(root / "A" / "CT", copy / "A")
    path = copy / "A" / "mask" / "L.dcm"
    dataset = pydicom.dcmread(path)
    (_, liver) = dataset.ROIContourSequence
    assert len(liver.ContourSequence) == 3
    del liver.ContourSequence[1]
    dataset.save_as(path)
    case = Case(
        id="A",
        images=(copy / "A" / "image",),
        label=path,
        structures=LabelStructures(image=copy / "A" / "image", names=(("gtv*", 1), ("liver", 2))),
    )
    spec = DatasetSpec(name="d", root=copy, layout="table", channels=("CT",), labels=LABELS, cases=(case,))
    (found,) = [p for p in check_dataset(spec, workers=1).warnings if p.code == "E-DATASET-CONTOURS"]
    assert "Liver: 1 slices between its contours have none" in found.message


def test_contours_are_filled_by_the_centres_of_pixels() -> None:
    square = np.array([[0.5, 0.5], [3.5, 0.5], [3.5, 2.5], [0.5, 2.5]])
    filled = fill_contours([square, square[::-1] * [0.34, 1] + [1.1, 0]], (4, 5))
    assert filled.astype(int).tolist() == [[0, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]]
    left, right = ([[x, 0.0], [x + 2, 0.0], [x + 2, 3.0], [x, 3.0]] for x in (0.0, 2.0))
    shared = fill_contours([np.array(left)], (4, 5)) & fill_contours([np.array(right)], (4, 5))
    assert not shared.any()  # neighbours that share an edge share no pixel
    beyond = fill_contours([np.array([[-9.0, -9.0], [99.0, -9.0], [99.0, 99.0], [-9.0, 99.0]])], (4, 5))
    assert beyond.all()


@pytest.mark.real_data
@pytest.mark.parametrize("name", [f"{p}/{m}" for p in ("STS_002", "STS_025") for m in ("CT", "MR_T1", "PET")])
def test_contours_equal_the_reference_masks(name: str, real_data: Any) -> None:
    folder = real_data("DICOM_RTSTRUCT_STS") / name
    (label,) = (folder / "mask").iterdir()
    _, geometry = read_grid(folder / "image")
    read, truth = (
        read_structure_label(label, geometry, [("GTV_Mass*", 1)]),
        read_label(folder / "reference_mask.nii.gz"),
    )
    ours, theirs = (reorientation(m.geometry, "canonical").apply(m.array_ZYX) for m in (read, truth))
    np.testing.assert_array_equal(ours, theirs)  # Dice 1.0


@pytest.mark.real_data
def test_a_segmentation_of_dcmqi_equals_its_nrrd(real_data: Any) -> None:
    folder = real_data("DICOM_SEG_dcmqi")
    read = read_structure_label(folder / "liver.dcm", read_grid(folder / "ct-3slice")[1], [("liver", 1)])
    truth = read_label(folder / "liver_seg.nrrd")
    np.testing.assert_array_equal(read.array_ZYX, truth.array_ZYX)
    assert len(list_structures(folder / "partial_overlaps.dcm")) == 5
