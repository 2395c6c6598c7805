"""Datasets in other layouts: voxels, grids and declarations come back; links, refusals, and what a source lacks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from decathlete import FileNames, check, convert
from decathlete.cli.main import app
from decathlete.core.geometry import Geometry
from decathlete.dataset.conversion.folders import parse_channels
from decathlete.dataset.conversion.source import find_labels
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import Case
from decathlete.errors import CasesFailedError, DatasetError, DecathleteError, ManifestError, OptionError, OutputError
from decathlete.io.images import read_channels, read_grid, read_label, read_volume, write_image, write_label
from decathlete.synthetic.phantoms import make_phantoms

SHAPE = (6, 7, 8)
GRID = Geometry.plain(SHAPE)


def phantoms(folder: Path, n_channels: int = 1, **options: Any) -> Path:
    return make_phantoms(
        folder, n_cases=3, n_test=1, shape_ZYX=(10, 12, 9), n_channels=n_channels, oblique=True, **options
    )


def declared(folder: Path, **changes: object) -> None:
    raw = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(raw | changes))


def contents(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def image(path: Path, value: float = 1.0, n_channels: int = 1, grid: Geometry = GRID) -> None:
    rng = np.random.default_rng(int(value))
    write_image(path, (value + rng.uniform(size=(n_channels, *grid.shape_ZYX))).astype(np.float32), grid)


def label(path: Path, *values: int, grid: Geometry = GRID) -> None:
    array = np.zeros(grid.shape_ZYX, np.uint8)
    for place, value in enumerate(values):
        array[place + 1, 1:3, 1:3] = value
    write_label(path, array, grid)


def assert_same_cases(first: Path, second: Path) -> None:
    one, other = read_dataset(first), read_dataset(second)
    assert (one.channels, one.labels) == (other.channels, other.labels)
    assert [(c.id, c.group) for c in one.cases] == [(c.id, c.group) for c in other.cases]
    assert [c.id for c in one.test_cases] == [c.id for c in other.test_cases]
    for a, b in zip((*one.cases, *one.test_cases), (*other.cases, *other.test_cases), strict=True):
        mine, theirs = read_channels(a.images), read_channels(b.images)
        assert np.array_equal(mine.array_CZYX, theirs.array_CZYX)
        assert mine.geometry == theirs.geometry
        if a.label is not None and b.label is not None:
            assert np.array_equal(read_label(a.label).array_ZYX, read_label(b.label).array_ZYX)
            assert read_label(a.label).geometry == read_label(b.label).geometry


@pytest.mark.parametrize("n_channels", [1, 4])
def test_there_and_back_is_the_same(tmp_path: Path, n_channels: int) -> None:
    first = phantoms(tmp_path / "Task07_Blobs", n_channels, cases_per_patient=2)
    declared(first, licence="CC0")
    before = contents(first)
    there = convert(first, tmp_path / "Dataset007_Blobs", to="nnunet", workers=1)
    convert(tmp_path / "Dataset007_Blobs", tmp_path / "back", to="decathlon", workers=1)
    names = sorted(p.name for p in (tmp_path / "Dataset007_Blobs" / "imagesTr").iterdir())
    assert names[:n_channels] == [f"patient001_frame01_{c:04d}.nii.gz" for c in range(n_channels)]
    assert_same_cases(first, tmp_path / "Dataset007_Blobs")
    assert_same_cases(first, tmp_path / "back")
    assert json.loads((tmp_path / "back" / "dataset.json").read_text())["licence"] == "CC0"
    assert (there.linked, there.written) == ((7, 0) if n_channels == 1 else (3, 16))
    assert contents(first) == before
    for made in ("Dataset007_Blobs", "back"):
        assert check(tmp_path / made, workers=1).ok


def test_integers_stay_integers_when_channels_are_split_and_stacked(tmp_path: Path) -> None:
    first = phantoms(tmp_path / "Task07_Blobs", 2)
    for path in (first / "imagesTr").iterdir():
        stored = nibabel.load(path)
        nibabel.Nifti1Image(np.rint(stored.get_fdata()).astype(np.int16), stored.affine).to_filename(path)
    convert(first, tmp_path / "Dataset007_Blobs", to="nnunet", workers=1)
    convert(tmp_path / "Dataset007_Blobs", tmp_path / "back", to="decathlon", workers=1)
    for made in ("Dataset007_Blobs/imagesTr", "back/imagesTr"):
        assert {read_volume(p).array_CZYX.dtype for p in (tmp_path / made).iterdir()} == {np.dtype(np.int16)}
    assert_same_cases(first, tmp_path / "back")


def test_links_are_relative_and_lead_to_the_file_itself(tmp_path: Path) -> None:
    first = phantoms(tmp_path / "a" / "Task07_Blobs")
    convert(first, tmp_path / "a" / "Dataset007_Blobs", to="nnunet", workers=1)
    convert(tmp_path / "a" / "Dataset007_Blobs", tmp_path / "a" / "back", to="decathlon", workers=1)
    link = tmp_path / "a" / "back" / "labelsTr" / "phantom_000.nii.gz"
    assert link.readlink() == Path("../../Task07_Blobs/labelsTr/phantom_000.nii.gz")
    (tmp_path / "a").rename(tmp_path / "moved")
    assert read_label(tmp_path / "moved" / "back" / "labelsTr" / "phantom_000.nii.gz").array_ZYX.any()


def test_copies_do_not_need_the_source(tmp_path: Path) -> None:
    first = phantoms(tmp_path / "Task07_Blobs")
    record = convert(first, tmp_path / "Dataset007_Blobs", to="nnunet", copy=True, workers=1)
    assert (record.linked, record.written) == (0, 7)
    assert not any(p.is_symlink() for p in (tmp_path / "Dataset007_Blobs").rglob("*"))
    assert_same_cases(first, tmp_path / "Dataset007_Blobs")


REGIONS = {"whole": [1, 2], "core": 2}


def test_regions_and_ignore_are_kept(tmp_path: Path) -> None:
    first = phantoms(tmp_path / "Task07_Blobs")
    names = {"0": "nothing", "1": "rim", "2": "core", "3": "ignore"}
    declared(first, labels=names, regions=REGIONS, regions_class_order=[1, 2])
    convert(first, tmp_path / "Dataset007_Blobs", to="nnunet", workers=1)
    raw = json.loads((tmp_path / "Dataset007_Blobs" / "dataset.json").read_text())
    assert raw["labels"] == {"background": 0, **REGIONS, "ignore": 3}
    assert raw["regions_class_order"] == [1, 2]
    convert(tmp_path / "Dataset007_Blobs", tmp_path / "back", to="decathlon", workers=1)
    one, other = read_dataset(first).labels, read_dataset(tmp_path / "back").labels
    assert (one.regions, one.region_order, one.ignore) == (other.regions, other.region_order, other.ignore)


def test_regions_of_the_command_line_are_declared(tmp_path: Path) -> None:
    first = phantoms(tmp_path / "Task07_Blobs")
    convert(first, tmp_path / "Dataset007_Blobs", to="nnunet", regions="all=1,2;inner=2", workers=1)
    assert [r.values for r in read_dataset(tmp_path / "Dataset007_Blobs").labels.regions] == [(1, 2), (2,)]


def test_gaps_in_the_values_are_closed_for_nnunet(tmp_path: Path) -> None:
    """nnU-Net's own check demands 0, 1, 2, ...; the ignore value comes last."""
    source = tmp_path / "Task03_Gaps"
    for name in ("a", "b"):
        image(source / "imagesTr" / f"{name}.nii.gz", ord(name))
        label(source / "labelsTr" / f"{name}.nii.gz", 1, 4, 2)
    manifest = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "rim", "4": "core", "2": "ignore"},
        "training": [{"image": f"imagesTr/{n}.nii.gz", "label": f"labelsTr/{n}.nii.gz"} for n in "ab"],
    }
    (source / "dataset.json").write_text(json.dumps(manifest))
    made = tmp_path / "Dataset003_Gaps"
    record = convert(source, made, to="nnunet", workers=1)
    assert record.values == {4: 2, 2: 3}
    array = read_label(made / "labelsTr" / "a.nii.gz").array_ZYX
    assert [array[k, 1, 1] for k in (1, 2, 3)] == [1, 2, 3]
    assert json.loads((made / "dataset.json").read_text())["labels"] == {
        "background": 0,
        "rim": 1,
        "core": 2,
        "ignore": 3,
    }
    assert convert(source, tmp_path / "as_is", to="decathlon", workers=1).values == {}
    label(source / "labelsTr" / "b.nii.gz", 7)
    with pytest.raises(CasesFailedError, match=r"b\.nii\.gz: contains values that are not declared: 7"):
        convert(source, tmp_path / "Dataset004_Gaps", to="nnunet", workers=1)


