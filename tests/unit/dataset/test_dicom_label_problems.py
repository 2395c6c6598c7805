"""DICOM labels and series that do not fit: said or rejected, never background or fewer slices without a word."""

from __future__ import annotations

import copy
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from test_dicom_labels import convert, make_case

from decathlete.dataset.check import check_dataset
from decathlete.dataset.check_report import CheckReport
from decathlete.dataset.manifest import read_dataset
from decathlete.io import contour_fill
from decathlete.io.images import read_grid, read_label

KINDS = {"A": "rtstruct", "B": "dicom-seg", "C": "rtstruct"}
CT = ("--images", ".", "--channels", "CT")
Edit = Callable[[Any], None]
Log = pytest.LogCaptureFixture


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound") / "tree"
    for seed, (name, kind) in enumerate(KINDS.items()):
        make_case(root / name / "CT", seed, kind=kind)
    return root


@pytest.fixture
def tree(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "tree")
    return tmp_path / "tree"


def label_of(root: Path, name: str) -> Path:
    return root / name / "CT" / "mask" / "L.dcm"


def edit_label(root: Path, name: str, edit: Edit) -> None:
    dataset = pydicom.dcmread(label_of(root, name))
    edit(dataset)
    dataset.save_as(label_of(root, name))


def check(root: Path, *, labels: str = "ABC", patterns: dict[str, str] | None = None) -> CheckReport:
    """Check a dataset that lists the images of A, B and C, with the labels of other cases where ``labels`` says so."""
    manifest = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "GTV_1", "2": "Liver"},
        "dicom_structures": patterns or {},
        "training": [
            {"image": f"{name}/CT/image", "label": f"{label}/CT/mask/L.dcm"}
            for name, label in zip("ABC", labels, strict=True)
        ],
    }
    (root / "dataset.json").write_text(json.dumps(manifest))
    return check_dataset(read_dataset(root), workers=1)


def voxels(root: Path, name: str) -> list[int]:
    (case,) = [case for case in read_dataset(root).cases if case.id.startswith(name)]
    assert case.label is not None
    label = read_label(case.label, structures=case.structures, warn=lambda problem, remedy: None)
    return np.bincount(label.array_ZYX.ravel(), minlength=3).tolist()


def contours(dataset: Any) -> Any:
    return dataset.ROIContourSequence[0].ContourSequence


def shift(dataset: Any, which: int | None = None, by: float = 500.0) -> None:
    for contour in contours(dataset)[:which]:
        contour.ContourData = [float(v) + by * (k % 3 == 0) for k, v in enumerate(contour.ContourData)]


def repeat(dataset: Any) -> None:
    """Copy two contours, one of them from another point and in the other direction."""
    for contour in list(contours(dataset)[:2]):
        other = copy.deepcopy(contour)
        points = np.array(other.ContourData, float).reshape(-1, 3)
        other.ContourData = np.roll(points, 2, axis=0)[::-1].ravel().tolist()
        contours(dataset).append(other)


def add_short(dataset: Any) -> None:
    for data in ([1.0, 2.0, 3.0], [], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]):
        other = copy.deepcopy(contours(dataset)[0])
        other.ContourData, other.NumberOfContourPoints = data, len(data) // 3
        contours(dataset).append(other)


def remove_contours(dataset: Any) -> None:
    del dataset.ROIContourSequence


def number_from_zero(dataset: Any) -> None:
    for sequence, name in (("StructureSetROISequence", "ROINumber"), ("ROIContourSequence", "ReferencedROINumber")):
        for number, item in enumerate(dataset[sequence].value):
            setattr(item, name, number)


def test_sound_labels_have_no_problems(tree: Path) -> None:
    report = check(tree)
    assert [str(p) for p in report.problems if p.code != "E-DATASET-DUPLICATES"] == []
    edit_label(tree, "A", number_from_zero)
    assert not check(tree).errors
    assert voxels(tree, "A") == voxels(tree, "C")


