"""Folders of files: matching, classes found or given, and every mistake named, all of a kind together."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.core.labels import LabelClass, LabelSet
from decathlete.errors import DatasetError, GridMismatchError, ManifestError, OptionError
from decathlete.evaluation.evaluate import evaluate, evaluate_pairs
from decathlete.evaluation.folders import declared_labels, labels_of_values

LABELS = LabelSet.from_names(["organ", "tumour"])


def truth() -> np.ndarray:
    array = np.zeros((9, 8, 7), np.uint8)
    array[1:5, 1:5, 1:5] = 1
    array[6:8, 5:7, 2:6] = 2
    return array


def write(path: Path, array: np.ndarray, *, spacing: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([spacing, 1, 2, 1])), path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three cases: the first predicted right, the second without its tumour, the third a voxel aside."""
    predictions, labels = tmp_path / "predictions", tmp_path / "labelsTr"
    for case_id in "abc":
        write(labels / f"{case_id}.nii.gz", truth())
    write(predictions / "a.nii.gz", truth())
    write(predictions / "b.nii.gz", np.where(truth() == 2, 0, truth()).astype(np.uint8))
    write(predictions / "c.nii.gz", np.roll(truth(), 1, axis=0))
    return predictions, labels


def test_cases_are_matched_by_id_and_scored(folders: tuple[Path, Path]) -> None:
    scores = evaluate(*folders, labels=LABELS)
    assert [c.case_id for c in scores.cases] == ["a", "b", "c"]
    assert [c.dice for c in scores.cases] == pytest.approx([1, 0.5, (0.75 + 0.5) / 2])
    assert scores.headline.n_undefined["hd95_mm"] == 1
    assert scores.classes[0].truth_ml == pytest.approx(64 * 2 / 1000)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_change_the_scores(folders: tuple[Path, Path], workers: int) -> None:
    assert evaluate(*folders, labels=LABELS, workers=workers) == evaluate(*folders, labels=LABELS, workers=2)


def test_regions_are_scored_under_their_own_names(folders: tuple[Path, Path]) -> None:
    """Case b lacks its tumour: its whole is the organ alone, its core is missed; nothing is taken for the other."""
    scores = evaluate(*folders, labels=LABELS, regions={"core": 2, "whole": (1, 2)})
    assert [c.name for c in scores.classes] == ["whole", "core"]
    whole, core = scores.cases[1].classes
    organ, tumour = 4**3, 2 * 2 * 4
    assert whole.dice == pytest.approx(2 * organ / (2 * organ + tumour))
    assert (core.dice, core.presence) == (0, "truth only")
    assert core.truth_ml == pytest.approx(tumour * 2 / 1000)
    assert scores.cases[1].dice == pytest.approx(organ / (2 * organ + tumour))
    dices = [c.dice for c in scores.cases]
    assert None not in dices
    assert scores.headline.dice == pytest.approx(sum(dices) / 3)