def test_floating_point_labels_are_written_anew_only_where_they_are_not_whole(tmp_path: Path) -> None:
    first = phantoms(tmp_path / "Task07_Blobs")
    for name, noise in (("phantom_000", 0.0), ("phantom_001", 1e-4)):
        path = first / "labelsTr" / f"{name}.nii.gz"
        stored = nibabel.load(path)
        array = np.asarray(stored.dataobj, np.float32)
        stored.header.set_data_dtype(np.float32)
        nibabel.Nifti1Image(array + noise * (array > 0), stored.affine, stored.header).to_filename(path)
    convert(first, tmp_path / "Dataset007_Blobs", to="nnunet", workers=1)
    labels = tmp_path / "Dataset007_Blobs" / "labelsTr"
    assert (labels / "phantom_000.nii.gz").is_symlink()
    assert not (labels / "phantom_001.nii.gz").is_symlink()
    assert read_volume(labels / "phantom_001.nii.gz").array_CZYX.dtype == np.uint8
    assert_same_cases(first, tmp_path / "Dataset007_Blobs")


def test_headers_that_differ_in_the_last_digits_get_one_grid(tmp_path: Path) -> None:
    """Decathlete takes them as equal, nnU-Net would refuse them."""
    source = tmp_path / "Dataset001_Near"
    near = Geometry.from_matrix(SHAPE, GRID.matrix * np.array([[1.0005], [1], [1], [1]]))
    for c, grid in enumerate((GRID, near)):
        image(source / "imagesTr" / f"a_{c:04d}.nii.gz", c, grid=grid)
    label(source / "labelsTr" / "a.nii.gz", 1, grid=near)
    manifest = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "x": 1}, "file_ending": ".nii.gz"}
    (source / "dataset.json").write_text(json.dumps(manifest))
    made = tmp_path / "Dataset002_Near"
    record = convert(source, made, to="nnunet", workers=1)
    assert (record.linked, record.written) == (1, 2)
    grids = {read_grid(p)[1].affine for p in (made / "imagesTr").iterdir()}
    assert grids == {GRID.affine} == {read_grid(made / "labelsTr" / "a.nii.gz")[1].affine}