@pytest.mark.parametrize(
    ("edit", "problem", "is_whole"),
    [
        (lambda d: shift(d, 1), "GTV_1: 1 contours lie beyond the image", False),
        (lambda d: shift(d, 1, 10.0), "GTV_1: 1 contours reach beyond the image, and are cut off", False),
        (repeat, "GTV_1: 2 contours are copies of others in their slice", True),
        (add_short, "GTV_1: 3 contours have fewer than three points", True),
        (remove_contours, "Liver: the structure contains no voxel of the image", False),
    ],
)
def test_contours_that_are_not_used_are_said(tree: Path, edit: Edit, problem: str, is_whole: bool, caplog: Log) -> None:
    check(tree)
    before = voxels(tree, "A")
    edit_label(tree, "A", edit)
    report = check(tree)
    assert problem in "\n".join(p.message for p in report.warnings if p.code == "E-DATASET-CONTOURS")
    assert not [p for p in report.errors if p.file == "A/CT/mask/L.dcm"]
    assert (voxels(tree, "A") == before) == is_whole
    assert problem not in caplog.text, "check lists it once"
    convert(tree, *CT, "-o", tree.parent / "out")
    assert problem in caplog.text


def test_contours_that_reach_less_than_a_voxel_beyond_the_image_are_usual(tree: Path) -> None:
    edge = [-30.5, 20.0, 5.0 + 2, -20.0, 20.0, 5.0 + 2, -20.0, 25.0, 5.0 + 2]

    def move(dataset: Any) -> None:
        contours(dataset)[0].ContourData, contours(dataset)[0].NumberOfContourPoints = edge, 3

    edit_label(tree, "A", move)
    assert not [p for p in check(tree).problems if p.code == "E-DATASET-CONTOURS"]


def refer_to_undeclared(dataset: Any) -> None:
    if "ROIContourSequence" in dataset:
        dataset.ROIContourSequence[0].ReferencedROINumber = 9
    else:
        frame = dataset.PerFrameFunctionalGroupsSequence[0]
        frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9


def use_a_number_twice(dataset: Any) -> None:
    if "ROIContourSequence" in dataset:
        dataset.StructureSetROISequence[1].ROINumber = dataset.StructureSetROISequence[0].ROINumber
    else:
        dataset.SegmentSequence[1].SegmentNumber = 1


@pytest.mark.parametrize("name", ["A", "B"])
@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (refer_to_undeclared, "of structure 9, which it does not declare"),
        (use_a_number_twice, "'GTV_1' and 'Liver' have the same number 1"),
    ],
)
def test_contradictions_are_errors(tree: Path, name: str, edit: Edit, problem: str) -> None:
    edit_label(tree, name, edit)
    (error,) = check(tree).errors
    assert problem in error.message
    assert error.file == f"{name}/CT/mask/L.dcm"
    assert problem in convert(tree, *CT, "-o", tree.parent / "out")


@pytest.mark.parametrize("n_points", [0, 3])
def test_contours_with_fewer_points_than_declared_are_damaged(tree: Path, n_points: int) -> None:
    def cut(dataset: Any) -> None:
        contours(dataset)[0].ContourData = list(contours(dataset)[0].ContourData)[: 3 * n_points]

    edit_label(tree, "A", cut)
    (error,) = check(tree).errors
    assert f"a contour has {n_points} of " in error.message


def test_contours_that_all_lie_beyond_the_image_are_an_error(tree: Path) -> None:
    edit_label(tree, "A", shift)
    (error,) = check(tree).errors
    assert "none of the 3 contours of structure 'GTV_1' lies in the image" in error.message


def test_a_label_of_another_image_is_said(tree: Path) -> None:
    report = check(tree, labels="CBA")
    found = [p for p in report.warnings if "refers to another series" in p.message]
    assert {p.file for p in found} == {"A/CT/mask/L.dcm", "C/CT/mask/L.dcm"}


def rename(dataset: Any) -> None:
    if "StructureSetROISequence" in dataset:
        dataset.StructureSetROISequence[0].ROIName = "Tumor"
    else:
        dataset.SegmentSequence[0].SegmentLabel = "Tumor"


@pytest.mark.parametrize("name", ["A", "B"])
def test_a_class_without_a_structure_is_said(tree: Path, name: str, caplog: Log) -> None:
    edit_label(tree, name, rename)
    report = check(tree)
    problem = f"class 'GTV_1' has no structure in 1 of 3 cases: {name}"
    (found,) = [p.message for p in report.warnings if p.code == "E-DATASET-CONTOURS"]
    assert found.startswith(problem)
    assert found.endswith("(without a class: Tumor)")
    assert "structures that no class uses: Tumor (1 cases)" in report.notes
    (tree / "dataset.json").unlink()
    convert(tree, *CT, "--structures", "GTV_1=gtv*,Liver=Liver", "-o", tree.parent / "out")
    assert problem in caplog.text