def test_suffixes_may_differ(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    write(predictions / "a.nii", truth())
    (predictions / "a.nii.gz").unlink()
    assert evaluate(predictions, labels, labels=LABELS).cases[0].dice == 1


def test_tolerance_reaches_the_surface_dice(folders: tuple[Path, Path]) -> None:
    near, far = (evaluate(*folders, labels=LABELS, tolerance_mm=mm) for mm in (0.5, 1.0))
    nsd = near.cases[2].values["nsd"]
    assert nsd is not None
    assert nsd < 1
    assert far.cases[2].values["nsd"] == 1
    assert [m.settings for m in far.metrics if m.name == "nsd"] == [{"tolerance_mm": 1.0}]


def test_missing_predictions_are_all_named(folders: tuple[Path, Path]) -> None:
    (folders[0] / "a.nii.gz").unlink()
    (folders[0] / "c.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"(?s)2 problems.*a\.nii\.gz.*c\.nii\.gz"):
        evaluate(*folders, labels=LABELS)


def test_predictions_without_a_label_map_are_named_and_probabilities_are_not(
    folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    write(folders[0] / "a_probabilities.nii", np.stack([truth()] * 3, -1))
    with caplog.at_level("WARNING"):
        evaluate(*folders, labels=LABELS)
    assert not caplog.text
    write(folders[0] / "d.nii.gz", truth() + 7)
    write(folders[0] / "e_probabilities.nii", truth())
    with caplog.at_level("WARNING"):
        assert len(evaluate(*folders, labels=LABELS).cases) == 3
    assert "not used: d.nii.gz, e_probabilities.nii (no label map of this name in" in caplog.text


def test_a_prediction_of_another_name_is_shown(folders: tuple[Path, Path]) -> None:
    (folders[0] / "a.nii.gz").rename(folders[0] / "a_0000.nii.gz")
    with pytest.raises(DatasetError, match=r"no prediction for a\.nii\.gz; predictions contains a_0000\.nii\.gz"):
        evaluate(*folders, labels=LABELS)


def test_grids_that_differ_are_all_named(folders: tuple[Path, Path]) -> None:
    write(folders[0] / "a.nii.gz", truth(), spacing=1.5)
    write(folders[0] / "b.nii.gz", truth()[:5])
    with pytest.raises(GridMismatchError, match=r"(?s)case a.*spacing.*case b.*shape"):
        evaluate(*folders, labels=LABELS)


def test_values_that_are_not_declared_are_all_named(folders: tuple[Path, Path]) -> None:
    for case_id in "ab":
        write(folders[0] / f"{case_id}.nii.gz", truth() * 3)
    with pytest.raises(DatasetError, match=r"(?s)case a.*values 3, 6 are not declared.*case b"):
        evaluate(*folders, labels=LABELS)


def test_values_that_are_not_integers_are_refused(folders: tuple[Path, Path]) -> None:
    write(folders[0] / "b.nii.gz", truth().astype(np.float32) * 0.7)
    with pytest.raises(DatasetError, match="case b"):
        evaluate(*folders, labels=LABELS)


def test_a_truncated_file_is_named(folders: tuple[Path, Path]) -> None:
    whole = (folders[0] / "b.nii.gz").read_bytes()
    (folders[0] / "b.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"b\.nii\.gz"):
        evaluate(*folders, labels=LABELS)


def test_empty_and_missing_folders_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no label maps"):
        evaluate(tmp_path / "empty", folders[1], labels=LABELS)
    with pytest.raises(DatasetError, match="is not a folder"):
        evaluate(folders[0], tmp_path / "nowhere", labels=LABELS)
    with pytest.raises(DatasetError, match="nothing to evaluate"):
        evaluate_pairs({}, LABELS)


def test_two_files_of_one_case_are_refused(folders: tuple[Path, Path]) -> None:
    write(folders[0] / "a.nii", truth())
    with pytest.raises(DatasetError, match="one case"):
        evaluate(*folders, labels=LABELS)


def test_tolerance_must_be_positive(folders: tuple[Path, Path]) -> None:
    with pytest.raises(OptionError, match="tolerance"):
        evaluate(*folders, labels=LABELS, tolerance_mm=0)


def test_classes_come_from_the_manifest_above(folders: tuple[Path, Path]) -> None:
    predictions, labels = folders
    for case_id in "abc":
        write(labels.parent / "imagesTr" / f"{case_id}.nii.gz", truth().astype(np.float32))
    names = [f"./labelsTr/{c}.nii.gz" for c in "abc"]
    manifest = {
        "name": "Phantom",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "liver", "2": "lesion"},
        "training": [{"image": n.replace("labels", "images"), "label": n} for n in names],
        "test": [],
    }
    (labels.parent / "dataset.json").write_text(json.dumps(manifest))
    assert [c.name for c in evaluate(predictions, labels).classes] == ["liver", "lesion"]


def test_classes_of_a_manifest_without_its_images_are_used(folders: tuple[Path, Path]) -> None:
    """Labels are often copied with their dataset.json, and without the images."""
    manifest = {"channel_names": {"0": "CT"}, "labels": {"bg": 0, "organ": 1, "tumour": 2}, "file_ending": ".nii.gz"}
    (folders[1] / "dataset.json").write_text(json.dumps(manifest))
    assert [c.name for c in evaluate(*folders).classes] == ["organ", "tumour"]


def test_classes_without_a_manifest_are_the_values_seen(folders: tuple[Path, Path]) -> None:
    write(folders[0] / "c.nii.gz", truth() * 2)
    assert declared_labels(folders[1]) is None
    scores = evaluate(*folders)
    assert [c.name for c in scores.classes] == ["class 1", "class 2", "class 4"]
    assert scores.classes[2].n_absent == 2


PARTIAL = {"channel_names": {"0": "CT"}, "labels": {"bg": 0, "organ": 1, "tumour": 2}, "file_ending": ".nii.gz"}


def test_structures_that_the_manifest_does_not_list_as_annotated_are_not_scored(folders: tuple[Path, Path]) -> None:
    """Case b lacks its tumour in the prediction, case c is a voxel aside; case z has no label map here."""
    annotated = {"b": ["organ"], "c": ["tumour"], "z": ["organ"]}
    (folders[1].parent / "dataset.json").write_text(json.dumps(PARTIAL | {"annotated": annotated}))
    scores = evaluate(*folders)
    assert [[s.presence for s in case.classes] for case in scores.cases] == [
        ["both", "both"],
        ["both", "not annotated"],
        ["not annotated", "both"],
    ]
    assert [case.dice for case in scores.cases] == pytest.approx([1, 1, 0.5])
    assert [c.n_missed for c in scores.classes] == [0, 0]
    assert evaluate(*folders, labels=LABELS).classes[1].n_missed == 1, "the list is that of the manifest's own labels"


def test_a_csv_file_lists_annotated_classes_instead_of_the_manifest(
    folders: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folders[1].parent / "dataset.json").write_text(json.dumps(PARTIAL | {"annotated": {"b": ["organ"]}}))
    (tmp_path / "list.csv").write_text("case,annotated\na,tumour\nz,organ\n")
    command = ["evaluate", "--preds", str(folders[0]), "--lbls", str(folders[1]), "--json"]
    said = CliRunner().invoke(app, [*command, "--annotated", str(tmp_path / "list.csv")])
    assert said.exit_code == 0, said.output
    assert [[s["presence"] for s in case["classes"]] for case in json.loads(said.stdout)["cases"]] == [
        ["not annotated", "both"],
        ["both", "truth only"],
        ["both", "both"],
    ]
    with caplog.at_level("WARNING"):
        scores = evaluate(*folders, annotated=tmp_path / "list.csv", regions={"core": 2, "whole": (1, 2)})
    assert "list.csv: not used: z (no label map of this name is scored)" in caplog.text
    assert [[s.presence for s in case.classes] for case in scores.cases] == [
        ["not annotated", "both"],
        ["both", "truth only"],
        ["both", "both"],
    ]
    (tmp_path / "list.csv").write_text("case,annotated\na,liver\n")
    with pytest.raises(ManifestError, match="not declared: liver") as caught:
        evaluate(*folders, annotated=tmp_path / "list.csv")
    assert caught.value.where == tmp_path / "list.csv"


def test_annotated_classes_belong_to_the_case_that_lists_the_label_map(folders: tuple[Path, Path]) -> None:
    manifest = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "organ", "2": "tumour"},
        "training": [{"image": f"imagesTr/scan_{c}.nii.gz", "label": f"labelsTr/{c}.nii.gz"} for c in "abc"],
        "annotated": {"scan_b": ["organ"]},
    }
    (folders[1].parent / "dataset.json").write_text(json.dumps(manifest))
    assert evaluate(*folders).cases[1].classes[1].presence == "not annotated"


def test_labels_of_values() -> None:
    assert labels_of_values([0, 7, 3]).classes[1:] == (
        LabelClass(name="class 3", value=3),
        LabelClass(name="class 7", value=7),
    )
    with pytest.raises(DatasetError, match="only zeros"):
        labels_of_values([0])


def test_negative_labels_are_named_with_their_file(folders: tuple[Path, Path]) -> None:
    write(folders[0] / "c.nii.gz", truth().astype(np.int16) - 1)
    with pytest.raises(DatasetError, match=r"c\.nii\.gz: contains the negative label -1"):
        evaluate(*folders)
