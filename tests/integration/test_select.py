"""``decathlete select`` where the truth is known: it selects what is best, and its figures can be recomputed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import decathlete
import selection_support as support
from cli_support import run_command
from decathlete.core.geometry import Geometry
from decathlete.errors import ModelError, OptionError, OutputError
from decathlete.inference.options import PredictOptions
from decathlete.inference.output.apply_postprocessing import build_steps, postprocess
from decathlete.inference.output.provenance import PredictionRecord
from decathlete.inference.predict import Predictor
from decathlete.io.images import read_label, write_label
from decathlete.models.bundle import ModelBundle
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.selection import select as select_module
from decathlete.workflows.selection.configurations import find_configurations
from decathlete.workflows.selection.record import Selection

OPTIONS = PredictOptions(device="cpu", precision="fp32", engine="torch")
CLI_OPTIONS = ["--device", "cpu", "--precision", "fp32", "--engine", "torch", "--workers", "1"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``3d`` sees a clean channel, ``2d`` one in which much of the background looks like the organ."""
    folder = tmp_path_factory.mktemp("study")
    root = support.write_dataset(folder / "data" / "Known", unknown=(0.0, 0.3))
    support.write_configuration(folder / "results" / "Known" / "3d", root, dims=3, channel=0)
    support.write_configuration(folder / "results" / "Known" / "2d", root, dims=2, channel=1)
    return folder


@pytest.fixture(scope="module")
def selected(study: Path) -> decathlete.SelectResult:
    return decathlete.select(study / "results" / "Known", options=OPTIONS, workers=1)


def dice_by_hand(folder: Path, predictions: str) -> dict[str, list[float]]:
    """Dice of each class and case, computed from the label maps alone."""
    found: dict[str, list[float]] = {"organ": [], "lesions": []}
    for number in range(10):
        truth = support.make_truth(number)
        (path,) = folder.glob(f"{predictions}/c{number:02}.nii.gz")
        prediction = read_label(path).array_ZYX
        for value, name in ((1, "organ"), (2, "lesions")):
            p, t = prediction == value, truth == value
            found[name].append(2 * np.count_nonzero(p & t) / (p.sum() + t.sum()))
    return found


def test_the_better_configuration_is_selected(selected: decathlete.SelectResult) -> None:
    selection = selected.selection
    assert selection.selected == "3d"
    by_name = {candidate.name: candidate for candidate in selection.candidates}
    assert set(by_name) == {"2d", "3d", "2d+3d"}
    assert by_name["3d"].dice > by_name["2d"].dice + 0.1
    assert by_name["2d"].behind.high < 0
    assert by_name["3d"].behind is None
    assert by_name["3d"].dice >= by_name["2d+3d"].dice
    assert selection.reason.startswith("3d has the highest mean Dice of the 10 held-out cases, 0.991")


def test_post_processing_that_helps_one_class_and_hurts_another_is_used_for_the_one(selected) -> None:
    record = ModelBundle.load(selected.model).record
    assert {step.settings["structures"][0] for step in record.postprocessing} == {"organ"}
    largest = {
        d.structure: d for d in selected.selection.postprocessing.tried if d.step.name == "keep_largest_component"
    }
    assert largest["organ"].gain.low > 0
    assert largest["lesions"].gain.high < 0
    (gain,) = record.provenance["selection"]["postprocessing"]
    assert gain["gain"]["low"] > 0
    assert selected.scores.headline.dice == pytest.approx(1.0), "nothing but islands was wrong"


def test_every_figure_can_be_recomputed_from_files(selected: decathlete.SelectResult) -> None:
    folder = selected.folder
    for candidate, files in (
        ("3d", "3d/fold_*/validation"),
        ("2d", "2d/fold_*/validation"),
        ("2d+3d", "selected/candidates/2d+3d/validation"),
    ):
        by_hand = dice_by_hand(folder.parent, files)
        scores = json.loads((folder / "candidates" / candidate / "scores.json").read_text())
        listed = {
            name: [c["values"]["dice"] for case in scores["cases"] for c in case["classes"] if c["name"] == name]
            for name in by_hand
        }
        for name, values in by_hand.items():
            assert listed[name] == pytest.approx(values)
        record = next(c for c in selected.selection.candidates if c.name == candidate)
        assert record.dice == pytest.approx(np.mean(list(by_hand.values())))
        assert record.classes == pytest.approx({name: np.mean(values) for name, values in by_hand.items()})
    after = dice_by_hand(folder, "validation")
    assert selected.selection.postprocessing.total.after == pytest.approx(np.mean(list(after.values())))
    assert selected.scores.headline.dice == pytest.approx(np.mean(list(after.values())))