def test_a_format_is_written_anew_with_suffix(tmp_path: Path) -> None:
    first = phantoms(tmp_path / "Dataset007_Blobs", layout="nnunet", suffix=".nrrd")
    record = convert(first, tmp_path / "nifti", to="decathlon", suffix=".nii.gz", workers=1)
    assert (record.linked, record.written) == (0, 7)
    one, other = read_dataset(first), read_dataset(tmp_path / "nifti")
    for a, b in zip(one.cases, other.cases, strict=True):
        assert np.array_equal(read_channels(a.images).array_CZYX, read_channels(b.images).array_CZYX)
        assert not read_channels(a.images).geometry.differences(read_channels(b.images).geometry)
    assert convert(first, tmp_path / "nrrd", to="decathlon", workers=1).linked == 7


def test_folds_of_nnunet_are_kept(tmp_path: Path) -> None:
    first = phantoms(tmp_path / "Task07_Blobs")
    ids = [f"phantom_{i:03d}" for i in range(3)]
    folds = [{"train": ids[1:], "val": ids[:1]}]
    (first / "splits_final.json").write_text(json.dumps(folds))
    convert(first, tmp_path / "Dataset007_Blobs", to="nnunet", workers=1)
    assert json.loads((tmp_path / "Dataset007_Blobs" / "splits_final.json").read_text()) == folds
    (first / "splits_final.json").write_text(json.dumps([{"train": ids, "val": ["strange", ids[0]]}]))
    with pytest.raises(ManifestError) as caught:
        convert(first, tmp_path / "Dataset008_Blobs", to="nnunet", workers=1)
    assert "not in the dataset: strange" in str(caught.value)
    assert "holds out: phantom_000" in str(caught.value)


def test_what_is_there_is_kept_or_refused(tmp_path: Path) -> None:
    first, second = phantoms(tmp_path / "Task07_Blobs", 2), phantoms(tmp_path / "Task08_Others", seed=5)
    made = tmp_path / "Dataset007_Blobs"
    convert(first, made, to="nnunet", workers=1)
    times = {p: p.stat().st_mtime_ns for p in (made / "imagesTr").iterdir()}
    missing = min(times)
    missing.unlink()
    convert(first, made, to="nnunet", workers=1)  # as if it had been stopped
    again = {p for p, time in times.items() if p.stat().st_mtime_ns != time}
    assert again == {p for p in times if p.name.startswith(missing.name[:12])}  # its case's channels, and no other
    with pytest.raises(OutputError, match="converted from other files"):
        convert(second, made, to="nnunet", workers=1)
    (made / "mine.txt").touch()
    convert(second, made, to="nnunet", workers=1, overwrite=True)
    assert_same_cases(second, made)
    assert (made / "mine.txt").exists()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "imagesTr").mkdir()
    with pytest.raises(OutputError, match="did not create"):
        convert(first, tmp_path / "taken", to="decathlon", overwrite=True, workers=1)


@pytest.mark.parametrize("place", ["Task07_Blobs", "Task07_Blobs/Dataset001_X", "."])
def test_the_source_is_never_written_to(tmp_path: Path, place: str) -> None:
    first = phantoms(tmp_path / "data" / "Task07_Blobs")
    before = contents(first)
    with pytest.raises(OutputError, match="is, contains or is inside of the source"):
        convert(first, tmp_path / "data" / place, to="decathlon", overwrite=True, workers=1)
    assert contents(first) == before


