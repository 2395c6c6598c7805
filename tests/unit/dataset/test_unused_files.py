"""What a dataset's folder contains and no case uses is listed; names that cannot be stored are found."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from decathlete.core.choices import DatasetLayout
from decathlete.dataset.check import check_dataset
from decathlete.dataset.conversion.folders import Folders, find_cases
from decathlete.dataset.conversion.source import read_source
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.unused_files import unused_files
from decathlete.errors import ManifestError
from decathlete.synthetic.phantoms import make_phantoms

LAYOUTS: tuple[DatasetLayout, ...] = ("decathlon", "nnunet")


@pytest.fixture(params=LAYOUTS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_phantoms(tmp_path / "d", n_cases=3, n_test=1, shape_ZYX=(8, 9, 10), layout=request.param)


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in unused_files(read_dataset(root))}


def test_a_sound_dataset_has_none(root: Path) -> None:
    for name in ("README.md", "licence.txt", "._dataset.json", "imagesTr/._a.nii.gz"):
        (root / name).touch()
    assert names(root) == set()


@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr", "imagesTs"])
def test_every_entry_of_the_folders_is_used_or_listed(root: Path, folder: str) -> None:
    (root / folder).mkdir(exist_ok=True)
    for name in ("extra.nrrd", "extra.nii", "notes.txt", "x.dcm"):
        (root / folder / name).touch()
    (root / folder / "series").mkdir()
    (root / folder / "gone.nii.gz").symlink_to("nowhere")
    os.mkfifo(root / folder / "pipe.nii.gz")
    expected = ("extra.nrrd", "extra.nii", "notes.txt", "x.dcm", "series", "gone.nii.gz", "pipe.nii.gz")
    assert names(root) == {f"{folder}/{name}" for name in expected}


def test_other_folders_with_images_and_images_beside_the_manifest_are_listed(root: Path) -> None:
    for folder in ("imagesVal", "labelsTs", "docs"):
        (root / folder).mkdir(exist_ok=True)
    for name in ("imagesVal/a.nii.gz", "labelsTs/a.nii.gz", "docs/readme.txt", "lone.nii.gz"):
        (root / name).touch()
    assert {"imagesVal", "labelsTs", "lone.nii.gz"} <= names(root)
    assert "docs" not in names(root)


def test_files_elsewhere_that_the_manifest_lists_are_used(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "d", n_cases=3, n_test=0, shape_ZYX=(8, 9, 10))
    (root / "imagesTr").rename(root / "scans")
    manifest = root / "dataset.json"
    manifest.write_text(manifest.read_text().replace("imagesTr", "scans"))
    assert names(root) == set()


def test_check_and_convert_say_it(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "imagesTr" / "x.nrrd").touch()
    report = check_dataset(read_dataset(root))
    (problem,) = report.problems
    assert (problem.severity, problem.code) == ("warning", "E-DATASET-UNUSED")
    assert "imagesTr/x.nrrd" in problem.message
    read_source(root)
    assert "not used: imagesTr/x.nrrd" in caplog.text


def test_files_of_plain_folders_that_match_nothing_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a_t1.nii.gz", "a_seg.nii.gz", "a_flair.nii.gz", "notes.txt", "x.dcm", "a.img", "a.hdr"):
        (tmp_path / name).touch()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "up").symlink_to("..")
    elsewhere = tmp_path.parent / f"{tmp_path.name}_linked"
    elsewhere.mkdir()
    for name in ("b_t1.nii.gz", "b_seg.nii.gz"):
        (elsewhere / name).touch()
    (tmp_path / "linked").symlink_to(elsewhere)
    here = Path()
    folders = Folders(root=tmp_path, images=here, labels=here, channels={"T1": "_t1"}, label_suffix="_seg")
    cases, _ = find_cases(folders)
    assert [case.id for case in cases] == ["a", "b"]
    for name in ("a_flair.nii.gz", "notes.txt", "x.dcm", "deep/up"):
        assert name in caplog.text
    assert "a.hdr, a.img (Analyze, or NIfTI in two files: save it as .nii.gz)" in caplog.text


def test_names_that_are_not_utf8_are_found_when_a_dataset_is_read(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "d", n_cases=3, n_test=0, shape_ZYX=(8, 9, 10), layout="nnunet")
    for path in (root / "imagesTr" / "phantom_000_0000.nii.gz", root / "labelsTr" / "phantom_000.nii.gz"):
        path.rename(path.with_name(path.name.replace("phantom", "\udcfc")))
    with pytest.raises(ManifestError, match="is not UTF-8") as caught:
        read_dataset(root)
    assert r"\udcfc_000" in str(caught.value)


def test_a_folder_whose_path_is_not_utf8_is_found(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "d", n_cases=3, n_test=0, shape_ZYX=(8, 9, 10))
    moved = root.rename(tmp_path / "\udcfc")
    with pytest.raises(ManifestError, match=r"the path .* is not UTF-8"):
        read_dataset(moved)


@pytest.mark.parametrize("name", ["line\nbreak", "carriage\rreturn", "a/b", "..", ""])
def test_names_that_cannot_be_names_of_files_are_found(tmp_path: Path, name: str) -> None:
    root = make_phantoms(tmp_path / "d", n_cases=3, n_test=0, shape_ZYX=(8, 9, 10), layout="nnunet")
    content = json.loads((root / "dataset.json").read_text())
    content["dataset"] = {
        name: {"images": ["imagesTr/phantom_000_0000.nii.gz"], "label": "labelsTr/phantom_000.nii.gz"}
    }
    (root / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(ManifestError, match="cannot be a case's name"):
        read_dataset(root)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_unused_names_that_are_not_utf8_are_reported_as_json(tmp_path: Path, layout: DatasetLayout) -> None:
    root = make_phantoms(tmp_path / "d", n_cases=3, n_test=0, shape_ZYX=(8, 9, 10), layout=layout)
    (root / "imagesTr" / "x\udcfc\x1b[2J.nrrd").touch()
    text = check_dataset(read_dataset(root)).model_dump_json()
    assert "\x1b" not in text
    assert r"x\\udcfc\\u001b[2J.nrrd" in text


@pytest.mark.parametrize("separator", ["\\", "/"])
def test_back_slashes_in_manifests_separate_folders(tmp_path: Path, separator: str) -> None:
    root = make_phantoms(tmp_path / "d", n_cases=3, n_test=1, shape_ZYX=(8, 9, 10))
    content = json.loads((root / "dataset.json").read_text())
    for entry in content["training"]:
        entry.update({key: value.replace("/", separator) for key, value in entry.items()})
    content["test"] = [value.replace("/", separator) for value in content["test"]]
    (root / "dataset.json").write_text(json.dumps(content))
    assert check_dataset(read_dataset(root)).problems == ()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_manifests_from_windows_are_read(tmp_path: Path, layout: DatasetLayout, encoding: str) -> None:
    root = make_phantoms(tmp_path / "d", n_cases=3, n_test=0, shape_ZYX=(8, 9, 10), layout=layout)
    before = read_dataset(root)
    manifest = root / "dataset.json"
    manifest.write_bytes(manifest.read_text().encode(encoding))
    assert read_dataset(root) == before
