"""Both layouts, their labels and groups; every problem of a manifest in one message."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from decathlete.dataset.find_dataset import resolve_task
from decathlete.dataset.given_splits import find_given_splits
from decathlete.dataset.groups import assign_groups
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.split_cases import split_cases
from decathlete.dataset.split_options import SplitOptions
from decathlete.errors import DatasetError, ManifestError, OptionError
from decathlete.synthetic.phantoms import make_phantoms

DECATHLON = {
    "name": "Livers",
    "modality": {"0": "FLAIR", "1": "T1"},
    "labels": {"0": "background", "2": "tumour", "1": "liver"},
    "training": [{"image": f"./imagesTr/{i}.nii.gz", "label": f"./labelsTr/{i}.nii.gz"} for i in "ab"],
    "test": ["./imagesTs/c.nii.gz"],
}
NNUNET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nrrd"}


def written(folder: Path, manifest: dict, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(manifest))
    return folder


def test_decathlon(tmp_path: Path) -> None:
    spec = read_dataset(written(tmp_path / "Task03_Liver", DECATHLON))
    assert (spec.name, spec.layout, spec.channels) == ("Task03_Liver", "decathlon", ("FLAIR", "T1"))
    assert [(c.name, c.value) for c in spec.labels.classes] == [("background", 0), ("liver", 1), ("tumour", 2)]
    assert [c.id for c in spec.cases] == ["a", "b"]
    assert spec.cases[0].images == (spec.root / "imagesTr" / "a.nii.gz",)
    assert spec.cases[0].label == spec.root / "labelsTr" / "a.nii.gz"
    assert [(c.id, c.label) for c in spec.test_cases] == [("c", None)]
    assert spec.digest()  # files need not exist


def test_nnunet_finds_channels_and_what_is_missing(tmp_path: Path) -> None:
    files = [
        "imagesTr/a_0000.nrrd",
        "imagesTr/a_0001.nrrd",
        "imagesTr/b_0000.nrrd",
        "labelsTr/a.nrrd",
        "labelsTr/d.nrrd",
    ]
    two = NNUNET | {"channel_names": {"0": "CT", "1": "PET"}}
    spec = read_dataset(written(tmp_path, two, *files, "imagesTs/t_0000.nrrd", "imagesTs/t_0001.nrrd"))
    assert {c.id: [p.name for p in c.images] for c in spec.cases} == {
        "a": ["a_0000.nrrd", "a_0001.nrrd"],
        "b": ["b_0000.nrrd", "b_0001.nrrd"],
        "d": ["d_0000.nrrd", "d_0001.nrrd"],
    }
    assert [c.id for c in spec.test_cases] == ["t"]
    assert spec.test_cases[0].label is None


def test_nnunet_channels_that_are_not_numbered_from_0_belong_to_the_case_of_the_label(tmp_path: Path) -> None:
    files = ("imagesTr/a_0001.nrrd", "labelsTr/a.nrrd", "imagesTr/word_0002.nrrd", "labelsTr/word_0002.nrrd")
    spec = read_dataset(written(tmp_path, NNUNET, *files))
    assert {c.id: [p.name for p in c.images] for c in spec.cases} == {
        "a": ["a_0000.nrrd", "a_0001.nrrd"],
        "word_0002": ["word_0002_0000.nrrd"],
    }


def test_nnunet_files_with_a_label_each_are_cases(tmp_path: Path) -> None:
    files = [f"{part}/word_{k:04d}.nrrd" for k in range(3) for part in ("imagesTr", "labelsTr")]
    spec = read_dataset(written(tmp_path, NNUNET, *files))
    assert [c.id for c in spec.cases] == ["word_0000", "word_0001", "word_0002"]
    assert [p.name for p in spec.cases[1].images] == ["word_0001_0000.nrrd"]


def test_nnunet_labels_with_the_number_of_a_channel_are_no_cases(tmp_path: Path) -> None:
    spec = read_dataset(written(tmp_path, NNUNET, "imagesTr/a1_0000.nrrd", "labelsTr/a1_0000.nrrd"))
    assert [(c.id, c.label and c.label.name) for c in spec.cases] == [("a1", "a1.nrrd")]


def test_without_images_the_content_of_the_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"in imagesTr, which contains a_0000\.NRRD"):
        read_dataset(written(tmp_path / "a", NNUNET, "imagesTr/a_0000.NRRD"))
    with pytest.raises(ManifestError, match="in imagesTr, which does not exist"):
        read_dataset(written(tmp_path / "b", NNUNET))


def test_the_dataset_around_or_below_a_path_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "Task01_A", NNUNET, "imagesTr/a_0000.nrrd")
    for inside in (folder / "dataset.json", folder / "imagesTr" / "a_0000.nrrd"):
        with pytest.raises(DatasetError, match="is a file") as caught:
            resolve_task(str(inside), tmp_path / "data")
        assert f"({folder})" in str(caught.value)
    for path, named in ((folder / "imagesTr", str(folder)), (tmp_path, "has Task01_A")):
        with pytest.raises(ManifestError, match="does not exist") as other:
            read_dataset(path)
        assert named in str(other.value)


def test_nnunet_keeps_a_channel_too_many_for_the_check(tmp_path: Path) -> None:
    spec = read_dataset(written(tmp_path, NNUNET, "imagesTr/a_0000.nrrd", "imagesTr/a_0001.nrrd"))
    assert len(spec.cases[0].images) == 2


def test_nnunet_regions_and_ignore(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    manifest = NNUNET | {"labels": labels, "regions_class_order": [1, 2, 3]}
    found = read_dataset(written(tmp_path, manifest, "imagesTr/a_0000.nrrd")).labels
    assert [(r.name, r.values) for r in found.regions] == [("whole", (1, 2, 3)), ("core", (2, 3)), ("enhancing", (3,))]
    assert found.region_order == (1, 2, 3)
    assert found.values == (0, 1, 2, 3)
    assert found.classes[3].name == "enhancing"
    assert found.ignore == 4
    assert found.n_outputs == 3


def test_regions_beside_the_decathlons_labels(tmp_path: Path) -> None:
    """Their names may be those of classes, or other names for a single value: classes stay what they are."""
    names = {"0": "background", "1": "edema", "2": "core", "3": "enhancing"}
    regions = {"whole": [1, 2, 3], "core": [2, 3], "ET": 3}
    manifest = DECATHLON | {"labels": names, "regions": regions, "regions_class_order": [1, 2, 3]}
    found = read_dataset(written(tmp_path, manifest)).labels
    assert [(c.name, c.value) for c in found.classes] == [(n, int(v)) for v, n in names.items()]
    assert [(r.name, r.values) for r in found.regions] == [("whole", (1, 2, 3)), ("core", (2, 3)), ("ET", (3,))]
    assert found.region_order == (1, 2, 3)


REGIONAL = NNUNET | {"labels": {"background": 0, "whole": [1, 2], "core": 2}}


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (REGIONAL | {"regions_class_order": [2, 2]}, r"1 \(in whole\) would be written as 2 \(in whole, core\)"),
        (REGIONAL | {"regions_class_order": [1, 1]}, "'core' would be written as 1, which does not belong to it"),
        (REGIONAL | {"regions_class_order": [1]}, "regions_class_order needs 2 values"),
        (NNUNET | {"labels": {"background": 0, "all": [0, 1]}, "regions_class_order": [1]}, "contains the background"),
        (REGIONAL | {"regions_class_order": [1, 2], "regions": {"core": 2}}, "both in 'labels' and in 'regions'"),
        (DECATHLON | {"regions": {"all": [1, 5]}, "regions_class_order": [1]}, "not declared: 5"),
        (DECATHLON | {"regions": {"all": "x"}, "regions_class_order": [1]}, r"regions\.all must be an integer"),
    ],
)
def test_regions_that_contradict_themselves_are_refused(tmp_path: Path, manifest, message) -> None:
    with pytest.raises(ManifestError, match=message):
        read_dataset(written(tmp_path, manifest, "imagesTr/a_0000.nrrd"))


@pytest.mark.parametrize("part", ["training", "test"])
def test_a_case_without_images_is_refused(tmp_path: Path, part) -> None:
    case = {"image": [], "label": "l/a.nii"}
    with pytest.raises(ManifestError, match=rf"{part}.0"):
        read_dataset(written(tmp_path, DECATHLON | {part: [case]}))


def test_nnunet_listed_files(tmp_path: Path) -> None:
    listed = {"p1": {"images": ["raw/x.nrrd"], "label": "seg/x.nrrd"}}
    spec = read_dataset(written(tmp_path, NNUNET | {"dataset": listed}))
    assert spec.cases[0].id == "p1"
    assert spec.cases[0].images == (tmp_path / "raw" / "x.nrrd",)


def test_groups_by_name_by_pattern_and_declared(tmp_path: Path) -> None:
    training = [{"image": f"i/P{p}_{k}.nii.gz", "label": f"l/P{p}_{k}.nii.gz"} for p in (1, 2) for k in (1, 2)]
    root = written(tmp_path, DECATHLON | {"training": training})
    assert {c.group for c in read_dataset(root).cases} == {None}
    assert [c.group for c in read_dataset(root, group_by=r"^(P\d)").cases] == ["P1", "P1", "P2", "P2"]
    written(tmp_path, DECATHLON | {"training": training, "groups": {"P1_1": "x", "P2_1": "x"}})
    spec = read_dataset(root)
    assert [c.group for c in spec.cases] == ["x", None, "x", None]
    assert "P1_2, P2_2" in spec.unused[0], "cases without a group are named"


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a.nii.gz": "P", "b.nii.gz": "P"}, "no case 'b.nii.gz': is it 'b'?"),
        ({"P": "a"}, "write the case before its patient, {'a': 'P'}"),
        ({"a": "P", "d": "P"}, "no case 'd'"),
    ],
)
def test_groups_of_unknown_cases_are_refused_because_patients_would_be_split(tmp_path: Path, groups, message) -> None:
    root = written(tmp_path, DECATHLON | {"groups": groups})
    with pytest.raises(ManifestError) as caught:
        read_dataset(root)
    assert message in str(caught.value)
    assert read_dataset(root, group_by="(.)").groups_from == "option", "the option replaces the list"
    assert read_dataset(written(tmp_path, DECATHLON | {"groups": {"a": "P", "c": "P"}})), "test images may be listed"


@pytest.mark.parametrize(
    ("case_id", "group"),
    [
        ("patient001_frame01", "patient001"),
        ("sub-03_ses-2_T1w", "sub-03"),
        ("P7_visit1", "P7"),
        ("case12-tp3", "case12"),
        ("a_b_scan02", "a_b"),
    ],
)
def test_repeated_patients_are_known_by_name(case_id, group) -> None:
    groups = assign_groups([case_id, f"{group}_scan99"])
    assert (groups.of[case_id], groups.source) == (group, "names")
    assert assign_groups([case_id, "unlike"]).of == {}, "a single image of a patient needs no group"


@pytest.mark.parametrize("pattern", ["(", "P", "(P)(1)", "^(Q)"])
def test_bad_patterns_are_refused(tmp_path: Path, pattern) -> None:
    with pytest.raises(OptionError):
        read_dataset(written(tmp_path, DECATHLON), group_by=pattern)


@pytest.mark.parametrize(
    ("manifest", "messages"),
    [
        ({}, ["neither 'training'"]),
        ({"training": []}, ["labels", "modality", "training"]),
        (
            DECATHLON | {"modality": {"1": "CT"}, "labels": {"1": "x"}},
            ["modality must number", "background with value 0"],
        ),
        (DECATHLON | {"labels": {"0": "bg", "1": "a", "2": "a"}}, ["two classes are called 'a'"]),
        (DECATHLON | {"labels": {"bg": 0, "a": 1, "b": 1}}, ["'a' and 'b' have the same value 1"]),
        (DECATHLON | {"labels": ["bg", "a"]}, ['labels: it must list names and values, as in {"background": 0']),
        (DECATHLON | {"modality": "CT"}, ['modality: it must name the channels by their numbers, as in {"0": "T1"']),
        (NNUNET | {"channel_names": {"R": 0, "G": 1}}, ["channel_names: it must name the channels by their numbers"]),
        (DECATHLON | {"training": ["imagesTr/a.nii.gz"]}, ['training.0: a case is listed as {"image": "imagesTr/']),
        (DECATHLON | {"training": [{"image": [], "label": "x"}]}, ["training.0.image: it must be a file, or a list"]),
        (DECATHLON | {"labels": {"bg": 0, "a": 1.5}}, ["must be an integer"]),
        (
            DECATHLON | {"labels": {"bg": 0, " ": 1}, "modality": {"0": ""}},
            ["class of value 1 has no name", "channel 0 has no name"],
        ),
        (DECATHLON | {"training": DECATHLON["training"] * 2}, ["called 'a'", "called 'b'"]),
        (DECATHLON | {"training": [{"image": "x"}]}, ["training.0.label"]),
        (NNUNET, ["no images"]),
        (NNUNET | {"file_ending": ".txt"}, ["file_ending"]),
        (NNUNET | {"file_ending": "nii.gz"}, ["file_ending 'nii.gz'", ": write '.nii.gz'"]),
        (NNUNET | {"labels": {"background": 0, "a": [1, 2]}}, ["regions_class_order"]),
    ],
)
def test_all_problems_of_a_manifest_come_together(tmp_path: Path, manifest, messages) -> None:
    root = written(tmp_path / "d", manifest)
    with pytest.raises(ManifestError) as caught:
        read_dataset(root)
    for message in messages:
        assert message in str(caught.value)
    assert caught.value.remedy
    assert caught.value.where == root / "dataset.json"


def test_broken_and_missing_manifests(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"name": \n "x",,}')
    with pytest.raises(ManifestError, match="line 2"):
        read_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(ManifestError, match="object"):
        read_dataset(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="does not exist"):
        read_dataset(tmp_path / "empty")
    with pytest.raises(ManifestError, match="not a folder"):
        read_dataset(tmp_path / "none")


def test_a_manifest_under_another_name_is_to_be_renamed(tmp_path: Path) -> None:
    (tmp_path / "dataset.json.txt").write_text("{}")  # Windows hides the last ending
    with pytest.raises(ManifestError, match=r"rename dataset\.json\.txt to dataset\.json"):
        read_dataset(tmp_path)


def test_a_file_that_is_named_like_a_number_hides_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    written(tmp_path / "data" / "Task04_Hippocampus", DECATHLON)
    (tmp_path / "4").touch()
    monkeypatch.chdir(tmp_path)
    assert resolve_task("4", Path("data")) == Path("data", "Task04_Hippocampus")


def test_tasks_by_number_name_and_path(tmp_path: Path) -> None:
    for name in ("Task04_Hippocampus", "Dataset027_ACDC", "Task05_A", "Dataset005_B", "Mine"):
        written(tmp_path / name, DECATHLON)
    assert resolve_task("4", tmp_path) == resolve_task("04", tmp_path) == tmp_path / "Task04_Hippocampus"
    assert resolve_task("27", tmp_path) == tmp_path / "Dataset027_ACDC"
    assert resolve_task("Mine", tmp_path) == tmp_path / "Mine"
    assert resolve_task(str(tmp_path / "Mine"), Path("nowhere")) == tmp_path / "Mine"
    with pytest.raises(DatasetError, match=r"Dataset005_B, Task05_A"):
        resolve_task("5", tmp_path)
    for unknown in ("6", "Unknown"):
        with pytest.raises(DatasetError, match="Task04_Hippocampus"):
            resolve_task(unknown, tmp_path)
    with pytest.raises(DatasetError, match="no dataset in it"):
        resolve_task("4", tmp_path / "none")


@pytest.mark.parametrize("layout", ["decathlon", "nnunet"])
def test_phantoms_read_back(tmp_path: Path, layout) -> None:
    root = make_phantoms(tmp_path, n_cases=4, n_test=1, n_channels=2, layout=layout, cases_per_patient=2)
    spec = read_dataset(root)
    assert (spec.layout, len(spec.cases), len(spec.test_cases), len(spec.channels)) == (layout, 4, 1, 2)
    assert [c.group for c in spec.cases] == ["patient001", "patient001", "patient002", "patient002"]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "cases", "groups", "values"),
    [
        ("Task04_Hippocampus", 208, 0, (0, 1, 2)),
        ("ACDC", 40, 20, (0, 1, 2, 3)),
        ("STS_PETCT", 9, 0, (0, 1)),
        ("BRATS2013_FLAIR_T1c", 6, 0, (0, 1, 2, 3, 4)),
    ],
)
def test_real_manifests(real_data, name, cases, groups, values) -> None:
    spec = read_dataset(real_data(name))
    assert len(spec.cases) == cases
    assert len({c.group for c in spec.cases} - {None}) == groups
    assert spec.labels.values == values
    assert spec.labels.regions == ()


def listed(*files: str, folds: tuple[object, ...] = ()) -> list[dict]:
    entries = [{"image": file, "label": f"labels/{n}.nii.gz"} for n, file in enumerate(files)]
    return [
        entry | ({"fold": fold} if fold is not None else {})
        for entry, fold in zip(entries, folds or [None] * 9, strict=False)
    ]


def test_a_fold_that_names_a_part_twice_is_rejected(tmp_path: Path) -> None:
    manifest = DECATHLON | {"training": listed("a.nii.gz", "b.nii.gz", "d.nii.gz")}
    text = '[{"train": ["a"], "val": ["b"], "val": ["d"]}]'
    written(tmp_path, manifest).joinpath("splits_final.json").write_text(text)
    with pytest.raises(ManifestError, match=r"one object has the name 'val' twice") as caught:
        find_given_splits(read_dataset(tmp_path))
    assert caught.value.code == "E-DATASET-SPLITS"


def test_folds_and_test_images_of_monais_data_lists_are_used(tmp_path: Path) -> None:
    training = listed("a.nii.gz", "b.nii.gz", "d.nii.gz", folds=(0, 1, None))
    testing = ["./imagesTs/c.nii.gz", {"image": "e.nii.gz", "label": "e_label.nii.gz"}]
    validation = listed("v.nii.gz")
    manifest = DECATHLON | {"training": training, "testing": testing, "validation": validation}
    spec = read_dataset(written(tmp_path, manifest))
    assert [case.id for case in spec.test_cases] == ["c", "e"], "each once"
    splits = find_given_splits(spec)
    assert splits is not None
    assert splits.source == "'fold' in dataset.json"
    assert [(fold.train, fold.val) for fold in splits.folds] == [(("b", "d"), ("a",)), (("a", "d"), ("b",))]
    choice = split_cases(spec, SplitOptions(), {})
    assert any("'validation' in dataset.json is not used" in note for note in choice.notes)
    written(tmp_path, manifest).joinpath("splits_final.json").write_text('[{"train": ["a"], "val": ["b"]}]')
    choice = split_cases(spec, SplitOptions(), {})
    assert choice.splits.source == "splits_final.json"
    assert any("'fold' in dataset.json is not used" in note for note in choice.notes)


@pytest.mark.parametrize(("folds", "reason"), [((1, 2), "it has 1, 2"), ((0, "x"), "it has 0, 'x'"), ((0, 0), "same")])
def test_folds_that_cannot_be_used_are_listed(tmp_path: Path, folds, reason) -> None:
    training = listed("a.nii.gz", "b.nii.gz", folds=folds)
    spec = read_dataset(written(tmp_path, DECATHLON | {"training": training}))
    assert find_given_splits(spec) is None
    assert reason in spec.unused[0]


def test_unknown_fields_and_folds_that_are_not_read_are_listed(tmp_path: Path) -> None:
    root = written(tmp_path, DECATHLON | {"Groups": {}, "region_class_order": [1], "cohort": "x", "licence": "y"})
    for name in ("splits_final.pkl", "splits.json", "splitting.md"):
        (root / name).touch()
    assert [line.partition(": ")[2] for line in read_dataset(root).unused] == [
        "it is not a known field; is it 'groups'?",
        "it is not a known field; is it 'regions_class_order'?",
        "it is not a known field",
        "folds are those of splits_final.json, or of --splits FILE",
        "it may contain code; write the folds to splits_final.json",
    ]
    (root / "splits_final.json").touch()
    assert not any("split" in line for line in read_dataset(root).unused)


def test_images_of_equal_names_are_named_by_their_folders(tmp_path: Path) -> None:
    training = listed("P0/image.nii.gz", "./P1/image.nii.gz", "P2/t1.nii.gz")
    manifest = DECATHLON | {"training": training, "validation": listed("P3/image.nii.gz"), "test": ["P3/image.nii.gz"]}
    spec = read_dataset(written(tmp_path, manifest))
    assert [case.id for case in spec.cases] == ["P0_image", "P1_image", "t1", "P3_image"]
    assert spec.validation == ("P3_image",)
    assert [case.id for case in spec.test_cases] == ["image"]
    elsewhere = listed("/other/P0/image.nii.gz", "/other/P1/image.nii.gz")
    spec = read_dataset(written(tmp_path, DECATHLON | {"training": elsewhere}))
    assert [case.id for case in spec.cases] == ["other_P0_image", "other_P1_image"]


@pytest.mark.skipif(os.name == "nt", reason="there these paths are those of files")
def test_paths_of_a_windows_drive_are_named(tmp_path: Path) -> None:
    root = written(tmp_path, DECATHLON | {"training": listed(r"C:\data\a.nii.gz", "b.nii.gz")})
    with pytest.raises(ManifestError, match=r"1 paths are those of a Windows drive .*C:/data/a.nii.gz.* relative to"):
        read_dataset(root)


def test_equal_names_of_files_are_told_apart_alike_from_every_folder(tmp_path, monkeypatch):
    root = make_phantoms(tmp_path / "d", n_cases=2, shape_ZYX=(6, 7, 8), layout="decathlon")
    content = json.loads((root / "dataset.json").read_text())
    entries = []
    for patient in ("P1", "P2"):
        (root / patient).mkdir()
        entries.append({"image": str(root / patient / "image.nii.gz"), "label": str(root / patient / "label.nii.gz")})
    entries.append({"image": "../P3/image.nii.gz", "label": "../P3/label.nii.gz"})
    (root / "dataset.json").write_text(json.dumps(content | {"training": entries, "numTraining": 3}))
    monkeypatch.chdir(tmp_path)
    ids = [case.id for case in read_dataset(root).cases]
    assert ids[:2] == ["P1_image", "P2_image"]
    assert ids[2].endswith("P3_image")
    assert [case.id for case in read_dataset(Path("d")).cases] == ids


def test_groups_of_cases_that_could_not_be_read_are_no_problem_of_their_own(tmp_path):
    root = make_phantoms(tmp_path / "Dataset001_D", n_cases=2, shape_ZYX=(6, 7, 8), layout="nnunet")
    content = json.loads((root / "dataset.json").read_text())
    groups = {"phantom_000": "a", "phantom_001": "b"}
    (root / "dataset.json").write_text(json.dumps(content | {"file_ending": ".xyz", "groups": groups}))
    with pytest.raises(ManifestError, match="file_ending") as problem:
        read_dataset(root)
    assert "there is no case" not in str(problem.value)