def test_nnunets_names_are_asked_for(tmp_path: Path) -> None:
    first = phantoms(tmp_path / "Task07_Blobs")
    with pytest.raises(OutputError, match="Dataset007_Blobs"):
        convert(first, tmp_path / "blobs", to="nnunet", workers=1)
    (tmp_path / "Dataset007_Other").mkdir()
    with pytest.raises(OutputError, match="same number as Dataset007_Other"):
        convert(first, tmp_path / "Dataset007_Blobs", to="nnunet", workers=1)


def test_every_problem_of_the_files_comes_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    first = phantoms(tmp_path / "Task07_Blobs", 2)
    (first / "imagesTr" / "phantom_000.nii.gz").unlink()
    image(first / "imagesTr" / "phantom_001.nii.gz", 1, n_channels=3, grid=Geometry.plain((10, 12, 9)))
    image(first / "labelsTr" / "phantom_001.nii.gz", 1, n_channels=2)
    (first / "labelsTr" / "phantom_002.nii.gz").write_bytes(b"no image")
    with pytest.raises(DatasetError) as caught:
        convert(first, tmp_path / "Dataset007_Blobs", to="nnunet", workers=1)
    for said in ("phantom_000.nii.gz: does not exist", "has 3 channels, the dataset declares 2", "cannot be read"):
        assert said in str(caught.value)
    assert "share the grid" in str(caught.value)
    assert "contains 2 channels, a label map has one" in str(caught.value)
    assert not (tmp_path / "Dataset007_Blobs").exists()


def test_a_damaged_case_does_not_stop_the_others(tmp_path: Path) -> None:
    first = phantoms(tmp_path / "Task07_Blobs", 2)
    path = first / "imagesTr" / "phantom_001.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-2000])
    made = tmp_path / "Dataset007_Blobs"
    with pytest.raises(CasesFailedError, match="phantom_001"):
        convert(first, made, to="nnunet", workers=1)
    assert not (made / "dataset.json").exists()
    assert len(list((made / "imagesTr").iterdir())) == 4
    assert not list(made.rglob(".partial*"))


def test_mixed_kinds_of_files_need_a_choice(tmp_path: Path) -> None:
    image(tmp_path / "in" / "images" / "a.nii.gz")
    image(tmp_path / "in" / "images" / "b.nrrd")
    for name in "ab":
        label(tmp_path / "in" / "labels" / f"{name}.nii.gz", 1)
    names = FileNames(images=Path("images"), labels=Path("labels"), channels="CT", classes="x")
    with pytest.raises(DatasetError, match=r"3 \.nii\.gz, 1 \.nrrd"):
        convert(tmp_path / "in", tmp_path / "out", to="decathlon", files=names, workers=1)
    record = convert(tmp_path / "in", tmp_path / "out", to="decathlon", files=names, suffix=".nii.gz", workers=1)
    assert (record.linked, record.written) == (3, 1)


def folder_source(root: Path) -> Path:
    for name in ("P1_a", "P2_a", "P2_b"):
        image(root / "scans" / f"{name}_t1.nii.gz", ord(name[1]))
        image(root / "scans" / "deeper" / f"{name}_t2.nii.gz", ord(name[1]) + 100)
        label(root / "truth" / f"{name}_seg.nii.gz", 1, 3)
    for suffix in ("t1", "t2"):
        image(root / "new" / f"P3_{suffix}.nii.gz", 77)
    (root / "scans" / "._P1_a_t1.nii.gz").write_bytes(b"x")
    (root / "scans" / "P1_a_flair.nii.gz").write_bytes(b"not asked for")
    return root


SCANS = FileNames(
    images=Path("scans"),
    labels=Path("truth"),
    test_images=Path("new"),
    channels="T2=_t2,T1=_t1",
    label_suffix="_seg",
    classes="rim=1,core=3",
)


def test_plain_folders_are_matched_by_name(tmp_path: Path) -> None:
    source = folder_source(tmp_path / "in")
    made = tmp_path / "Dataset001_Scans"
    convert(source, made, to="nnunet", files=SCANS, group_by=r"^(P\d)", workers=1)
    spec = read_dataset(made)
    assert [(c.id, c.group) for c in spec.cases] == [("P1_a", "P1"), ("P2_a", "P2"), ("P2_b", "P2")]
    assert [c.id for c in spec.test_cases] == ["P3"]
    assert spec.channels == ("T2", "T1")
    assert spec.cases[0].images[0].readlink().name == "P1_a_t2.nii.gz"
    assert spec.labels.values == (0, 1, 2)  # 3 is 2 now
    assert check(made, workers=1).ok


