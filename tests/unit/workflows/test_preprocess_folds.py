"""Folds that the user gave are used or listed as not used, and folds that prepared data record are kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decathlete import PlanOptions, TrainConfig, Workspace, check, convert, preprocess
from decathlete.dataset.conversion.source import read_source
from decathlete.dataset.find_dataset import FOLDS
from decathlete.dataset.given_splits import read_folds
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.split_cases import split_cases
from decathlete.dataset.split_options import SplitOptions
from decathlete.dataset.splits import Splits, make_splits, split_as_release_0_1
from decathlete.errors import ManifestError, OptionError, OutputError
from decathlete.io.images import read_label, write_label
from decathlete.preprocessing.store import PreparedStore
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.training.run_folder import make_record

IDS = [f"phantom_{k:03d}" for k in range(6)]
LISTED = [
    {"train": IDS[2:], "val": IDS[:2]},
    {"train": [*IDS[:2], *IDS[4:]], "val": IDS[2:4]},
    {"train": IDS[:4], "val": IDS[4:]},
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_phantoms(tmp_path / "set", n_cases=6, shape_ZYX=(16, 16, 16), layout="nnunet")


def prepare(root: Path, **options) -> Splits:
    reuse = options.pop("reuse", False)
    overwrite = options.pop("overwrite", False)
    return preprocess(
        root,
        workspace=Workspace(prepared=root.parent / "prepared"),
        options=PlanOptions(**options),
        workers=1,
        reuse=reuse,
        overwrite=overwrite,
    ).splits


def listed(splits: Splits) -> list[dict[str, list[str]]]:
    return [{"train": list(f.train), "val": list(f.val)} for f in splits.folds]


def write_folds(path: Path, content: object = LISTED) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_the_list_of_nnunet_beside_the_manifest_is_used_and_said(root: Path, caplog) -> None:
    caplog.set_level("INFO")
    write_folds(root / FOLDS)
    splits = prepare(root)
    assert (listed(splits), splits.source) == (LISTED, FOLDS)
    assert "3 folds from splits_final.json" in caplog.text
    assert check(root, workers=1).notes == ("3 folds from splits_final.json",)
    assert prepare(root) == splits, "the same command again keeps them"
    assert prepare(root, reuse=True) == splits


def test_what_convert_wrote_is_used(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "set", n_cases=6, shape_ZYX=(16, 16, 16))
    write_folds(root / FOLDS)
    convert(root, tmp_path / "Dataset001_Set", to="nnunet", workers=1)
    assert listed(prepare(tmp_path / "Dataset001_Set")) == LISTED


def test_a_file_of_folds_is_used_instead_of_the_one_beside_the_manifest(root: Path, tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO")
    write_folds(root / FOLDS, LISTED[:1])
    assert listed(prepare(root, splits=write_folds(tmp_path / "mine.json"))) == LISTED
    assert "splits_final.json is not used as a list of folds" in caplog.text
    with pytest.raises(OutputError, match="other folds"):
        prepare(root)
    assert listed(prepare(root, overwrite=True)) == LISTED[:1]


def test_the_folds_of_other_prepared_data_can_be_given(root: Path) -> None:
    splits = prepare(root, n_folds=2)
    path = root.parent / "prepared" / "set" / "3d" / "splits.json"
    assert read_folds(path, read_dataset(root)) == splits.folds


def test_a_file_of_folds_that_does_not_exist_is_an_error(root: Path) -> None:
    with pytest.raises(ManifestError, match="does not exist") as caught:
        prepare(root, splits=root.parent / "none.json")
    assert caught.value.code == "E-DATASET-SPLITS"


def test_other_numbers_of_folds_than_the_list_are_made_and_logged(root: Path, caplog) -> None:
    caplog.set_level("INFO")
    write_folds(root / FOLDS)
    assert len(prepare(root, n_folds=2).folds) == 2
    assert "splits_final.json is not used as a list of folds: --n-folds or --split-seed" in caplog.text
    with pytest.raises(OptionError, match="--n-folds and --split-seed have no effect"):
        PlanOptions(splits=root / FOLDS, n_folds=2)


def test_a_list_that_changed_after_preparing_is_not_ignored(root: Path) -> None:
    write_folds(root / FOLDS)
    prepare(root)
    write_folds(root / FOLDS, LISTED[:2])
    for reuse in (False, True):
        with pytest.raises(OutputError, match="other folds"):
            prepare(root, reuse=reuse)


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("content", [LISTED, LISTED[:1]])
def test_prepared_data_from_before_lists_were_used_keep_their_folds_and_say_so(root, content, reuse, caplog) -> None:
    recorded = prepare(root)
    write_folds(root / FOLDS, content)
    assert prepare(root, reuse=reuse) == recorded
    assert "splits_final.json is not used" in caplog.text


def test_a_wrong_list_does_not_stop_the_reuse_of_prepared_data(root: Path, caplog) -> None:
    recorded = prepare(root)
    write_folds(root / FOLDS, [{"train": ["other"], "val": []}])
    assert prepare(root, reuse=True) == recorded
    assert "not used" in caplog.text


def test_folds_are_kept_when_the_labels_or_the_split_change(tmp_path: Path, caplog) -> None:
    """A class that only two cases of one fold have would be spread over two folds if the cases were split again."""
    caplog.set_level("INFO")
    root = make_phantoms(tmp_path / "set", n_cases=6, shape_ZYX=(16, 16, 16), layout="nnunet")
    recorded = prepare(root, n_folds=3)
    pair = recorded.folds[0].val
    for case_id in set(IDS) - set(pair):
        path = root / "labelsTr" / f"{case_id}.nii.gz"
        label = read_label(path)
        write_label(path, np.where(label.array_ZYX == 2, 1, label.array_ZYX), label.geometry)
    assert prepare(root, n_folds=3) == recorded
    assert "recorded with the prepared data are kept" in caplog.text
    assert "fold 0 trains without class 'blob 2'" in caplog.text
    assert prepare(root, n_folds=3, overwrite=True).folds != recorded.folds


def test_folds_of_an_unchecked_guess_are_kept(root: Path) -> None:
    """Release 0.1 made two folds of two hospitals."""
    spec = read_dataset(root)
    names = {case.id: f"hospital{k % 2}" for k, case in enumerate(spec.cases)}
    guessed = replace(spec, cases=tuple(replace(c, group=names[c.id]) for c in spec.cases), groups_from="names")
    old = split_as_release_0_1(guessed, n_folds=5, seed=12345)
    assert len(old.folds) == 2
    assert split_cases(guessed, SplitOptions(), {}, recorded=old).splits == old
    assert len(split_cases(guessed, SplitOptions(), {}).splits.folds) == 5
    assert split_cases(guessed, SplitOptions(seed=7), {}, recorded=old).splits != old


def test_folds_that_another_configuration_had_first_are_those_of_the_same_options(root: Path) -> None:
    spec = read_dataset(root)
    recorded = make_splits(spec, n_folds=3).revised(source="prepared/2d/splits.json")
    assert split_cases(spec, SplitOptions(n_folds=3), {}, recorded=recorded).splits == recorded
    assert split_cases(spec, SplitOptions(n_folds=2), {}, recorded=recorded).splits != recorded


@pytest.mark.parametrize("options", [SplitOptions(n_folds=2), SplitOptions(seed=7)])
def test_recorded_folds_of_other_options_are_not_kept(root: Path, options: SplitOptions) -> None:
    spec = read_dataset(root)
    recorded = make_splits(spec)
    assert split_cases(spec, SplitOptions(), {}, recorded=recorded).splits == recorded
    assert split_cases(spec, options, {}, recorded=recorded).splits != recorded


def test_recorded_folds_that_separate_a_patient_are_not_kept(root: Path) -> None:
    recorded = make_splits(read_dataset(root), n_folds=2)
    manifest = json.loads((root / "dataset.json").read_text())
    groups = {recorded.folds[0].val[0]: "p", recorded.folds[1].val[0]: "p"}
    (root / "dataset.json").write_text(json.dumps(manifest | {"groups": groups}))
    assert split_cases(read_dataset(root), SplitOptions(n_folds=2), {}, recorded=recorded).splits != recorded


def test_a_validation_list_is_held_out(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "set", n_cases=6, shape_ZYX=(16, 16, 16))
    manifest = json.loads((root / "dataset.json").read_text())
    files = manifest["training"]
    for training, numbers in ((files[:4], 4), (files, 6)):  # beside the training cases, and among them
        (root / "dataset.json").write_text(
            json.dumps(manifest | {"training": training, "validation": files[4:], "numTraining": numbers})
        )
        spec = read_dataset(root)
        assert sorted(case.id for case in spec.cases) == IDS
        expected = [{"train": IDS[:4], "val": IDS[4:]}]
        assert [{"train": list(f.train), "val": list(f.val)} for f in read_source(root).folds] == expected
        assert listed(prepare(root)) == expected
        report = check(root, workers=1)
        assert report.notes == ("1 fold from 'validation' in dataset.json",)
        assert report.problems == ()


@pytest.mark.parametrize(
    ("validation", "said"),
    [
        (["imagesTr/a.nii.gz"], "it must list an image and a label map"),
        ({"a": 1}, "it must list an image and a label map"),
        (None, "it lists every case"),
    ],
)
def test_a_validation_list_that_cannot_be_used_is_listed(tmp_path: Path, validation, said) -> None:
    root = make_phantoms(tmp_path / "set", n_cases=6, shape_ZYX=(16, 16, 16))
    manifest = json.loads((root / "dataset.json").read_text())
    validation = manifest["training"] if validation is None else validation
    (root / "dataset.json").write_text(json.dumps(manifest | {"validation": validation}))
    (note,) = check(root, workers=1).notes
    assert "'validation' in dataset.json is not used" in note
    assert said in note


def test_lists_without_a_meaning_in_nnunets_layout_are_listed(root: Path) -> None:
    manifest = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(manifest | {"validation": ["a"], "training": [], "test": ["b"]}))
    notes = check(root, workers=1).notes
    assert [note.split(" ")[0] for note in notes] == ["'validation'", "'test'"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"train": ["phantom_000"', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "valid tuple"),
        ("[]", "no folds"),
        ('[{"train": ["phantom_000"]}]', "val"),
        ('[{"train": [0], "val": [1]}]', "valid string"),
        ('[{"train": [], "val": ["phantom_000"]}]', "no case to train on"),
        ('[{"train": ["phantom_000", "x"], "val": ["phantom_001"]}]', "not in the dataset: x"),
        ('[{"train": ["phantom_000"], "val": ["imagesTr/phantom_001_0000.nii.gz"]}]', "without folder, suffix and num"),
        ('[{"train": ["phantom_000"], "val": ["phantom_000"]}]', "trains on cases that it holds out: phantom_000"),
        ('[{"train": ["phantom_000", "phantom_000"], "val": []}]', "lists cases twice"),
    ],
)
def test_a_list_that_is_not_valid_is_an_error_that_names_the_file(root: Path, content, said) -> None:
    (root / FOLDS).write_text(content)
    with pytest.raises(ManifestError, match=FOLDS) as caught:
        prepare(root)
    assert said in str(caught.value)
    assert caught.value.code == "E-DATASET-SPLITS"
    (problem,) = check(root, workers=1).errors
    assert (problem.file, problem.code) == (FOLDS, "E-DATASET-SPLITS")


@pytest.mark.parametrize(
    ("folds", "said"),
    [
        ([{"train": IDS[:3], "val": IDS[3:5]}], "fold 0 neither trains on nor holds out 1 case: phantom_005"),
        ([{"train": IDS, "val": []}], "fold 0 holds out no case"),
        ([LISTED[0], LISTED[0]], "several folds hold out 2 cases"),
    ],
)
def test_unusual_folds_are_used_with_a_warning(root: Path, folds, said, caplog) -> None:
    write_folds(root / FOLDS, folds)
    assert listed(prepare(root)) == folds
    assert said in caplog.text
    (problem,) = check(root, workers=1).problems
    assert (problem.severity, problem.code) == ("warning", "E-DATASET-FOLDS")
    assert said in problem.message


def test_folds_that_separate_a_patient_are_rejected_only_if_the_user_gave_the_patients(root: Path) -> None:
    write_folds(root / FOLDS)
    with pytest.raises(OptionError, match="separates cases that --group-by"):
        check(root, group_by="phantom_(00)", workers=1)
    manifest = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(manifest | {"groups": {IDS[1]: "p", IDS[2]: "p"}}))
    problems = check(root, workers=1).problems
    assert [p.severity for p in problems] == ["warning", "warning"]
    assert "cases of the same patient" in problems[0].message


def test_check_says_which_fold_trains_without_a_class(root: Path) -> None:
    for case_id in IDS[1:]:
        path = root / "labelsTr" / f"{case_id}.nii.gz"
        label = read_label(path)
        write_label(path, np.where(label.array_ZYX == 2, 1, label.array_ZYX), label.geometry)
    (problem,) = check(root, n_folds=3, workers=1).problems
    assert (problem.severity, problem.code) == ("warning", "E-DATASET-FOLDS")
    assert "trains without class 'blob 2'" in problem.message
    assert IDS[0] in problem.message


@pytest.mark.parametrize(("field", "number"), [("numTraining", 9), ("numTraining", "5"), ("numTest", 3)])
def test_numbers_that_disagree_with_the_files_are_warnings(root: Path, field, number) -> None:
    manifest = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(manifest | {field: number}))
    (problem,) = check(root, workers=1).problems
    assert (problem.severity, problem.code, problem.file) == ("warning", "E-DATASET-MANIFEST", "dataset.json")
    assert f"{field} is {number}" in problem.message


def test_prepared_data_and_runs_keep_the_patients_of_group_by(root: Path) -> None:
    def prepare_with(options: PlanOptions) -> PreparedStore:
        return preprocess(root, workspace=Workspace(prepared=root.parent / "prepared"), options=options, workers=1)

    without = prepare_with(PlanOptions())
    assert '"groups"' not in (without.folder / "source.json").read_text(), "as older releases have written it"
    store = prepare_with(PlanOptions(group_by=r"(\d)$"))
    groups = {case_id: str(number) for number, case_id in enumerate(IDS)}
    assert PreparedStore.open(store.folder).source.groups == groups
    assert make_record(store, store.plan, 0, TrainConfig(device="cpu"), None).groups == groups
