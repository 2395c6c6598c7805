"""``run --configurations`` on a phantom: it trains what is missing, resumes, and ends with a selected model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

import decathlete
from cli_support import CommandResult, run_command
from decathlete.errors import StoreError
from decathlete.inference.output.provenance import PredictionRecord
from decathlete.io.images import read_label
from decathlete.models.bundle import ModelBundle
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.workflows.fold import FoldPipeline
from decathlete.workflows.selection.record import Selection


@dataclass(frozen=True)
class Story:
    """A command that trained one configuration, and one that trained another in addition and selected."""

    folder: Path
    first: CommandResult
    second: CommandResult
    kept: bool


def _command(root: Path, *options: str) -> CommandResult:
    places = [f"--{name}={root / name}" for name in ("data", "prepared", "results")]
    training = "--epochs 1 --steps-per-epoch 1 --device cpu --n-folds 2 --no-adapt --filters 4,8 --workers 1"
    return run_command("run", "Balls", *training.split(), *places, *options)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    root = tmp_path_factory.mktemp("configurations")
    make_phantoms(root / "data" / "Balls", n_cases=2, n_test=1, shape_ZYX=(12, 12, 12), noise=0.2)
    first = _command(root, "--configurations", "2d", "--max-members", "1")
    folder = root / "results" / "Balls"
    weights = next((folder / "2d" / "fold_0" / "model" / "weights").iterdir())
    before = weights.stat().st_mtime_ns
    second = _command(root, "--configurations", "auto", "--folds", "0-1")
    return Story(folder, first, second, kept=weights.stat().st_mtime_ns == before)


def test_what_is_missing_is_trained_and_the_best_selected(story: Story) -> None:
    assert story.first.code in (0, None), story.first.err
    assert "2 trainings: 2d folds 0-1" in story.first.err.replace("\n", " ")
    assert story.second.code in (0, None), story.second.err
    assert "4 trainings: 2d folds 0-1; 3d folds 0-1" in story.second.err.replace("\n", " ")
    assert story.kept, "finished folds are not trained again"
    selection = Selection.load(story.folder / "selected" / "selection.json")
    assert {candidate.name for candidate in selection.candidates} == {"2d", "3d", "2d+3d"}
    held_out = sorted(case for cases in selection.held_out.values() for case in cases)
    assert held_out == ["phantom_000", "phantom_001"]
    assert f"selected: {selection.selected} has the highest mean Dice" in story.second.out
    assert "fewer than 5 held-out patients" in story.second.out


def test_progress_in_a_log_names_each_training(story: Story) -> None:
    text = " ".join(story.second.err.split())
    assert "3d fold 0: training 0 %; 2 of 4 trainings done" in text
    assert "3d fold 1: finished, Dice" in text
    assert "4 of 4 trainings done" in text


def test_scores_of_each_configuration_and_test_images_are_written(story: Story) -> None:
    for name in ("2d", "3d"):
        assert (story.folder / name / "cross_validation.json").is_file()
    (predicted,) = (story.folder / "selected" / "predictions").glob("*.nii.gz")
    assert read_label(predicted).array_ZYX.shape == (12, 12, 12)
    (record,) = (story.folder / "selected" / "predictions").glob("*.json")
    (made_by,) = {model.digest for model in PredictionRecord.load(record).settings.models}
    assert made_by == ModelBundle.load(story.folder / "selected" / "model").digest, "the first selection was another"
    assert decathlete.Predictor.load(story.folder / "selected", device="cpu", engine="torch").labels.n_classes >= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "2"], "runs that were made with different settings or data: {all}: epochs: 1 -> 2"),
        (["--filters", "4,6"], "runs that were made with different settings or data: {all}: another plan (network)"),
        (["--metrics", "dice,iou"], "scores that were made with different settings: {all}: other metrics"),
        (["--overlap", "0.25"], "scores that were made with different settings: {all}: overlap: 0.5 -> 0.25"),
    ],
)
def test_results_of_other_settings_are_named_before_anything_is_trained(
    story: Story, options: list[str], message: str
) -> None:
    root = story.folder.parents[1]
    plans = [root / "prepared" / "Balls" / name / "plan.json" for name in ("2d", "3d")]
    before = [plan.read_text() for plan in plans]
    said = _command(root, "--configurations", "2d,3d", *options)
    text = " ".join(said.err.split())
    assert said.code == 2
    assert message.format(all="2d folds 0-1; 3d folds 0-1") in text
    assert "training 0 %" not in text
    assert [plan.read_text() for plan in plans] == before, "finished runs still fit the prepared data"
    if "runs" in message:
        assert f"decathlete select {story.folder}" in text


def test_predictions_that_the_user_has_changed_are_not_replaced(story: Story) -> None:
    (label,) = (story.folder / "selected" / "predictions").glob("*.nii.gz")
    predicted = label.read_bytes()
    label.write_bytes(b"corrected")
    said = _command(story.folder.parents[1], "--configurations", "2d,3d", "--folds", "0-1")
    assert said.code == 2
    assert f"were changed after their prediction, or are no predictions: {label.name}" in " ".join(said.err.split())
    assert label.read_bytes() == b"corrected"
    label.write_bytes(predicted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--total-time", "1h"], "--total-time has no effect without --configurations"),
        (["--configurations", "2d", "--dim", "2"], "--dim contradicts --configurations"),
        (["--configurations", "2d", "--total-time", "1h"], "--epochs contradicts --total-time"),
        (["--configurations", "4d"], "no configuration called '4d'"),
        (["--configurations", "2d", "--metrics", "iou"], "compared by their Dice"),
        (["--configurations", "2d,3d", "--set", "patch_size=8,8,8"], "patch_size needs 2 numbers"),
        (["--configurations", "2d,3d_lowres"], "needs no low resolution"),
    ],
)
def test_options_that_contradict_each_other_are_named(tmp_path: Path, options: list[str], message: str) -> None:
    make_phantoms(tmp_path / "data" / "Balls", n_cases=2, shape_ZYX=(8, 8, 8))
    said = _command(tmp_path, *options)
    assert said.code == 2
    assert message in said.err
    assert not (tmp_path / "results").exists()


def test_data_that_cannot_be_prepared_fail_each_fold_and_say_why_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_phantoms(tmp_path / "data" / "Balls", n_cases=2, shape_ZYX=(12, 12, 12))

    def prepare(pipeline: FoldPipeline, check_plan: object) -> None:
        raise StoreError(f"the data of {pipeline.which} cannot be prepared")

    monkeypatch.setattr(FoldPipeline, "prepare", prepare)
    said = _command(tmp_path, "--configurations", "2d,3d")
    assert said.code == 2
    assert "4 of 4 folds failed" in said.err
    for name in ("2d", "3d"):
        assert f"{name} fold 0: the data of {name} cannot be prepared" in said.err
        assert f"{name} fold 1: not run, for the same reason" in said.err