def test_one_folder_per_case_and_everything_in_one_folder(tmp_path: Path) -> None:
    for case in ("P1", "P2"):
        image(tmp_path / "each" / case / "ct.nii.gz", ord(case[1]))
        label(tmp_path / "each" / case / "mask.nii.gz", 1)
        image(tmp_path / "flat" / f"{case}.nii.gz", ord(case[1]))
        label(tmp_path / "flat" / f"{case}-mask.nii.gz", 1)
        image(tmp_path / "flat" / "test" / f"{case}.nii.gz", ord(case[1]) + 9)
        label(tmp_path / "flat" / "test" / f"{case}-mask.nii.gz", 1)  # not taken for an image
    each = FileNames(images=Path(), channels="CT=ct", label_suffix="mask", classes="x")
    flat = FileNames(images=Path(), test_images=Path("test"), channels="CT", label_suffix="-mask", classes="x")
    for source, names in (("each", each), ("flat", flat)):
        convert(tmp_path / source, tmp_path / f"{source}_out", to="decathlon", files=names, workers=1)
        assert [c.id for c in read_dataset(tmp_path / f"{source}_out").cases] == ["P1", "P2"]
        assert check(tmp_path / f"{source}_out", workers=1).ok
    assert [c.id for c in read_dataset(tmp_path / "flat_out").test_cases] == ["P1", "P2"]


def test_classes_are_found_where_they_are_not_named(tmp_path: Path) -> None:
    image(tmp_path / "in" / "a_0000.nii.gz")
    label(tmp_path / "in" / "truth" / "a.nii.gz", 2, 5)
    names = FileNames(images=Path(), labels=Path("truth"), channels="CT")
    convert(tmp_path / "in", tmp_path / "out", to="decathlon", files=names, workers=1)
    named = [(c.name, c.value) for c in read_dataset(tmp_path / "out").labels.classes]
    assert named == [("background", 0), ("label 2", 2), ("label 5", 5)]


def test_every_problem_of_folders_comes_at_once(tmp_path: Path) -> None:
    source = folder_source(tmp_path / "in")
    (source / "truth" / "P1_a_seg.nii.gz").rename(source / "truth" / "P9_seg.nii.gz")
    (source / "scans" / "deeper" / "P2_a_t2.nii.gz").unlink()
    image(source / "scans" / "twice" / "P2_b_t1.nii.gz")
    with pytest.raises(DatasetError) as caught:
        convert(source, tmp_path / "out", to="decathlon", files=SCANS, workers=1)
    for said in ("has no label map", "P9_seg.nii.gz has no image", "P2_a has 0 files of channel T2"):
        assert said in str(caught.value)
    assert "P2_b has 2 files of channel T1" in str(caught.value)


def write_table(root: Path, *lines: str, folder: str = "") -> Path:
    for name in ("a", "b", "c"):
        image(root / f"{name}.nii.gz", ord(name))
        image(root / f"{name}_pet.nii.gz", ord(name) + 100)
        label(root / f"{name}_truth.nii.gz", 1)
    (root / "cases.csv").write_text("\n".join(lines))
    return root / "cases.csv"


def test_a_table_names_files_groups_and_folds(tmp_path: Path) -> None:
    rows = [
        "case;CT;PET;label;Group;split",
        f"one; a.nii.gz;{tmp_path / 'in' / 'a_pet.nii.gz'};a_truth.nii.gz;P1;0",
        "two;b.nii.gz;b_pet.nii.gz;b_truth.nii.gz;P2;1",
        "new;c.nii.gz;c_pet.nii.gz;;;test",
    ]
    table = write_table(tmp_path / "in", *rows)
    made = tmp_path / "in" / "Dataset001_Table"  # beside its files: none of them is a folder of a dataset
    convert(table, made, to="nnunet", files=FileNames(classes="x"), workers=1)
    spec = read_dataset(made)
    assert (spec.channels, spec.labels.values) == (("CT", "PET"), (0, 1))
    assert [(c.id, c.group) for c in spec.cases] == [("one", "P1"), ("two", "P2")]
    assert [c.id for c in spec.test_cases] == ["new"]
    assert json.loads((made / "splits_final.json").read_text()) == [
        {"train": ["two"], "val": ["one"]},
        {"train": ["one"], "val": ["two"]},
    ]
    assert check(made, workers=1).ok


def test_a_table_of_single_images(tmp_path: Path) -> None:
    table = write_table(tmp_path / "in", "image,label", "a.nii.gz,a_truth.nii.gz", "b.nii.gz,b_truth.nii.gz")
    with pytest.raises(OptionError, match="channels of its images"):
        convert(table, tmp_path / "out", to="decathlon", workers=1)
    convert(table, tmp_path / "out", to="decathlon", files=FileNames(channels="CT"), workers=1)
    spec = read_dataset(tmp_path / "out")
    assert ([c.id for c in spec.cases], spec.channels) == (["a", "b"], ("CT",))