def test_no_probabilities_stay_on_disk(selected: decathlete.SelectResult) -> None:
    written = {path.name for path in selected.folder.parent.rglob("*") if path.is_file()}
    assert not [name for name in written if "probabilities" in name or name.startswith(".partial")]


def test_the_model_predicts_and_validates_like_any_other(selected, study: Path) -> None:
    images = [study / "data" / "Known" / "imagesTr" / f"c00_{channel:04}.nii.gz" for channel in range(2)]
    predicted = Predictor.load(selected.folder, options=OPTIONS).predict(images)
    assert np.array_equal(predicted.label_ZYX, support.make_truth(0)), "post-processing removed the islands"
    before = (selected.folder / "scores.json").read_bytes()
    scores = decathlete.validate(selected.folder, options=OPTIONS, workers=1)
    assert scores == selected.scores
    shutil.rmtree(selected.folder / "validation")
    again = decathlete.validate(selected.model, options=OPTIONS, workers=1)
    assert again == scores, "predicted by the networks of each case's own fold"
    assert (selected.folder / "scores.json").read_bytes() == before


def test_validating_uses_the_network_of_the_fold(selected) -> None:
    predictor = Predictor.load(selected.folder, options=OPTIONS, fold=1)
    assert [len(ensemble.engines) for ensemble in predictor.ensembles] == [1]
    assert [len(e.engines) for e in Predictor.load(selected.folder, options=OPTIONS).ensembles] == [2]
    with pytest.raises(ModelError, match="no network of fold 7"):
        Predictor.load(selected.folder, options=OPTIONS, fold=7)


def test_a_pair_is_selected_where_it_is_best(tmp_path: Path) -> None:
    """Each channel is unknown where the other is clear: only both together are right everywhere."""
    root = support.write_dataset(tmp_path / "Pair", unknown=(0.2, 0.2))
    results = tmp_path / "results" / "Pair"
    support.write_configuration(results / "2d", root, dims=2, channel=1)
    support.write_configuration(results / "3d", root, dims=3, channel=0)
    found = decathlete.select(results, options=OPTIONS, workers=1)
    best = found.selection.selected_candidate
    assert (best.name, best.networks) == ("2d+3d", 4)
    alone = {c.name: c for c in found.selection.candidates}
    assert best.seconds_per_case == pytest.approx(alone["2d"].seconds_per_case + alone["3d"].seconds_per_case)
    assert alone["3d"].behind.high < 0
    images = [root / "imagesTr" / f"c01_{channel:04}.nii.gz" for channel in range(2)]
    assert np.array_equal(Predictor.load(found.model, options=OPTIONS).predict(images).label_ZYX, support.make_truth(1))
    shutil.rmtree(found.folder / "validation")
    assert decathlete.validate(found.folder, options=OPTIONS, workers=1) == found.scores

    predictions = shutil.copytree(found.folder / "validation", found.folder / "predictions")
    (predictions / "notes.json").write_text("{}")
    few = decathlete.select(results, options=OPTIONS, workers=1, max_members=2, overwrite=True, metrics=["dice", "iou"])
    assert [path.name for path in predictions.iterdir()] == ["notes.json"], "those of the earlier model are removed"
    digests = [PredictionRecord.load(path).settings.models[0].digest for path in few.folder.glob("validation/*.json")]
    assert digests == [ModelBundle.load(few.model).digest] * 5, "of the cases of fold 0"
    assert [metric.name for metric in few.scores.metrics] == ["dice", "iou"]
    best = few.selection.selected_candidate
    assert (best.name, best.folds, best.networks) == ("2d+3d", (0,), 2)
    assert {case.case_id for case in few.scores.cases} == {f"c{n:02}" for n in range(0, 10, 2)}, "those of fold 0"
    one = decathlete.select(results, output=tmp_path / "one", options=OPTIONS, workers=1, max_members=1)
    assert one.selection.selected in ("2d", "3d")
    pair = next(c for c in one.selection.candidates if c.name == "2d+3d")
    assert (pair.dice, pair.excluded) == (None, "needs more than 1 networks (--max-members)")


