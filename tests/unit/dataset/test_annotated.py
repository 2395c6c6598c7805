"""Partially annotated cases: read, checked, converted, merged, prepared and scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from decathlete import check, convert, read_dataset
from decathlete.cli.main import app
from decathlete.core.geometry import Geometry
from decathlete.core.labels import IGNORE_INDEX, LabelSet
from decathlete.dataset.annotated import annotated_of, read_annotated, with_annotated
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.errors import CasesFailedError, DatasetError, ManifestError, OptionError, OutputError
from decathlete.evaluation.case import mean_dice, score_case
from decathlete.evaluation.metrics import make_metrics
from decathlete.evaluation.scores import Scores
from decathlete.io.images import read_label, write_image, write_label
from decathlete.planning.fingerprint import make_fingerprint
from decathlete.planning.options import PlanOptions
from decathlete.workflows.merge import merge_datasets
from decathlete.workflows.plan_options_check import check_plan_options

GRID = Geometry.plain((6, 7, 8))


def make_dataset(folder: Path, classes: dict[str, int], n_cases: int = 2, **changes: Any) -> Path:
    """Cases ``p0``, ``p1``, ... with a block of each class in the order of its value."""
    for number in range(n_cases):
        label = np.zeros(GRID.shape_ZYX, np.uint8)
        for place, value in enumerate(sorted(classes.values())):
            label[place + 1, 1:4, 1:4] = value
        random = np.random.default_rng(number)
        image = (random.uniform(1, 2, GRID.shape_ZYX) + label)[None].astype(np.float32)
        (folder / "imagesTr").mkdir(parents=True, exist_ok=True)
        (folder / "labelsTr").mkdir(exist_ok=True)
        write_image(folder / "imagesTr" / f"p{number}_0000.nii.gz", image, GRID)
        write_label(folder / "labelsTr" / f"p{number}.nii.gz", label, GRID)
    content = {"channel_names": {"0": "MRI"}, "labels": {"background": 0} | classes, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content | changes))
    return folder


def test_a_fault_of_the_csv_file_names_it(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "set", {"liver": 1})
    (tmp_path / "list.csv").write_text("case,annotated\np9,liver\n")
    with pytest.raises(ManifestError, match="there is no case 'p9'") as caught:
        read_dataset(root, annotated=read_annotated(tmp_path / "list.csv"))
    assert caught.value.where == tmp_path / "list.csv"


def test_regions_of_nnunet_keep_what_was_annotated(tmp_path: Path) -> None:
    """With regions, nnU-Net declares no classes: those without a region of their own are read as ``label 1``, ..."""
    root = make_dataset(tmp_path / "set", {"rim": 1, "core": 4, "tip": 6}, annotated={"p1": ["rim", "tip"]})
    convert(root, tmp_path / "Dataset005_B", to="nnunet", regions="whole=1,4,6;tip=6", workers=1)
    spec = read_dataset(tmp_path / "Dataset005_B")
    assert annotated_of(spec) == {"p1": ("label 1", "tip")}
    assert [case.unannotated for case in spec.cases] == [(), (2,)]


def test_the_manifest_or_a_csv_file_says_what_was_annotated(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "set", {"liver": 1, "spleen": 2}, annotated={"p1": ["liver"]})
    spec = read_dataset(root)
    assert [case.unannotated for case in spec.cases] == [(), (2,)]
    assert spec.labels.unannotated == ((2,),)
    assert annotated_of(spec) == {"p1": ("liver",)}
    (tmp_path / "list.csv").write_text("\ufeffcase,annotated\np0,spleen\np1,liver; spleen\n")
    other = read_dataset(root, annotated=read_annotated(tmp_path / "list.csv"))
    assert annotated_of(other) == {"p0": ("spleen",)}
    assert len({spec.digest(), other.digest(), read_dataset(root, annotated={}).digest()}) == 3


@pytest.mark.parametrize(
    ("annotated", "problem"),
    [
        ({"p9": ["liver"]}, "there is no case 'p9'"),
        ({"p0": ["liver", "kidney"]}, "not declared: kidney"),
        ({"p0": []}, "names no class"),
    ],
)
def test_a_list_that_does_not_fit_is_rejected(tmp_path: Path, annotated: dict[str, list[str]], problem: str) -> None:
    root = make_dataset(tmp_path / "set", {"liver": 1, "spleen": 2}, annotated=annotated)
    with pytest.raises(ManifestError, match=problem):
        read_dataset(root)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "lacks the column.* it is empty"),
        ("case,classes\np0,liver\n", "lacks the column.*annotated; it has case, classes"),
        ("case,annotated\n\n", "lists no cases"),
        ("case;annotated\np0;liver;spleen\n", "line 2: 3 cells, but 2 columns"),
        ('case,annotated\n"p0,liver\n' + "p1,liver\n" * 20_000, "is not a table: line .*: field larger"),
        ("case,annotated\np0,liver\np0,spleen\n", "line 3: case 'p0' occurs twice"),
        ("case,annotated\n,liver\n", "line 2: has no case"),
    ],
)
def test_a_damaged_table_is_rejected(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ManifestError, match=problem):
        read_annotated(tmp_path / "list.csv")


def test_tables_of_spreadsheets_are_read_and_named_in_errors(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text('Case ;ANNOTATED;note\np0;"liver; spleen";x\np1;liver\n')
    assert read_annotated(tmp_path / "list.csv") == {"p0": ("liver", "spleen"), "p1": ("liver",)}
    root = make_dataset(tmp_path / "set", {"liver": 1})
    with pytest.raises(ManifestError, match="not declared: spleen") as caught:
        check(root, workers=1, annotated=tmp_path / "list.csv")
    assert caught.value.where == tmp_path / "list.csv", "not the manifest"


def test_more_sets_than_label_maps_can_tell_apart_are_an_error(tmp_path: Path) -> None:
    """Of 254 indices, 250 are those of classes."""
    names = [f"{side} {organ}" for organ in ("kidney", "lung") for side in ("left", "right")]
    labels = LabelSet.from_names([*names, *(f"c{number}" for number in range(245))])
    cases = tuple(Case(id=f"P{number}", images=(), label=None) for number in range(5))
    spec = DatasetSpec(name="Many", root=tmp_path, layout="nnunet", channels=("CT",), labels=labels, cases=cases)
    classes = [c.name for c in labels.foreground]
    annotated = {case.id: (names[0], classes[-1 - number]) for number, case in enumerate(cases)}
    with pytest.raises(ManifestError, match="5 different sets of annotated classes; with 250 classes at most 4 are"):
        with_annotated(spec, annotated, where=tmp_path)
    three = with_annotated(spec, {case.id: annotated[case.id] for case in cases[:3]}, where=tmp_path)
    with pytest.raises(
        OptionError, match=r"there are 3 different sets .*, with those of mirrored patches 6; .* at most 4"
    ):
        check_plan_options(three, PlanOptions())
    check_plan_options(three, PlanOptions(mirror_pairs="none"))


def test_the_background_of_a_partial_case_has_an_index_of_its_own() -> None:
    labels = LabelSet.from_names(["a", "b"]).revised(ignore=9, unannotated=((1,), (1, 2)))
    values = np.array([[0, 1, 2, 9]])
    for kind in (np.uint8, np.int64):
        label = values.astype(kind)
        assert labels.to_indices(label).tolist() == [[0, 1, 2, IGNORE_INDEX]]
        assert labels.to_indices(label, unannotated=(1,)).tolist() == [[254, 254, 2, IGNORE_INDEX]]
        assert labels.to_indices(label, unannotated=(1, 2)).tolist() == [[253, 253, 253, IGNORE_INDEX]]
    assert labels.possible_indices == {254: (0, 1), 253: (0, 1, 2)}
    assert "unannotated" not in LabelSet.from_names(["a"]).model_dump(mode="json")  # digests stay as they were


def test_statistics_and_the_check_know_only_annotated_classes(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "set", {"liver": 1, "spleen": 2}, annotated={"p1": ["liver"]})
    fingerprint = make_fingerprint(read_dataset(root), workers=1)
    assert [case.class_voxels[2] > 0 for case in fingerprint.cases] == [True, False]
    assert fingerprint.presence(read_dataset(root).labels)["p1"] == {"liver"}
    report = check(root, workers=1, n_folds=2)
    assert any("not annotated in this case: spleen" in problem.message for problem in report.problems)


def test_unannotated_structures_are_not_scored() -> None:
    labels = LabelSet.from_names(["a", "b"])
    truth, prediction = np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)
    truth[:2], prediction[:2], prediction[2] = 1, 1, 2
    full, partial = (
        score_case(prediction, truth, Geometry.plain((4, 4, 4)), labels, unannotated=unannotated, case_id=name)
        for name, unannotated in (("full", ()), ("partial", (2,)))
    )
    assert (full.dice, partial.dice) == (0.5, 1.0)
    assert partial.classes[1].presence == "not annotated"
    assert mean_dice(prediction, truth, labels, unannotated=(2,)) == 1.0
    scores = Scores.of([full, partial], make_metrics())
    assert scores.headline.n_undefined["dice"] == 0
    assert scores.headline.with_absent["dice"] == 0.75
    assert (scores.classes[1].n_invented, scores.classes[1].n_absent) == (1, 0)
    assert Scores.model_validate_json(scores.model_dump_json()) == scores


def test_merged_datasets_unite_classes_by_name(tmp_path: Path) -> None:
    first = make_dataset(tmp_path / "A", {"liver": 1, "spleen": 2})
    second = make_dataset(tmp_path / "B", {"kidney": 1, "liver": 3, "ignore": 4})
    output = tmp_path / "Dataset900_Both"
    said = CliRunner().invoke(app, ["convert", "--merge", str(first), str(second), "--to", "nnunet", "-o", str(output)])
    assert said.exit_code == 0, said.output
    assert "classes: 1 liver, 2 spleen, 3 kidney" in said.output
    assert "4 of 4 cases have annotations of some of these classes only" in said.output
    spec = read_dataset(output)
    assert [case.id for case in spec.cases] == ["A_p0", "A_p1", "B_p0", "B_p1"]
    assert annotated_of(spec)["A_p0"] == ("liver", "spleen")
    assert annotated_of(spec)["B_p1"] == ("liver", "kidney")
    assert spec.labels.ignore == 4
    assert np.unique(read_label(output / "labelsTr" / "B_p0.nii.gz").array_ZYX).tolist() == [0, 1, 3, 4]
    again = merge_datasets([first, second], output, to="nnunet")
    assert again.written == 2  # the labels of B; all other files are links
    layout = convert(output, tmp_path / "decathlon", to="decathlon")
    assert (layout.linked, layout.written) == (8, 0)
    assert annotated_of(read_dataset(tmp_path / "decathlon")) == annotated_of(spec)


def test_another_numbering_of_a_source_is_noticed(tmp_path: Path) -> None:
    first = make_dataset(tmp_path / "A", {"liver": 1, "spleen": 2})
    second = make_dataset(tmp_path / "B", {"spleen": 1, "liver": 2})
    merge_datasets([first, second], tmp_path / "out", to="decathlon")
    before = read_label(tmp_path / "out/labelsTr/B_p0.nii.gz").array_ZYX
    manifest = json.loads((second / "dataset.json").read_text())
    labels = {"background": 0, "liver": 1, "spleen": 2}
    (second / "dataset.json").write_text(json.dumps(manifest | {"labels": labels}))
    with pytest.raises(OutputError):
        merge_datasets([first, second], tmp_path / "out", to="decathlon")
    merge_datasets([first, second], tmp_path / "out", to="decathlon", overwrite=True)
    after = read_label(tmp_path / "out/labelsTr/B_p0.nii.gz").array_ZYX
    assert np.array_equal(after > 0, before > 0)
    assert np.array_equal(after == 1, before == 2)


@pytest.mark.parametrize("suffix", ["nii.gz", ".foo"])
def test_a_merge_needs_a_suffix_that_can_be_written(suffix: str, tmp_path: Path) -> None:
    roots = [make_dataset(tmp_path / name, {"liver": 1}) for name in ("A", "B")]
    with pytest.raises(OptionError, match="cannot be written"):
        merge_datasets(roots, tmp_path / "out", to="decathlon", suffix=suffix)
    assert not (tmp_path / "out").exists()


def test_folds_are_merged_if_all_datasets_have_as_many(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    roots = [make_dataset(tmp_path / name, {name: 1}) for name in ("A", "B")]
    folds = [{"train": ["p0"], "val": ["p1"]}, {"train": ["p1"], "val": ["p0"]}]
    for root in roots:
        (root / "splits_final.json").write_text(json.dumps(folds))
    merge_datasets(roots, tmp_path / "out", to="decathlon")
    assert json.loads((tmp_path / "out" / "splits_final.json").read_text()) == [
        {"train": ["A_p0", "B_p0"], "val": ["A_p1", "B_p1"]},
        {"train": ["A_p1", "B_p1"], "val": ["A_p0", "B_p0"]},
    ]
    (roots[1] / "splits_final.json").unlink()
    merge_datasets(roots, tmp_path / "other", to="decathlon")
    assert "A has 2, B has none" in caplog.text
    assert not (tmp_path / "other" / "splits_final.json").exists()


def test_values_that_a_merged_dataset_does_not_declare_are_errors(tmp_path: Path) -> None:
    first = make_dataset(tmp_path / "A", {"liver": 1, "spleen": 2})
    second = make_dataset(tmp_path / "B", {"liver": 1, "spleen": 2}, labels={"background": 0, "liver": 1})
    with pytest.raises(CasesFailedError, match="values that are not declared: 2") as caught:
        merge_datasets([first, second], tmp_path / "out", to="decathlon")
    assert set(caught.value.failures) == {"B_p0", "B_p1"}


@pytest.mark.parametrize(
    ("labels", "changes", "problem"),
    [
        ({"Liver": 1}, {}, "one class may have several spellings: 'liver' in A, 'Liver' in B"),
        ({"kidney": 1}, {"channel_names": {"0": "CT"}}, "B has the channels CT; A has MRI"),
        (
            {"whole": [1, 2], "core": 2},
            {"regions_class_order": [1, 2]},
            "B declares overlapping regions",
        ),
    ],
)
def test_contradictions_are_rejected_before_anything_is_written(
    tmp_path: Path, labels: dict[str, Any], changes: dict[str, Any], problem: str
) -> None:
    first = make_dataset(tmp_path / "A", {"liver": 1})
    second = make_dataset(tmp_path / "B", {"kidney": 1}, **(changes | {"labels": {"background": 0} | labels}))
    with pytest.raises(DatasetError, match=problem):
        merge_datasets([first, second], tmp_path / "out", to="decathlon")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_merge_needs_two_datasets_and_no_options_of_a_conversion(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "A", {"liver": 1})
    with pytest.raises(OptionError, match="at least two"):
        merge_datasets([root, root], tmp_path / "out", to="decathlon")
    command = ["convert", str(root), str(root), "--to", "decathlon", "-o", str(tmp_path / "out")]
    assert "add --merge" in str(CliRunner().invoke(app, command).exception)
    said = CliRunner().invoke(app, [*command, "--merge", "--regions", "a=1"])
    assert "--regions cannot be combined with --merge" in str(said.exception)


def test_a_row_without_a_case_is_a_problem_whatever_the_order_of_the_columns(tmp_path):
    (tmp_path / "a.csv").write_text("annotated,case\nliver;spleen\n")
    with pytest.raises(ManifestError, match="line 2: has no case"):
        read_annotated(tmp_path / "a.csv")