def test_every_problem_of_a_table_comes_at_once(tmp_path: Path) -> None:
    rows = ["case,CT,label,split", "x,a.nii.gz,,", "x,,a_truth.nii.gz,", "../y,b.nii.gz,b_truth.nii.gz,often"]
    with pytest.raises(DatasetError) as caught:
        convert(write_table(tmp_path, *rows), tmp_path / "out", to="decathlon", workers=1)
    for said in ("2 training cases are called 'x'", "line 2: case x has no label", "line 3: no file for 'CT'"):
        assert said in str(caught.value)
    assert "line 4: split 'often'" in str(caught.value)
    assert "'../y' cannot be" in str(caught.value)
    with pytest.raises(DatasetError, match="no column 'label'"):
        convert(write_table(tmp_path, "case,CT", "x,a.nii.gz"), tmp_path / "out", to="decathlon", workers=1)


def test_lines_of_a_table_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    rows = ["case,CT,label", "", "x,a.nii.gz,a_truth.nii.gz", "", "y,,b_truth.nii.gz"]
    with pytest.raises(DatasetError, match="line 5: no file for 'CT'"):
        convert(write_table(tmp_path, *rows), tmp_path / "out", to="decathlon", workers=1)


def test_columns_with_other_names_are_not_ignored(tmp_path: Path) -> None:
    rows = ["case,image,label,patient,fold", "a,a.nii.gz,a_truth.nii.gz,P1,0", "b,b.nii.gz,b_truth.nii.gz,P2,1"]
    with pytest.raises(DatasetError) as caught:
        convert(write_table(tmp_path, *rows), tmp_path / "out", to="decathlon", workers=1)
    assert "column 'patient' is not known: call it 'group'" in str(caught.value)
    assert "column 'fold' is not known: call it 'split'" in str(caught.value)


def test_columns_without_a_meaning_are_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = ["case,image,label,age", "a,a.nii.gz,a_truth.nii.gz,61", "b,b.nii.gz,b_truth.nii.gz,62"]
    files = FileNames(channels="CT")
    convert(write_table(tmp_path, *rows), tmp_path / "out", to="decathlon", files=files, workers=1)
    assert "not used: age (columns without a meaning here)" in caplog.text


def test_cells_without_a_column_are_told(tmp_path: Path) -> None:
    rows = ["case,CT,label", "a,a.nii.gz,a_truth.nii.gz,,", "b,b.nii.gz,b_truth.nii.gz,P2"]
    with pytest.raises(DatasetError, match="line 3: 4 cells, but 3 columns") as caught:
        convert(write_table(tmp_path, *rows), tmp_path / "out", to="decathlon", workers=1)
    assert "line 2" not in str(caught.value)


def test_a_quotation_mark_without_its_fellow_is_told(tmp_path: Path) -> None:
    rows = ["case,CT,label", '"x,a.nii.gz,a_truth.nii.gz', *["y,b.nii.gz,b_truth.nii.gz"] * 8000]
    with pytest.raises(DatasetError, match=r"is not a table: line \d+: field larger than field limit"):
        convert(write_table(tmp_path, *rows), tmp_path / "out", to="decathlon", workers=1)


def test_a_table_of_files_that_would_be_replaced_is_refused(tmp_path: Path) -> None:
    first = phantoms(tmp_path / "Task07_Blobs")
    made = tmp_path / "made"
    convert(first, made, to="decathlon", copy=True, workers=1)
    before = contents(made)
    name = next((made / "imagesTr").iterdir()).name
    (tmp_path / "some.csv").write_text(f"case,CT,label\nx,made/imagesTr/{name},made/labelsTr/{name}\n")
    with pytest.raises(OutputError, match="contains the source file"):
        convert(tmp_path / "some.csv", made, to="decathlon", copy=True, overwrite=True, workers=1)
    assert contents(made) == before


def test_values_that_the_classes_do_not_name_are_told(tmp_path: Path) -> None:
    """A mask of 0 and 255, where the first class has the value 1."""
    image(tmp_path / "in" / "i" / "a.nii.gz")
    write_label(tmp_path / "in" / "l" / "a.nii.gz", np.full(GRID.shape_ZYX, 255), GRID)
    names = FileNames(images=Path("i"), labels=Path("l"), channels="CT", classes="tumour")
    with pytest.raises(CasesFailedError, match=r"not declared: 255\n.*--classes NAME=VALUE"):
        convert(tmp_path / "in", tmp_path / "out", to="decathlon", files=names, workers=1)
    convert(tmp_path / "in", tmp_path / "out2", to="decathlon", files=replace(names, classes="tumour=255"), workers=1)