def test_scores_are_of_the_classes_that_were_annotated_in_the_training(tmp_path: Path) -> None:
    """``--annotated`` listed no partial case, so that the training did not use the list of the manifest."""
    root = support.write_dataset(tmp_path / "Partial", n_cases=4)
    manifest = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(manifest | {"annotated": {"c00": ["organ"]}}))
    results = tmp_path / "results" / "Partial"
    support.write_configuration(results / "3d", root, n_cases=4)
    found = decathlete.select(results, options=OPTIONS, workers=1)
    of_run = decathlete.validate(results / "3d" / "fold_0", options=OPTIONS, workers=1)
    shutil.rmtree(found.folder / "validation")
    (found.folder / "scores.json").unlink()
    of_model = decathlete.validate(found.folder, options=OPTIONS, workers=1)
    for scores in (of_run, found.scores, of_model):
        assert {s.presence for case in scores.cases for s in case.classes} == {"both"}


def test_the_command_says_what_was_selected_and_why(selected, study: Path) -> None:
    said = run_command("select", str(study / "results" / "Known"), *CLI_OPTIONS)
    assert said.code in (0, None), said.err
    assert "selected: 3d has the highest mean Dice of the 10 held-out cases" in said.out
    assert "prediction: 2 networks, about" in said.out
    assert "organ" in said.out.partition("post-processing: ")[2]
    page = (selected.folder / "selection.html").read_text()
    for text in ("Comparison", "2d+3d", "lowers the Dice", "Research use only"):
        assert text in page


def test_a_finished_selection_is_kept_and_another_is_not_replaced_unasked(selected, study: Path) -> None:
    weights = next(selected.model.glob("weights/*"))
    before = weights.stat().st_mtime_ns
    again = decathlete.select(study / "results" / "Known", options=OPTIONS, workers=1)
    assert (again.selection, weights.stat().st_mtime_ns) == (selected.selection, before)
    with pytest.raises(OutputError, match="selection of other models, options or cases"):
        decathlete.select(study / "results" / "Known", options=OPTIONS, workers=1, max_members=1)
    assert Selection.load(selected.folder / "selection.json") == selected.selection


def test_what_does_not_belong_together_is_refused(study: Path, tmp_path: Path) -> None:
    root = study / "data" / "Known"
    with pytest.raises(ModelError, match="contains no finished fold"):
        decathlete.select(tmp_path, options=OPTIONS)
    other = support.write_configuration(tmp_path / "other" / "3d", root, dataset_digest="another")
    with pytest.raises(ModelError, match="another dataset"):
        decathlete.select([study / "results" / "Known" / "2d", other], options=OPTIONS)
    with pytest.raises(OptionError, match="compared by their Dice"):
        decathlete.select(study / "results" / "Known", options=OPTIONS, metrics=["iou"])
    with pytest.raises(OptionError, match="at most 0 networks"):
        decathlete.select(study / "results" / "Known", options=OPTIONS, max_members=0)
    unfinished = support.write_configuration(tmp_path / "unfinished" / "3d", root, finished=None)
    with pytest.raises(ModelError, match="contains no finished fold"):
        decathlete.select(unfinished, options=OPTIONS)


def test_scores_of_other_options_are_not_mixed_in(study: Path, tmp_path: Path) -> None:
    results = tmp_path / "Known"
    shutil.copytree(study / "results" / "Known", results, ignore=shutil.ignore_patterns("selected"))
    with pytest.raises(OutputError, match="other settings of the prediction"):
        decathlete.select(results, options=OPTIONS.updated(overlap=0.25), workers=1)


