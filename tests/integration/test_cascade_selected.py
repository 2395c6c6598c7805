"""A cascade among several configurations: trained with its first stage, selected, and validated like the others."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import decathlete
import selection_support as support
from decathlete.inference.options import PredictOptions
from decathlete.inference.predict import Predictor
from decathlete.io.images import read_label
from decathlete.models.bundle import ModelBundle
from decathlete.planning.options import PlanOptions
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.training.config import TrainConfig
from decathlete.workflows.workspace import Workspace

OPTIONS = PredictOptions(device="cpu", precision="fp32", engine="torch")
MISTAKEN, RIGHT = (0.0, 1.0, 2.0), (0.3, 1.0, 2.0)
"""First stages for which voxels that say nothing (intensity 0.55) are organ, or background, as they should be."""


def images_of(root: Path, case_id: str) -> list[Path]:
    return [root / "imagesTr" / f"{case_id}_{channel:04}.nii.gz" for channel in range(2)]


@pytest.mark.full
def test_a_pair_with_a_cascade_is_selected_where_it_is_best(tmp_path: Path) -> None:
    """Each channel is unknown where the other is clear: only both together are right everywhere."""
    root = support.write_dataset(tmp_path / "Pair", unknown=(0.2, 0.2))
    results = tmp_path / "results" / "Pair"
    support.write_configuration(results / "3d", root, channel=0)
    support.write_configuration(results / "3d_cascade", root, channel=1, first_stages=(RIGHT, MISTAKEN))
    found = decathlete.select(results, options=OPTIONS, workers=1)
    networks = {candidate.name: candidate.networks for candidate in found.selection.candidates}
    assert networks == {"3d": 2, "3d_cascade": 4, "3d+3d_cascade": 6}, "those of first stages count"
    assert found.selection.selected == "3d+3d_cascade"
    assert ModelBundle.load(found.model).record.n_networks == 6
    predicted = Predictor.load(found.model, options=OPTIONS).predict(images_of(root, "c01"))
    assert np.array_equal(predicted.label_ZYX, support.make_truth(1))
    shutil.rmtree(found.folder / "validation")
    assert decathlete.validate(found.folder, options=OPTIONS, workers=1) == found.scores

    few = decathlete.select(results, output=tmp_path / "few", options=OPTIONS, workers=1, max_members=5)
    best = few.selection.selected_candidate
    assert (best.name, best.folds, best.networks) == ("3d+3d_cascade", (0,), 3)


def test_a_selected_cascade_predicts_each_case_by_the_first_stage_of_its_fold(tmp_path: Path) -> None:
    """The second stage repeats what the first says. That of fold 1 is mistaken in much of the background."""
    root = support.write_dataset(tmp_path / "Copies", unknown=(0.0, 0.3))
    results = tmp_path / "results" / "Copies"
    support.write_configuration(results / "3d_cascade", root, channel=2, first_stages=(RIGHT, MISTAKEN))
    found = decathlete.select(results, options=OPTIONS, workers=1)
    assert (found.selection.selected, found.selection.selected_candidate.networks) == ("3d_cascade", 4)
    organ = {case.case_id: case.classes[0].values["dice"] for case in found.scores.cases}
    for number in range(10):
        assert (organ[f"c{number:02}"] > 0.9) == (number % 2 == 0), "cases with even numbers are those of fold 0"
    shutil.rmtree(found.folder / "validation")
    assert decathlete.validate(found.folder, options=OPTIONS, workers=1) == found.scores
    first = Predictor.load(found.model, options=OPTIONS, fold=0).predict(images_of(root, "c01"))
    assert np.array_equal(first.label_ZYX, support.make_truth(1) == 1), "lesions are another mask"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> decathlete.ConfigurationsResult:
    root = tmp_path_factory.mktemp("trained")
    make_phantoms(root / "data" / "Big", n_cases=4, n_test=1, shape_ZYX=(36, 40, 36))
    return decathlete.run_configurations(
        "Big",
        configurations="3d_cascade",
        workspace=Workspace(data=root / "data", prepared=root / "prepared", results=root / "results"),
        plan_options=PlanOptions(overrides=("patch_size=16,16,16", "batch_size=2"), filters=(4, 8), n_folds=2),
        config=TrainConfig(epochs=1, steps_per_epoch=1, device="cpu", val_cases=1),
        folds="0",
        workers=1,
    )


@pytest.mark.full
def test_the_first_stage_is_trained_on_every_fold_and_both_are_compared(
    trained: decathlete.ConfigurationsResult,
) -> None:
    folder = trained.selection.folder
    runs = {f"{run.parent.parent.name} {run.parent.name}" for run in folder.parent.glob("*/fold_*/run.json")}
    assert runs == {"3d_lowres fold_0", "3d_lowres fold_1", "3d_cascade fold_0"}
    candidates = {candidate.name: candidate.networks for candidate in trained.selection.selection.candidates}
    assert candidates == {"3d_lowres": 1, "3d_cascade": 2, "3d_lowres+3d_cascade": 3}
    assert trained.predictions is not None
    (predicted,) = trained.predictions.glob("*.nii.gz")
    assert read_label(predicted).array_ZYX.shape == (36, 40, 36)


@pytest.mark.full
def test_a_cascade_that_is_selected_alone_predicts_as_its_run(trained: decathlete.ConfigurationsResult) -> None:
    results = trained.selection.folder.parent
    alone = decathlete.select(results / "3d_cascade", output=results.parent / "alone", workers=1)
    model = Predictor.load(alone.model)
    (image,) = (results.parents[1] / "data" / "Big" / "imagesTs").glob("*.nii.gz")
    run = Predictor.load(results / "3d_cascade" / "fold_0")
    assert ModelBundle.load(alone.model).record.n_networks == 2
    np.testing.assert_array_equal(model.predict(image).label_ZYX, run.predict(image).label_ZYX)