@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        (("a", "a_mask"), "--label-suffix _mask"),
        (("a_img", "a"), "--channels NAME=_img"),
        (("img1", "lab1"), "the same name, or list the files in a table"),
    ],
)
def test_names_that_do_not_match_have_a_remedy(tmp_path: Path, names: tuple[str, str], remedy: str) -> None:
    image(tmp_path / "i" / f"{names[0]}.nii.gz")
    label(tmp_path / "l" / f"{names[1]}.nii.gz", 1)
    files = FileNames(images=Path("i"), labels=Path("l"), channels="CT", classes="x")
    with pytest.raises(DatasetError, match=remedy):
        convert(tmp_path, tmp_path.with_name("out"), to="decathlon", files=files, workers=1)


def test_masks_with_smoothed_edges_are_no_classes(tmp_path: Path) -> None:
    def labels_of(*values: int) -> tuple[int, ...]:
        row = np.array([*values, 0], np.uint8)
        write_label(tmp_path / "a.png", np.tile(row, (3, 1))[None], Geometry.pixels((1, 3, len(row))))
        case = Case(id="a", images=(tmp_path / "i.png",), label=tmp_path / "a.png")
        return find_labels(None, [case], workers=1, where=tmp_path).values

    with pytest.raises(DatasetError, match=r"smoothed edges\n.*--classes NAME=VALUE"):
        labels_of(255, 3, 80, 190)
    assert labels_of(255) == (0, 255)
    assert labels_of(1, 2, 3, 255) == (0, 1, 2, 3, 255), "255 often means ignored"
    assert labels_of(10, 200) == (0, 10, 200)


def test_values_that_are_no_classes_are_told(tmp_path: Path) -> None:
    image(tmp_path / "in" / "a.nii.gz")
    write_label(tmp_path / "in" / "a_seg.nii.gz", np.full(GRID.shape_ZYX, -3, np.int16), GRID)
    names = FileNames(images=Path(), channels="CT=a", label_suffix="a_seg")
    with pytest.raises(DatasetError, match="background with value 0"):
        convert(tmp_path / "in", tmp_path / "out", to="decathlon", files=names, workers=1)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (FileNames(channels="CT"), "are for plain folders"),
        (FileNames(images=Path("imagesTr")), "channels of the images"),
        (FileNames(images=Path("imagesTr"), channels="CT,CT=x"), "not a list of different channels"),
        (FileNames(images=Path("imagesTr"), channels="CT"), "in one folder with the same names"),
        (FileNames(images=Path("imagesTr"), labels=Path("none"), channels="CT"), "there is no folder"),
        (FileNames(images=Path("imagesTr"), labels=Path("labelsTr"), channels="CT", classes="a,a"), "different names"),
        (FileNames(images=Path("imagesTr"), labels=Path("labelsTr"), channels="CT", classes="a=1,b=1"), "distinct"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, names: FileNames, said: str) -> None:
    first = phantoms(tmp_path / "Task07_Blobs")
    with pytest.raises(DecathleteError, match=said):
        convert(first, tmp_path / "out", to="decathlon", files=names, workers=1)
    assert not (tmp_path / "out").exists()


def test_channels_are_read_in_their_order() -> None:
    assert parse_channels("CT, PET") == {"CT": None, "PET": None}
    assert parse_channels("T1=_t1,T2=_t2") == {"T1": "_t1", "T2": "_t2"}


def test_what_nnunet_cannot_declare_is_refused(tmp_path: Path) -> None:
    first = phantoms(tmp_path / "Task07_Blobs")
    declared(first, regions={"inner": [2]}, regions_class_order=[2])
    with pytest.raises(DatasetError) as caught:
        convert(first, tmp_path / "Dataset007_Blobs", to="nnunet", workers=1)
    assert "several values" in str(caught.value)
    assert "value 1 (blob 1) belongs to no region" in str(caught.value)


def test_the_command_says_what_it_made(tmp_path: Path) -> None:
    source = folder_source(tmp_path / "in")
    made = tmp_path / "Dataset001_Scans"
    given = f"convert {source} --to nnunet --output {made} --images scans --labels truth --test-images new --workers 1"
    how = "--channels T2=_t2,T1=_t1 --label-suffix _seg --classes rim=1,core=3 --regions all=1,3;core=3"
    said = CliRunner().invoke(app, [*given.split(), *how.split()]).output
    assert "8 files linked, 3 written" in said
    assert "3 is now 2" in said
    assert [r.values for r in read_dataset(made).labels.regions] == [(1, 2), (2,)]