def test_a_selection_by_label_maps_that_were_corrected_is_made_again(selected, study: Path, tmp_path: Path) -> None:
    results, root = (shutil.copytree(study / name / "Known", tmp_path / name) for name in ("results", "data"))
    again = {"dataset_root": root, "options": OPTIONS, "workers": 1}
    assert decathlete.select(results, **again).selection == selected.selection, "the place of the files does not count"
    truth = support.make_truth(1)  # of a wider organ
    write_label(root / "labelsTr" / "c00.nii.gz", truth, Geometry.plain(truth.shape, spacing_ZYX=support.SPACING))
    with pytest.raises(OutputError, match="selection of other models, options or cases"):
        decathlete.select(results, **again)
    found = decathlete.select(results, overwrite=True, **again)
    assert found.scores.headline.dice < selected.scores.headline.dice
    assert Selection.load(found.folder / "selection.json").key != selected.selection.key


def test_a_selection_that_was_stopped_is_finished_by_the_same_command(selected, study: Path, tmp_path: Path) -> None:
    """Finished predictions are kept; one that was damaged is made again."""
    results = tmp_path / "Known"
    shutil.copytree(study / "results" / "Known", results)
    (results / "selected" / "scores.json").unlink()
    path = results / "selected" / "candidates" / "2d+3d" / "validation" / "c00.nii.gz"
    path.write_bytes(b"damaged")
    found = decathlete.select(results, options=OPTIONS, workers=1)
    assert (found.selection.selected, found.scores) == ("3d", selected.scores)
    assert read_label(path).array_ZYX.shape == (12, 24, 24)
    steps = build_steps(found.selection.postprocessing.steps, support.LABELS)
    label_ZYX = read_label(results / "3d" / "fold_0" / "validation" / "c00.nii.gz").array_ZYX
    expected = postprocess(
        label_ZYX, Geometry.plain(label_ZYX.shape, spacing_ZYX=support.SPACING), support.LABELS, steps
    )
    assert np.array_equal(read_label(found.folder / "validation" / "c00.nii.gz").array_ZYX, expected)


def test_a_selection_that_was_stopped_while_it_replaced_another_is_not_taken_for_either(
    selected, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is replaced first: for a moment, selection and scores are those of the one before."""
    results = tmp_path / "Known"
    shutil.copytree(study / "results" / "Known", results)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(select_module, "write_held_out_files", stop)
        with pytest.raises(KeyboardInterrupt):
            decathlete.select(results, options=OPTIONS, workers=1, max_members=1, overwrite=True)
    one_network = ModelBundle.load(results / "selected" / "model")
    found = decathlete.select(results, options=OPTIONS, workers=1)
    again = ModelBundle.load(found.model)
    assert (one_network.record.n_networks, again.record.n_networks) == (1, 2)
    assert found.scores.origin.models == (again.digest,)


def test_a_fold_of_an_older_split_is_left_out(study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each case counts once, and is predicted by one fold."""
    results = tmp_path / "Known"
    shutil.copytree(study / "results" / "Known", results, ignore=shutil.ignore_patterns("selected"))
    for name in ("2d", "3d"):
        path = results / name / "fold_1" / "run.json"
        record = RunRecord.load(path)
        record.revised(val=(*record.val, "c00")).save(path)
    found = decathlete.select(results, options=OPTIONS, workers=1)
    assert "fold 1 is left out: other folds hold out c00, too" in caplog.text
    assert [case.case_id for case in found.scores.cases] == ["c00", "c02", "c04", "c06", "c08"]


def test_copies_of_runs_are_no_folds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = support.write_dataset(tmp_path / "Known", n_cases=4)
    folder = support.write_configuration(tmp_path / "results" / "3d", root, n_cases=4)
    shutil.copytree(folder / "fold_0", folder / "fold_0_old")
    shutil.copytree(folder / "fold_1", folder / "fold_7")
    (folder / "fold_00").mkdir()
    (folder / "fold_00" / "run.json").write_text("{")
    (found,) = find_configurations([folder])
    assert {fold: run.folder.name for fold, run in found.folds.items()} == {0: "fold_0", 1: "fold_1"}
    for name in ("fold_0_old", "fold_00"):
        assert f"{folder / name} is left out: the folder of a fold is called fold_0, fold_1, ..." in caplog.text
    assert f"{folder / 'fold_7'} is left out: it contains a run of fold 1" in caplog.text
