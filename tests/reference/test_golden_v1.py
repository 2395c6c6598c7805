"""Today's code on what an early version wrote (``golden/v1``): it reads all of it and computes the same.

Numbers are compared with tolerances, because other processors round differently. ``benchmarks/equality/run.py``
compares two checkouts on one processor bit for bit.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from safetensors.numpy import load_file

import decathlete
from cli_support import run_command
from decathlete.evaluation.scores import Scores

GOLDEN = Path(__file__).parent / "golden" / "v1"
RESUMED = Path(__file__).parent / "golden" / "v2"
MODIFIED = 1_700_000_000
"""Modification time of the raw files, seconds since 1970; digests of datasets depend on it."""

FOLD_2D, FOLD_3D = "results/classes/Task07_Blobs/2d/fold_{}", "results/classes/Task07_Blobs/3d/fold_0"
PREDICTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "2d": ("Task07_Blobs", (FOLD_2D.format(0),)),
    "3d": ("Task07_Blobs", (FOLD_3D,)),
    "3d_tta": ("Task07_Blobs", (FOLD_3D,)),
    "folds": ("Task07_Blobs", (FOLD_2D.format(0), FOLD_2D.format(1))),
    "two_networks": ("Task07_Blobs", ("models/two_networks",)),
    "2d_and_3d": ("Task07_Blobs", (FOLD_2D.format(0), FOLD_3D)),
    "regions": ("Task08_Pair", ("results/regions/Task08_Pair/3d/fold_0",)),
    "residual": ("Task08_Pair", ("results/residual/Task08_Pair/3d/fold_0",)),
}
"""Name -> dataset, models."""

TRAIN = ("--epochs", "3", "--ema-decay", "0.9", "--seed", "3", "--logger", "none", "--device", "cpu",
         "--precision", "fp32", "--readers", "1")  # fmt: skip
RESUME_3D = ("train", "--task", "7", "--dim", "3", *TRAIN, "--steps-per-epoch", "25", "--resume")
FOLDS_2D = ("run", "7", "--dim", "2", *TRAIN, "--steps-per-epoch", "80", "--filters", "4,8,16", "--n-folds", "2",
            "--set", "batch_size=6", "--set", "mirror_axes=0,1", "--folds", "0-1", "--engine", "torch")  # fmt: skip
PLAN_3D = decathlete.PlanOptions(filters=(4, 8, 16), overrides=("batch_size=2", "mirror_axes=0,1,2"), n_folds=2)
FP32 = decathlete.PredictOptions(device="cpu", precision="fp32", engine="torch")
PREPARED: dict[str, tuple[tuple[int, ...], float, float, list[int]]] = {
    "phantom_000": ((1, 10, 24, 22), -1.7735750, 0.7081137, [4740, 287, 253]),
    "phantom_001": ((1, 10, 24, 22), -1.8529361, 0.5787717, [4790, 239, 251]),
    "phantom_002": ((1, 10, 24, 22), -1.8189643, 0.6469537, [4838, 221, 221]),
    "phantom_003": ((1, 10, 25, 22), -1.7675667, 0.6820153, [4966, 273, 261]),
}
"""Case -> shape, mean and standard deviation of the prepared image, voxels of each class."""

MARGIN = 1e-4
"""Where two classes are closer than this, rounding may decide between them."""
ROUNDING = 1e-5
"""Of probabilities, prepared intensities and metrics."""
WEIGHTS_DRIFT = 2e-5
"""Of weights after 35 steps; instruction sets from SSE4.1 to AVX-512 differed by at most 6e-7."""


def copy_to(folder: Path) -> decathlete.Workspace:
    """A copy of what the early version wrote; tests may write into it."""
    for name in ("data", "prepared", "results"):
        shutil.copytree(GOLDEN / name, folder / name)
    for path in (folder / "data").rglob("*.nii.gz"):
        os.utime(path, (MODIFIED, MODIFIED))
    return decathlete.Workspace(data=folder / "data", prepared=folder / "prepared", results=folder / "results/classes")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> decathlete.Workspace:
    """For tests that only read."""
    return copy_to(tmp_path_factory.mktemp("golden"))


def command(*arguments: str, workspace: decathlete.Workspace) -> str:
    """Run the command line in this process, which has one thread; what it prints."""
    roots = [f"--{name}={getattr(workspace, name)}" for name in ("data", "prepared", "results")]
    said = run_command(*arguments, *roots)
    assert said.code in (0, None), said.out + said.err
    return said.out + said.err


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (ZYX) and affine."""
    image: Any = nibabel.load(path)
    return np.asarray(image.dataobj).transpose(2, 1, 0), image.affine