def test_settings_of_an_image_format_reach_the_files_and_are_noticed(tmp_path: Path) -> None:
    source, target = phantoms(tmp_path / "Task07_Blobs"), tmp_path / "Dataset007_Blobs"
    image_formats = {"mha": {}}
    with pytest.raises(OptionError, match="mha have no effect: no file is written in it"):
        convert(source, target, to="nnunet", workers=1, image_formats=image_formats)  # all files become links
    assert list(target.glob("*")) == []
    first = convert(source, tmp_path / "mha", to="decathlon", suffix=".mha", workers=1)
    again = convert(
        source, tmp_path / "mha", to="decathlon", suffix=".mha", workers=1, image_formats={"mha": {}}
    )  # no setting differs from the defaults
    assert again == first
    smallest = {"nifti": {"compression_level": 9}}
    sizes = {}
    for name, chosen in (("fast", None), ("small", smallest)):
        made = tmp_path / name
        convert(tmp_path / "mha", made, to="decathlon", suffix=".nii.gz", workers=1, image_formats=chosen)
        sizes[name] = sum(path.stat().st_size for path in (made / "labelsTr").iterdir())
    assert sizes["small"] < sizes["fast"]
    assert_same_cases(tmp_path / "fast", tmp_path / "small")
    with pytest.raises(OutputError, match="with other settings"):
        convert(tmp_path / "mha", tmp_path / "small", to="decathlon", suffix=".nii.gz", workers=1)


def test_settings_of_an_image_format_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[dict[str, Any]] = []

    def listen(*positional: Any, **given: Any) -> None:
        heard.append(given)
        raise OptionError("enough")

    monkeypatch.setattr("decathlete.workflows.convert.convert", listen)
    arguments = ["convert", "source", "--to", "decathlon", "--output", "new"]
    (tmp_path / "c.yaml").write_text("image_format: {nifti: {compression_level: 9}}\nnetwork: {negative_slope: 0.2}\n")
    for given in (["--set", "image_format.nifti.compression_level=9"], ["--config", str(tmp_path / "c.yaml")]):
        assert str(CliRunner().invoke(app, [*arguments, *given]).exception) == "enough"
    assert [given["image_formats"] for given in heard] == [{"nifti": {"compression_level": 9}}] * 2
    problem = CliRunner().invoke(app, [*arguments, "--set", "engine.threads=2"]).exception
    assert "this command has no such setting" in str(problem)


@pytest.mark.parametrize("n_channels", [1, 3])
def test_grey_pictures_that_were_saved_as_rgb_are_converted_as_they_are_read(tmp_path: Path, n_channels: int) -> None:
    source = tmp_path / "pictures"
    for number, as_rgb in enumerate((False, True)):
        grey = np.random.default_rng(number).integers(0, 256, (8, 9), np.uint8)
        for folder, pixels in (("imagesTr", grey), ("labelsTr", grey // 128)):
            name = f"p{number}_0000.png" if folder == "imagesTr" else f"p{number}.png"
            (source / folder).mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(np.dstack([pixels] * 3) if as_rgb else pixels).save(source / folder / name)
    channels = {str(number): f"c{number}" for number in range(n_channels)}
    content = {"channel_names": channels, "labels": {"background": 0, "cell": 1}, "file_ending": ".png"}
    (source / "dataset.json").write_text(json.dumps(content))
    assert check(source, workers=1, n_folds=2).ok
    for to, name in (("decathlon", "out"), ("nnunet", "Dataset001_Out")):
        convert(source, tmp_path / name, to=to, workers=1)
        before, after = read_dataset(source).cases, read_dataset(tmp_path / name).cases
        for old, new in zip(before, after, strict=True):
            assert sum(read_grid(path)[0] for path in new.images) == n_channels
            read = [read_channels(case.images, n_channels=n_channels).array_CZYX for case in (old, new)]
            assert np.array_equal(*read)
            assert new.label is not None
            assert read_grid(new.label)[0] == 1
            assert np.array_equal(read_label(new.label).array_ZYX, read_label(old.label).array_ZYX)


def test_a_column_that_is_no_channel_is_named(tmp_path: Path) -> None:
    image(tmp_path / "a.nii.gz")
    rows = ["case,t1,label,age", "x,a.nii.gz,a_truth.nii.gz,63", "y,a.nii.gz,a_truth.nii.gz,70"]
    with pytest.raises(DatasetError, match=r"column 'age' is taken for a channel.* --channels t1"):
        convert(write_table(tmp_path, *rows), tmp_path / "out", to="decathlon", workers=1)


def test_equal_names_of_images_in_a_table_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for patient in ("P0", "P1"):
        image(tmp_path / patient / "image.nii.gz", ord(patient[1]))
        label(tmp_path / patient / "label.nii.gz", 1)
    rows = ["image,label", *(f"{p}/image.nii.gz,{p}/label.nii.gz" for p in ("P0", "P1"))]
    table = write_table(tmp_path, *rows, "a.nii.gz,a_truth.nii.gz")
    convert(table, tmp_path / "out", to="decathlon", files=FileNames(channels="MRI"), workers=1)
    assert [case.id for case in read_dataset(tmp_path / "out").cases] == ["P0_image", "P1_image", "a"]