def test_names_with_brackets_commas_and_other_case_are_structures(tree: Path) -> None:
    for name, new in (("A", "GTV [1], a=b"), ("C", "gtv [1], A=b")):
        edit_label(tree, name, lambda d, new=new: setattr(d.StructureSetROISequence[0], "ROIName", new))
    convert(tree, *CT, "-o", tree.parent / "out")
    made = read_dataset(tree.parent / "out")
    assert [c.name for c in made.labels.foreground] == ["GTV [1]  a b", "Liver", "GTV_1"]
    for case, value in zip(made.cases, (1, 3, 1), strict=True):
        assert case.label is not None
        assert set(np.unique(read_label(case.label).array_ZYX)) == {0, 2, value}


def test_labels_and_files_that_belong_to_no_case_are_listed(tree: Path, caplog: Log) -> None:
    shutil.rmtree(tree / "C" / "CT" / "image")
    (tree / "A" / "notes.txt").touch()
    (tree / "A" / "CT" / "image.nii.gz").touch()
    convert(tree, *CT, "--structures", "GTV_1=gtv*", "-o", tree.parent / "out")
    assert "C/CT/mask/L.dcm (a label that refers to no series in the folder of the images)" in caplog.text
    assert "A/CT/image.nii.gz (an image beside DICOM series)" in caplog.text
    assert "notes.txt" not in caplog.text


def last_slice(root: Path) -> Path:
    return max((root / "A" / "CT" / "image").iterdir(), key=lambda path: pydicom.dcmread(path).InstanceNumber)


@pytest.mark.parametrize("how", ["compressed", "hidden"])
def test_slices_that_are_not_read_are_listed(tree: Path, how: str, caplog: Log) -> None:
    path = last_slice(tree)
    if how == "compressed":
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        reason = f"{path.name}.gz (a compressed DICOM file: decompress it)"
    else:
        path.rename(path.with_name(f".{path.name}"))
        reason = f".{path.name} (a hidden DICOM file"
    (tree / "A" / "CT" / "image" / "._IM0").write_bytes(b"\0\5\x16\7")  # as macOS leaves them
    (tree / "A" / "CT" / "image" / "report.pdf").touch()
    listed = "\n".join(p.message for p in check(tree).warnings if p.code == "E-DATASET-UNUSED")
    assert reason in listed
    assert "report.pdf (beside DICOM slices" in listed
    assert "._IM0" not in listed
    (tree / "dataset.json").unlink()
    convert(tree, *CT, "-o", tree.parent / "out")
    assert reason in caplog.text


@pytest.mark.parametrize("start", [132, 0])
def test_slices_without_the_preamble_or_a_suffix_are_read(tree: Path, start: int) -> None:
    path, grid = last_slice(tree), read_grid(tree / "A" / "CT" / "image")
    dataset = pydicom.dcmread(path)
    if start == 0:  # no header, either
        pydicom.dcmwrite(path, pydicom.Dataset(dataset), implicit_vr=True, little_endian=True)
    path.with_suffix("").write_bytes(path.read_bytes()[start:])
    path.unlink()
    assert not grid[1].differences(read_grid(tree / "A" / "CT" / "image")[1])


@pytest.mark.parametrize("name", ["A", "B"])
def test_a_series_in_several_folders_is_refused(tree: Path, name: str) -> None:
    folder = tree / name / "CT" / "image"
    folder.with_name("more").mkdir()
    for path in sorted(folder.iterdir())[:2]:
        path.rename(folder.with_name("more") / path.name)
    said = " ".join(convert(tree, *CT, "-o", tree.parent / "out").split())
    assert f"several folders: {folder} (4 files), {folder.with_name('more')} (2 files)" in said
    assert not (tree.parent / "out" / "dataset.json").exists()


def test_many_edges_are_filled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    drawn = [random.uniform(-5, 45, (n, 2)) for n in (3, 50, 7)]
    whole = contour_fill.fill_contours(drawn, (30, 40))
    monkeypatch.setattr(contour_fill, "_AT_ONCE", 4)
    np.testing.assert_array_equal(contour_fill.fill_contours(drawn, (30, 40)), whole)
    assert whole.any()
    assert not whole.all()
    assert not contour_fill.fill_contours([], (30, 40)).any()