def expect_close(found: Any, expected: Any, where: str = "") -> None:
    """The same keys, words and whole numbers; other numbers but for rounding."""
    if isinstance(expected, Mapping):
        assert found.keys() == expected.keys(), where
        for key in expected:
            expect_close(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            expect_close(one, other, f"{where}.{number}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING, nan_ok=True), where
    else:
        assert found == expected, where


@pytest.mark.parametrize("name", PREDICTIONS)
def test_models_predict_the_same(name: str) -> None:
    dataset, models = PREDICTIONS[name]
    predictor = decathlete.Predictor.load(
        [GOLDEN / model for model in models], device="cpu", precision="fp32", engine="torch", tta=name == "3d_tta"
    )
    images = sorted((GOLDEN / "data" / dataset / "imagesTs").glob("*.nii.gz"))
    assert images
    with np.load(GOLDEN / "probabilities.npz") as recorded:
        for image in images:
            prediction = predictor.predict(image, probabilities=True)
            expected_ZYX, _ = read_nifti(GOLDEN / "predictions" / name / image.name)
            probabilities_KZYX = prediction.probabilities_KZYX
            assert probabilities_KZYX is not None
            if name == "regions":
                margin_ZYX = np.abs(probabilities_KZYX - 0.5).min(axis=0)
            else:
                ordered_KZYX = np.sort(probabilities_KZYX, axis=0)
                margin_ZYX = ordered_KZYX[-1] - ordered_KZYX[-2]
            clear_ZYX = margin_ZYX > MARGIN
            assert clear_ZYX.mean() > 0.999
            assert set(np.unique(expected_ZYX)) == {0, 1, 2}
            assert np.array_equal(prediction.label_ZYX[clear_ZYX], expected_ZYX[clear_ZYX])
            np.testing.assert_allclose(
                probabilities_KZYX[:, ::2, ::2, ::2],
                recorded[f"{name}/{image.name.removesuffix('.nii.gz')}"],
                atol=ROUNDING,
            )


def test_finished_predictions_are_kept(tmp_path: Path) -> None:
    """Their records say that they were made from these images by this model."""
    shutil.copytree(GOLDEN / "predictions" / "2d", tmp_path / "2d")
    done = decathlete.predict(
        GOLDEN / FOLD_2D.format(0), GOLDEN / "data" / "Task07_Blobs" / "imagesTs", tmp_path / "2d", options=FP32
    )
    assert [file.kept for file in done] == [True, True]


def test_the_prepared_store_is_read_and_prepared_again_alike(workspace: decathlete.Workspace, tmp_path: Path) -> None:
    """From the raw images alone: fingerprint, splits, plan and arrays."""
    store = decathlete.preprocess("7", workspace=workspace, reuse=True)
    assert store.folder == workspace.prepared / "Task07_Blobs" / "3d"
    fresh_workspace = decathlete.Workspace(data=workspace.data, prepared=tmp_path)
    fresh = decathlete.preprocess("7", workspace=fresh_workspace, options=PLAN_3D, workers=1)
    expect_close(fresh.fingerprint.model_dump(), store.fingerprint.model_dump())
    assert fresh.splits == store.splits
    assert list(store.case_ids) == list(fresh.case_ids) == [f"phantom_{i:03d}" for i in range(4)]
    for case_id in store.case_ids:
        old, new = store.case(case_id), fresh.case(case_id)
        np.testing.assert_allclose(new.read_image(), old.read_image(), atol=ROUNDING)
        assert np.array_equal(new.read_label(), old.read_label())
        assert dict(new.foreground).keys() == dict(old.foreground).keys() == {1, 2}
        assert all(np.array_equal(places, new.foreground[index]) for index, places in old.foreground.items())


def test_prepared_images_are_those_that_the_early_version_saw(workspace: decathlete.Workspace) -> None:
    """Figures from the files themselves: neither reading nor preparing may have changed."""
    store = decathlete.preprocess("7", workspace=workspace, reuse=True)
    assert list(store.case_ids) == list(PREPARED)
    for case_id, (shape, mean, deviation, voxels) in PREPARED.items():
        image_CZYX = store.case(case_id).read_image()
        assert image_CZYX.shape == shape
        assert image_CZYX.mean() == pytest.approx(mean, abs=ROUNDING)
        assert image_CZYX.std() == pytest.approx(deviation, abs=ROUNDING)
        assert np.bincount(store.case(case_id).read_label().ravel()).tolist() == voxels


def test_the_same_fingerprint_gives_the_same_plan(workspace: decathlete.Workspace, tmp_path: Path) -> None:
    (tmp_path / "Task07_Blobs").mkdir()
    shutil.copy(GOLDEN / "prepared" / "Task07_Blobs" / "fingerprint_canonical.json", tmp_path / "Task07_Blobs")
    store = decathlete.preprocess("7", workspace=workspace, reuse=True)
    fresh_workspace = decathlete.Workspace(data=workspace.data, prepared=tmp_path)
    fresh = decathlete.preprocess("7", workspace=fresh_workspace, options=PLAN_3D, workers=1)
    assert fresh.plan.model_dump(exclude={"reasons"}) == store.plan.model_dump(exclude={"reasons"})
    recorded = json.loads((GOLDEN / "prepared" / "Task07_Blobs" / "3d" / "plan.json").read_text())
    for name in ("patch_size", "target_spacing", "median_shape"):
        assert list(getattr(store.plan, name)) == recorded[name]


def resume_stopped_run(folder: Path) -> Path:
    """Resume the stopped run of the early version in ``folder``; the run's folder."""
    workspace = copy_to(folder)
    shutil.rmtree(workspace.results)
    shutil.copytree(GOLDEN / "stopped", workspace.results)
    command(*RESUME_3D, workspace=workspace)
    return workspace.run_folder("7", 3, 0)


def test_a_stopped_run_is_resumed_to_the_same_weights(tmp_path: Path) -> None:
    """The same as ``v2/make.py`` has made: augmentation's random changes are others than the early version's."""
    run = resume_stopped_run(tmp_path)
    found, finished = (
        load_file(path) for path in (run / "model/weights/3d_fold_0.safetensors", RESUMED / "resumed.safetensors")
    )
    assert found.keys() == finished.keys() == load_file(GOLDEN / FOLD_3D / "model" / "weights.safetensors").keys()
    for name, expected in finished.items():
        np.testing.assert_allclose(found[name], expected, atol=WEIGHTS_DRIFT, err_msg=name)
    epochs, expected_epochs, early_epochs = (
        json.loads(path.read_text())["epochs"]
        for path in (run / "logs.json", RESUMED / "resumed_logs.json", GOLDEN / FOLD_3D / "logs.json")
    )
    losses, expected_losses = ([epoch["train_loss"] for epoch in each] for each in (epochs, expected_epochs))
    assert losses == pytest.approx(expected_losses, abs=WEIGHTS_DRIFT)
    assert epochs[0] == early_epochs[0], "the first epoch is not trained again"


def test_finished_folds_and_their_scores_are_kept(tmp_path: Path) -> None:
    """Cross-validation, run again, trains nothing and puts the folds' scores together as before."""
    workspace = copy_to(tmp_path)
    results = workspace.results_folder("7", 2)
    weights = [results / f"fold_{fold}" / "model" / "weights.safetensors" for fold in (0, 1)]
    before = [path.stat().st_mtime_ns for path in weights]
    expected = json.loads((results / "cross_validation.json").read_text())
    (results / "cross_validation.json").unlink()
    printed = command(*FOLDS_2D, workspace=workspace)
    assert [path.stat().st_mtime_ns for path in weights] == before
    assert f"pooled Dice {expected['pooled']['headline']['dice']:.3f}" in printed
    found = json.loads((results / "cross_validation.json").read_text())
    before_pooled = Scores.model_validate(expected["pooled"])
    expect_close(found["pooled"]["headline"], before_pooled.headline.model_dump(mode="json"))


@pytest.mark.parametrize("grid", ["original", "prepared"])
def test_scores_are_read_and_kept(grid: Any, workspace: decathlete.Workspace) -> None:
    run = workspace.run_folder("7", 3, 0)
    path = run / ("scores.json" if grid == "original" else "scores_prepared.json")
    before = path.read_bytes()
    scores = decathlete.validate(run, dataset_root=workspace.dataset("7"), options=FP32, workers=1, grid=grid)
    assert path.read_bytes() == before
    assert scores.headline.dice == json.loads(before)["headline"]["dice"]


def test_label_maps_get_the_same_scores(workspace: decathlete.Workspace, tmp_path: Path) -> None:
    run, labels = workspace.run_folder("7", 3, 0), tmp_path / "labels"
    labels.mkdir()
    for path in (run / "validation").glob("*.nii.gz"):
        shutil.copy(workspace.dataset("7") / "labelsTr" / path.name, labels)
    shutil.copy(workspace.dataset("7") / "dataset.json", labels)
    scores = decathlete.evaluate(run / "validation", labels, workers=1)
    recorded = json.loads((run / "scores.json").read_text())
    assert scores.headline.n_cases == 2
    assert scores.headline.values["hd95_mm"] == pytest.approx(recorded["headline"]["hd95_mm"], rel=ROUNDING)
    assert scores.headline.values["hd95_mm"] > 0
    expect_close(scores.headline.model_dump(), Scores.model_validate(recorded).headline.model_dump())


def test_a_report_is_written_of_the_run(tmp_path: Path) -> None:
    """It reads the run's record, logs and scores."""
    workspace = copy_to(tmp_path)
    run = workspace.run_folder("7", 3, 0)
    report = decathlete.report(run, dataset_root=workspace.dataset("7")).read_text()
    assert f"{json.loads((run / 'scores.json').read_text())['headline']['dice']:.3f}" in report
